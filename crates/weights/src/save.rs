//! Writing safetensors, and what both formats have in common: a new file appears whole or not at
//! all.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use base::files::write_atomic;
use base::hash::Sha256;
use base::{Precision, TensorKind, Vars};
use libtorch_ext::bytes::with_bytes;
use serde_json::{Map, Value as Json, json};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result, TensorSource, keymap::strip, safetensors::dtype_name};

/// A model's variables by name, buffers included, for saving and fingerprints.
pub fn named_tensors(vars: &Vars) -> Vec<(String, Tensor)> {
    vars.all().into_iter().map(|v| (v.name, v.tensor)).collect()
}

/// A tensor to be written.
pub(crate) struct Item<'a> {
    pub name: String,
    pub kind: Kind,
    pub shape: Vec<i64>,
    pub values: Values<'a>,
}

/// Values of an item.
pub(crate) enum Values<'a> {
    Memory(&'a Tensor),
    /// In a file, under this name.
    File(&'a dyn TensorSource, &'a str),
    /// Values in a file, to be cast to the item's dtype.
    Cast(&'a dyn TensorSource, &'a str),
}

impl Item<'_> {
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<i64>() as usize * self.kind.elt_size_in_bytes()
    }

    /// Writes the values. Beside the output itself, reading can fail: no memory for a copy from
    /// another device, or a damaged input.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        match &self.values {
            Values::Memory(tensor) => {
                with_bytes(tensor, |b| out.write_all(b)).map_err(std::io::Error::other)?
            }
            Values::File(source, name) => out.write_all(&source.bytes(name).map_err(std::io::Error::other)?),
            Values::Cast(source, name) => {
                let tensor = cast(*source, name, self.kind).map_err(std::io::Error::other)?;
                with_bytes(&tensor, |b| out.write_all(b)).map_err(std::io::Error::other)?
            }
        }
    }
}

/// A tensor of a file in another dtype; an error if a finite value becomes infinite.
fn cast(source: &dyn TensorSource, name: &str, kind: Kind) -> std::result::Result<Tensor, String> {
    let wide = source.read(name, Device::Cpu).map_err(|e| e.to_string())?;
    let narrow = wide.to_kind(kind);
    let lost = wide.isfinite().logical_and(&narrow.isfinite().logical_not());
    match lost.any().int64_value(&[]) {
        0 => Ok(narrow),
        _ => Err(format!("`{name}` has values that are too large for {kind:?}; bf16 has the range of fp32")),
    }
}

pub(crate) fn items_of(tensors: &[(String, Tensor)]) -> Vec<Item<'_>> {
    let mut items = vec![];
    for (name, tensor) in tensors {
        let (kind, shape) = (tensor.kind(), tensor.size());
        items.push(Item { name: name.clone(), kind, shape, values: Values::Memory(tensor) });
    }
    items
}

/// The tensors of a file, without what wrappers put into their names; floating ones in `precision`,
/// if one is given.
pub(crate) fn items_in(source: &dyn TensorSource, precision: Option<Precision>) -> Result<Vec<Item<'_>>> {
    let item = |name| {
        if let Some(unsupported) = source.unsupported(name) {
            return Err(Error::unsupported(source.origin(), name, unsupported));
        }
        let info =
            source.info(name).ok_or_else(|| Error::no_tensor(source.origin(), name, &source.names()))?;
        let wanted = precision.map(Precision::kind).filter(|k| *k != info.kind && is_floating(info.kind));
        let (kind, values) = match wanted {
            Some(kind) => (kind, Values::Cast(source, name)),
            None => (info.kind, Values::File(source, name)),
        };
        Ok(Item { name: strip(name), kind, shape: info.shape, values })
    };
    source.names().into_iter().map(item).collect()
}

fn is_floating(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}

/// Writes a safetensors file. The same input gives the same bytes.
pub fn save_safetensors(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    write(path, items_of(tensors), metadata)
}

/// [`save_safetensors`], which also returns the SHA-256 of what was written, in hexadecimal, and
/// its length in bytes. It is taken on the way to the file, so that reading back shows whether the
/// file holds it.
pub fn save_with_digest(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<(String, u64)> {
    let (mut digest, mut length) = (Sha256::default(), 0);
    write_through(path, items_of(tensors), metadata, &mut |bytes| {
        digest.update(bytes);
        length += bytes.len() as u64;
    })?;
    Ok((digest.hex(), length))
}

/// Writes the tensors of another file as safetensors, one at a time, without the prefixes of
/// wrappers; floating ones in `precision`, if one is given.
pub fn export_safetensors(
    path: &Path,
    source: &dyn TensorSource,
    precision: Option<Precision>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    write(path, items_in(source, precision)?, metadata)
}

/// Wider dtypes come first, as in every safetensors file, so that all are aligned. The header is
/// written here because the `safetensors` crate orders metadata at random.
fn write(path: &Path, items: Vec<Item<'_>>, metadata: &BTreeMap<String, String>) -> Result<()> {
    write_through(path, items, metadata, &mut |_| {})
}

/// [`write()`], showing every byte to `see`.
fn write_through(
    path: &Path,
    mut items: Vec<Item<'_>>,
    metadata: &BTreeMap<String, String>,
    see: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    items.sort_by_key(|item| std::cmp::Reverse(item.kind.elt_size_in_bytes()));
    let header = header(path, &items, metadata)?;
    write_atomic(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, Seen { file, see });
        write_parts(&header, &items, &mut out)?;
        out.flush()
    })
    .map_err(Error::write(path))
}

fn write_parts(header: &[u8], items: &[Item<'_>], out: &mut dyn Write) -> std::io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    items.iter().try_for_each(|item| item.write(out))
}

/// A safetensors file in memory, which errors call `path`.
pub(crate) fn to_memory(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let items = items_of(tensors);
    let header = header(path, &items, metadata)?;
    let values: usize = items.iter().map(Item::bytes).sum();
    let mut bytes = Vec::with_capacity(8 + header.len() + values);
    write_parts(&header, &items, &mut bytes).map_err(Error::write(path))?;
    Ok(bytes)
}

/// A file whose every byte is also shown to someone.
struct Seen<'a> {
    file: &'a mut std::fs::File,
    see: &'a mut dyn FnMut(&[u8]),
}

impl Write for Seen<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        (self.see)(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn header(path: &Path, items: &[Item<'_>], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut table = Map::new();
    if !metadata.is_empty() {
        table.insert("__metadata__".into(), json!(metadata));
    }
    let mut start = 0;
    for item in items {
        let Item { name, kind, shape, .. } = item;
        let refuse = |what: String| Error::Refused { path: path.to_owned(), name: name.clone(), what };
        let dtype = dtype_name(*kind).ok_or_else(|| refuse(format!("safetensors has no kind {kind:?}")))?;
        let end = start + item.bytes();
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        if name == "__metadata__" || table.insert(name.clone(), info).is_some() {
            return Err(refuse("the name is taken".into()));
        }
        start = end;
    }
    let mut text = Json::Object(table).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok(text)
}
