//! Writing checkpoints: a new file appears whole or not at all.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use base::Vars;
use base::files::write_atomic;
use libtorch_ext::bytes::with_bytes;
use serde_json::{Map, Value as Json, json};
use tch::Tensor;

use crate::{Error, Result, safetensors::dtype_name};

/// A model's variables by name, buffers included, for saving and fingerprints.
pub fn named_tensors(vars: &Vars) -> Vec<(String, Tensor)> {
    vars.all().into_iter().map(|v| (v.name, v.tensor)).collect()
}

/// Writes a safetensors file. The same input gives the same bytes.
///
/// Wider kinds come first, as in every safetensors file, so that all are aligned. The header is written here
/// because the `safetensors` crate orders metadata at random.
pub fn save_safetensors(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut tensors: Vec<&(String, Tensor)> = tensors.iter().collect();
    tensors.sort_by_key(|(_, t)| std::cmp::Reverse(t.kind().elt_size_in_bytes()));
    let header = header(path, &tensors, metadata)?;
    write_atomic(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        tensors.iter().try_for_each(|(_, tensor)| write_values(&mut out, tensor))?;
        out.flush()
    })
    .map_err(Error::write(path))
}

fn header(
    path: &Path,
    tensors: &[&(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut table = Map::new();
    if !metadata.is_empty() {
        table.insert("__metadata__".into(), json!(metadata));
    }
    let mut start = 0;
    for (name, tensor) in tensors {
        let refuse = |what: String| Error::Refused { path: path.to_owned(), name: name.clone(), what };
        let kind = tensor.kind();
        let dtype = dtype_name(kind).ok_or_else(|| refuse(format!("safetensors has no kind {kind:?}")))?;
        let end = start + tensor.numel() * kind.elt_size_in_bytes();
        let info = json!({"dtype": dtype, "shape": tensor.size(), "data_offsets": [start, end]});
        if name == "__metadata__" || table.insert(name.clone(), info).is_some() {
            return Err(refuse("the name is taken".into()));
        }
        start = end;
    }
    let mut text = Json::Object(table).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok(text)
}

/// The values of a tensor; libtorch fails here only when a copy from another device finds no memory.
pub(crate) fn write_values(out: &mut dyn Write, tensor: &Tensor) -> std::io::Result<()> {
    with_bytes(tensor, |bytes| out.write_all(bytes)).map_err(std::io::Error::other)?
}
