//! Shards of ours, safetensors files: their heads, tensors of numbers, and many texts: their bytes
//! one after the other, and where each ends.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::{Error, Result};

/// The longest head, bytes: the format's own limit.
const LONGEST_HEAD: u64 = 100_000_000;

/// A dimension that may be anything.
pub(crate) const ANY: Option<usize> = None;

/// Start of a file's values, and their description in its head. The head is valid: tensors follow
/// each other without gaps and end where the file does.
pub(crate) fn read_header(file: &File, path: &Path) -> Result<(u64, Metadata)> {
    let bad = |e: String| Error::malformed(path, format!("not a safetensors file: {e}"));
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(|e| bad(e.to_string()))?;
    let length = u64::from_le_bytes(length);
    let size = file.metadata().map_err(Error::read(path))?.len();
    if length > size.min(LONGEST_HEAD) {
        return Err(bad(format!("its header claims {length} bytes, the file has {size}")));
    }
    let mut head = vec![0; length as usize];
    file.read_exact_at(&mut head, 8).map_err(|e| bad(e.to_string()))?;
    let meta: Metadata = serde_json::from_slice(&head).map_err(|e| bad(e.to_string()))?;
    let start = 8 + length;
    let end = start.checked_add(meta.data_len() as u64);
    if end != Some(size) {
        let end = end.map_or_else(|| "more than 2^64".into(), |end| end.to_string());
        return Err(Error::malformed(path, format!("expected {end} bytes by its header, found {size}")));
    }
    Ok((start, meta))
}

/// A tensor of this dtype and shape.
pub(crate) fn tensor<'a>(
    meta: &'a Metadata,
    path: &Path,
    name: &str,
    dtype: Dtype,
    shape: &[Option<usize>],
) -> Result<&'a TensorInfo> {
    let found = meta.info(name);
    let fits = |i: &&TensorInfo| {
        let same = |(a, b): (&usize, &Option<usize>)| b.is_none_or(|b| b == *a);
        i.dtype == dtype && i.shape.len() == shape.len() && i.shape.iter().zip(shape).all(same)
    };
    found.filter(fits).ok_or_else(|| {
        let found = found.map(|i| format!("{:?} {:?}", i.dtype, i.shape));
        let found = found.unwrap_or_else(|| "no such tensor".into());
        let expected: Vec<String> =
            shape.iter().map(|n| n.map_or_else(|| "R".into(), |n| n.to_string())).collect();
        let expected = expected.join(", ");
        Error::malformed(path, format!("`{name}`: expected {dtype:?} [{expected}], found {found}"))
    })
}

/// Places of texts in a file.
#[derive(Debug)]
pub(crate) struct Texts {
    at: u64,
    ends: Vec<i64>,
}

impl Texts {
    /// The tensor `texts` (u8) and the `count` ends in the tensor `ends` (i64) of a file whose
    /// values begin at `start`.
    pub fn read(
        (file, path): (&File, &Path),
        (start, meta): (u64, &Metadata),
        (texts, ends): (&str, &str),
        count: Option<usize>,
    ) -> Result<Self> {
        let texts = tensor(meta, path, texts, Dtype::U8, &[ANY])?;
        let (at, bytes) = (start + texts.data_offsets.0 as u64, texts.shape[0]);
        let ends = read_i64(file, path, start, tensor(meta, path, ends, Dtype::I64, &[count])?)?;
        let rising = ends.iter().scan(0, |last, &end| Some(end >= std::mem::replace(last, end))).all(|ok| ok);
        if !rising || ends.last().copied().unwrap_or(0) != bytes as i64 {
            return Err(Error::malformed(path, "the ends of its texts do not rise to their length"));
        }
        Ok(Texts { at, ends })
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// One of them.
    pub fn get(&self, file: &File, path: &Path, index: usize) -> Result<String> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        let mut bytes = vec![0; (self.ends[index] - start) as usize];
        file.read_exact_at(&mut bytes, self.at + start as u64).map_err(Error::read(path))?;
        String::from_utf8(bytes).map_err(|_| Error::malformed(path, format!("text {index} is not UTF-8")))
    }
}

/// Values of a one-dimensional tensor (i64) in a file whose data begin at `start`.
pub(crate) fn read_i64(file: &File, path: &Path, start: u64, info: &TensorInfo) -> Result<Vec<i64>> {
    let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0]; // no more than the file has
    file.read_exact_at(&mut bytes, start + info.data_offsets.0 as u64).map_err(Error::read(path))?;
    Ok(bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes"))).collect())
}

/// File of a shard, in its set's folder: an index cannot lead elsewhere.
pub(crate) fn open_shard(root: &Path, name: &str) -> Result<(std::path::PathBuf, File)> {
    let plain = Path::new(name).components().eq([std::path::Component::Normal(name.as_ref())]);
    if !plain {
        return Err(Error::malformed(
            root,
            format!("its index names `{name}`, which is not a file of this folder"),
        ));
    }
    let path = root.join(name);
    let file = base::files::open_regular(&path).map_err(Error::read(&path))?;
    Ok((path, file))
}
