//! Named tensors that are read one at a time.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use libtorch_ext::{bytes::tensor_from_bytes, mmap::Mmap};
use tch::{Device, Kind, Tensor};

use crate::origin::{Origin, Unsupported};
use crate::{Error, Result};

/// Description of a tensor, known without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its shape.
    pub shape: Vec<i64>,
    /// Dtype in the file; `Uint8` if it is [`TensorSource::unsupported`].
    pub kind: Kind,
    /// Its size in bytes, as a contiguous tensor.
    pub bytes: u64,
}

/// Named tensors, read on demand.
pub trait TensorSource: Send + Sync {
    /// All names, in the order of the file.
    fn names(&self) -> Vec<&str>;

    /// Shape, dtype and size of one tensor.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// Values, row-major and little-endian; borrowed from the file if it has them in this form.
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>>;

    /// File and section.
    fn origin(&self) -> &Origin;

    /// Reason why a tensor cannot be read, if it cannot.
    fn unsupported(&self, _name: &str) -> Option<&Unsupported> {
        None
    }

    /// One tensor, copied once.
    fn read(&self, name: &str, device: Device) -> Result<Tensor> {
        let info = self.info(name).ok_or_else(|| Error::no_tensor(self.origin(), name, &self.names()))?;
        let bytes = self.bytes(name)?;
        let torch =
            |e: tch::TchError| Error::torch(format!("reading tensor `{name}` of {}", self.origin()), e);
        tensor_from_bytes(&bytes, &info.shape, info.kind).and_then(|t| t.f_to_device(device)).map_err(torch)
    }
}

/// A range of bytes that holds tensors: a mapped one, or a deflated member of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub map: Arc<Mmap>,
    pub start: usize,
    pub stored: usize,
    /// The size after inflating; `None` when stored as it is.
    pub inflated: Option<usize>,
}

impl Blob {
    /// The number of usable bytes.
    pub fn len(&self) -> usize {
        self.inflated.unwrap_or(self.stored)
    }
}

/// One tensor's place in a blob.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub info: TensorInfo,
    pub blob: usize,
    /// Offset of the first element, in bytes.
    pub offset: usize,
    /// In elements; `None` when contiguous.
    pub strides: Option<Vec<usize>>,
    /// Reason why it cannot be read.
    pub unsupported: Option<Unsupported>,
    /// Pieces that make up the tensor one after the other, instead of the place above.
    pub pieces: Vec<Piece>,
}

/// A run of a tensor's values in a blob.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub blob: usize,
    pub offset: usize,
    pub bytes: u64,
}

impl Entry {
    /// An entry for a tensor in pieces.
    pub fn joined(shape: Vec<i64>, kind: Kind, pieces: Vec<Piece>) -> Self {
        let info = TensorInfo { shape, kind, bytes: pieces.iter().map(|piece| piece.bytes).sum() };
        Entry { info, blob: 0, offset: 0, strides: None, unsupported: None, pieces }
    }

    /// An entry for what has a name and perhaps a shape, and cannot be read.
    pub fn unsupported(shape: Vec<i64>, unsupported: Unsupported) -> Self {
        let info = TensorInfo { shape, kind: Kind::Uint8, bytes: 0 };
        Entry { info, blob: 0, offset: 0, strides: None, unsupported: Some(unsupported), pieces: vec![] }
    }
}

/// The tensors of one section of a file.
#[derive(Debug)]
pub(crate) struct FileTensors {
    origin: Origin,
    blobs: Arc<Vec<Blob>>,
    entries: Arc<Vec<(String, Entry)>>,
    index: HashMap<String, usize>,
    inflated: Mutex<Inflated>,
}

/// The compressed member that was read last, since tensors that share one follow each other in
/// ordinary files.
#[derive(Debug, Default)]
struct Inflated {
    last: Option<(usize, Arc<Vec<u8>>)>,
    /// Bytes inflated so far.
    work: u64,
}

impl FileTensors {
    pub fn new(origin: Origin, blobs: Arc<Vec<Blob>>, entries: Arc<Vec<(String, Entry)>>) -> Self {
        let index = entries.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
        FileTensors { origin, blobs, entries, index, inflated: Mutex::default() }
    }

    /// The bytes of a compressed member.
    fn inflate(&self, number: usize, blob: &Blob) -> std::result::Result<Arc<Vec<u8>>, String> {
        /// Number of times that all members may be inflated in turn; more is an attack.
        const ROUNDS: u64 = 16;
        const SMALL: u64 = 1 << 30;
        let mut cache = self.inflated.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = cache.last.as_ref().filter(|(last, _)| *last == number) {
            return Ok(bytes.clone());
        }
        let all: u64 = self.blobs.iter().filter_map(|b| b.inflated).map(|n| n as u64).sum();
        cache.work = cache.work.saturating_add(blob.len() as u64);
        if cache.work > ROUNDS.saturating_mul(all).saturating_add(SMALL) {
            return Err("its tensors would have its compressed members inflated again and again".into());
        }
        cache.last = None; // not two of them at a time
        let bytes = Arc::new(blob.bytes()?.into_owned());
        cache.last = Some((number, bytes.clone()));
        Ok(bytes)
    }

    /// The bytes of a tensor in pieces.
    fn join(&self, entry: &Entry) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        all.try_reserve_exact(usize::try_from(entry.info.bytes).ok()?).ok()?;
        for piece in &entry.pieces {
            let Cow::Borrowed(blob) = self.blobs.get(piece.blob)?.bytes().ok()? else { return None };
            let end = piece.offset.checked_add(usize::try_from(piece.bytes).ok()?)?;
            all.extend_from_slice(blob.get(piece.offset..end)?);
        }
        Some(all)
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.index.get(name).map(|&i| &self.entries[i].1)
    }
}

