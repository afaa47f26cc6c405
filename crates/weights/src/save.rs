//! Writing checkpoints: a new file appears whole or not at all.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use base::Vars;
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
    write_atomically(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes()).map_err(Error::write(path))?;
        out.write_all(&header).map_err(Error::write(path))?;
        tensors.iter().try_for_each(|(name, tensor)| write_tensor(path, out, name, tensor))
    })
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

fn write_tensor(path: &Path, out: &mut dyn Write, name: &str, tensor: &Tensor) -> Result<()> {
    with_bytes(tensor, |bytes| out.write_all(bytes))
        .map_err(|e| Error::torch(format!("reading `{name}`"), e))?
        .map_err(Error::write(path))
}

/// Writes to a temporary file in the same directory, makes sure it is on the disk, and renames it.
fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = temporary(directory).map_err(Error::write(path))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    let file = out.into_inner().map_err(|e| Error::write(path)(e.into_error()))?;
    file.as_file().sync_all().map_err(Error::write(path))?;
    file.persist(path).map_err(|e| Error::write(path)(e.error))?;
    // The rename itself is only on the disk once the directory is.
    std::fs::File::open(directory).and_then(|d| d.sync_all()).map_err(Error::write(path))
}

/// A temporary file with the permissions that an ordinary new file gets.
fn temporary(directory: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".partial-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(directory)
}