impl TensorSource for FileTensors {
    fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.entry(name).map(|e| e.info.clone())
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn unsupported(&self, name: &str) -> Option<&Unsupported> {
        self.entry(name)?.unsupported.as_ref()
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        let entry = self.entry(name).ok_or_else(|| Error::no_tensor(&self.origin, name, &self.names()))?;
        if let Some(unsupported) = &entry.unsupported {
            return Err(Error::unsupported(&self.origin, name, unsupported));
        }
        let damaged = |what: String| Error::damaged(&self.origin.path, what);
        let cut = || damaged(format!("the data of tensor `{name}` is cut short"));
        if !entry.pieces.is_empty() {
            return self.join(entry).map(Cow::Owned).ok_or_else(cut);
        }
        let blob = self.blobs.get(entry.blob).ok_or_else(cut)?;
        if blob.inflated.is_some() {
            let all = self.inflate(entry.blob, blob).map_err(damaged)?;
            return view(&all, entry).map(|bytes| Cow::Owned(bytes.into_owned())).ok_or_else(cut);
        }
        match blob.bytes().map_err(damaged)? {
            Cow::Borrowed(all) => view(all, entry).ok_or_else(cut),
            Cow::Owned(_) => Err(cut()), // only compressed members are copied
        }
    }
}

/// Values of an entry; borrowed if they are row-major.
fn view<'a>(all: &'a [u8], entry: &Entry) -> Option<Cow<'a, [u8]>> {
    match &entry.strides {
        None => range(all, entry).map(Cow::Borrowed),
        Some(strides) => gather(all, entry, strides).map(Cow::Owned),
    }
}

fn range<'a>(all: &'a [u8], entry: &Entry) -> Option<&'a [u8]> {
    let end = entry.offset.checked_add(usize::try_from(entry.info.bytes).ok()?)?;
    all.get(entry.offset..end)
}

/// A strided view, copied row-major.
fn gather(all: &[u8], entry: &Entry, strides: &[usize]) -> Option<Vec<u8>> {
    let size = entry.info.kind.elt_size_in_bytes();
    let shape: Vec<usize> =
        entry.info.shape.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<_>>()?;
    let mut out = Vec::new();
    out.try_reserve_exact(usize::try_from(entry.info.bytes).ok()?).ok()?;
    let mut at = vec![0usize; shape.len()];
    let mut position = entry.offset;
    for _ in 0..shape.iter().product() {
        out.extend_from_slice(all.get(position..position.checked_add(size)?)?);
        for axis in (0..shape.len()).rev() {
            at[axis] += 1;
            position += strides[axis] * size;
            if at[axis] < shape[axis] {
                break;
            }
            position -= shape[axis] * strides[axis] * size;
            at[axis] = 0;
        }
    }
    Some(out)
}

impl Blob {
    /// The bytes, inflated if need be.
    pub fn bytes(&self) -> std::result::Result<Cow<'_, [u8]>, String> {
        let end = self.start.checked_add(self.stored);
        let raw = end.and_then(|end| self.map.get(self.start..end)).ok_or("the file ends too early")?;
        match self.inflated {
            None => Ok(Cow::Borrowed(raw)),
            Some(size) => inflate(raw, size).map(Cow::Owned),
        }
    }
}

/// Inflates to exactly `size` bytes; a member with a wrong size is an error, not an
/// allocation.
fn inflate(raw: &[u8], size: usize) -> std::result::Result<Vec<u8>, String> {
    use std::io::Read;
    let mut out = Vec::new();
    let mut reader = flate2::read::DeflateDecoder::new(raw).take(size as u64 + 1);
    reader.read_to_end(&mut out).map_err(|e| format!("a compressed member cannot be inflated: {e}"))?;
    if out.len() == size {
        Ok(out)
    } else {
        Err(format!("a compressed member should hold {size} bytes and does not"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Two compressed members, the first with two tensors.
    fn file() -> FileTensors {
        let mut deflate = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::best());
        deflate.write_all(&[7; 1 << 16]).unwrap();
        let packed = deflate.finish().unwrap();
        let mut on_disk = tempfile::NamedTempFile::new().unwrap();
        on_disk.write_all(&packed.repeat(2)).unwrap();
        let map = Arc::new(libtorch_ext::mmap::open(on_disk.path()).unwrap());
        let stored = packed.len();
        let blob = |i: usize| Blob { map: map.clone(), start: i * stored, stored, inflated: Some(1 << 16) };
        let entry = |name: &str, blob: usize| {
            let info = TensorInfo { shape: vec![4], kind: Kind::Uint8, bytes: 4 };
            (
                name.to_owned(),
                Entry { info, blob, offset: 8, strides: None, unsupported: None, pieces: vec![] },
            )
        };
        let entries = vec![entry("a", 0), entry("b", 0), entry("c", 1)];
        let origin = Origin { path: "x.pt".into(), section: None };
        FileTensors::new(origin, Arc::new(vec![blob(0), blob(1)]), Arc::new(entries))
    }

    #[test]
    fn compressed_members_are_inflated_once_for_neighbours_and_not_without_end() {
        let file = file();
        let work = || file.inflated.lock().unwrap().work;
        for (name, members) in [("a", 1), ("b", 1), ("c", 2)] {
            assert_eq!(&*file.bytes(name).unwrap(), [7; 4]);
            assert_eq!(work(), members << 16, "{name}");
        }
        // As after a great many of such turns.
        file.inflated.lock().unwrap().work = 1 << 31;
        let error = file.bytes("a").unwrap_err().to_string();
        assert!(error.contains("x.pt") && error.contains("inflated again and again"), "{error}");
    }
}
