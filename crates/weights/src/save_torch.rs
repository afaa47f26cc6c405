//! Writing files of `torch.save` that `torch.load(…, weights_only=True)` opens.

use std::collections::{HashMap, HashSet};
use std::io::{BufWriter, Write};
use std::path::Path;

use base::Precision;
use base::files::write_atomic;
use tch::{Kind, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::save::{Item, Values, items_in, items_of};
use crate::{Error, Result, TensorSource};

/// The directory inside the archive; the name does not matter to any reader.
const ROOT: &str = "archive";

/// Writes a zip `.pt` with the tensors as an ordered dictionary, inside a dictionary under
/// `section` if given.
///
/// Tensors that are the same memory share a storage, as they do when PyTorch writes them; others
/// are written as contiguous tensors on the CPU. The same input gives the same bytes.
pub fn save_torch(path: &Path, section: Option<&str>, tensors: &[(String, Tensor)]) -> Result<()> {
    write(path, section, &items_of(tensors))
}

/// Writes the tensors of another file as [`save_torch`] does, one at a time, without the prefixes
/// of wrappers. Tensors that shared memory in that file get a copy each. Floating ones are written
/// in `precision`, if one is given.
pub fn export_torch(
    path: &Path,
    section: Option<&str>,
    source: &dyn TensorSource,
    precision: Option<Precision>,
) -> Result<()> {
    write(path, section, &items_in(source, precision)?)
}

fn write(path: &Path, section: Option<&str>, items: &[Item<'_>]) -> Result<()> {
    let mut storages = Storages::default();
    let pickle = dictionary(path, section, items, &mut storages)?;
    write_atomic(path, |file| {
        let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 20, file));
        let start = |zip: &mut ZipWriter<_>, name: &str, size: usize| {
            // PyTorch aligns to 64 bytes, so that storages can be mapped.
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .with_alignment(64)
                .large_file(size >= u32::MAX as usize);
            zip.start_file(format!("{ROOT}/{name}"), options)
        };
        for (name, bytes) in [("data.pkl", pickle.as_slice()), ("byteorder", b"little"), ("version", b"3\n")]
        {
            start(&mut zip, name, bytes.len())?;
            zip.write_all(bytes)?;
        }
        for (key, item) in storages.list.iter().enumerate() {
            start(&mut zip, &format!("data/{key}"), item.bytes())?;
            item.write(&mut zip)?;
        }
        zip.finish()?.flush()
    })
    .map_err(Error::write(path))
}

/// Distinct memory regions of the tensors.
#[derive(Default)]
struct Storages<'a> {
    list: Vec<&'a Item<'a>>,
    known: HashMap<(usize, usize, Kind), usize>,
}

impl<'a> Storages<'a> {
    fn key(&mut self, item: &'a Item<'a>) -> usize {
        let identity = match item.values {
            Values::Memory(t) if t.is_contiguous() && t.numel() > 0 => {
                Some((t.data_ptr() as usize, t.numel(), item.kind))
            }
            _ => None,
        };
        if let Some(&key) = identity.and_then(|identity| self.known.get(&identity)) {
            return key;
        }
        self.list.push(item);
        let key = self.list.len() - 1;
        if let Some(identity) = identity {
            self.known.insert(identity, key);
        }
        key
    }
}

/// Class of a dtype's storage in pickles.
fn storage_class(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Float => "FloatStorage",
        Kind::Double => "DoubleStorage",
        Kind::Half => "HalfStorage",
        Kind::BFloat16 => "BFloat16Storage",
        Kind::Int64 => "LongStorage",
        Kind::Int => "IntStorage",
        Kind::Int16 => "ShortStorage",
        Kind::Int8 => "CharStorage",
        Kind::Uint8 => "ByteStorage",
        Kind::Bool => "BoolStorage",
        _ => return None,
    })
}

fn dictionary<'a>(
    path: &Path,
    section: Option<&str>,
    items: &'a [Item<'a>],
    storages: &mut Storages<'a>,
) -> Result<Vec<u8>> {
    let mut out = PickleWriter(vec![0x80, 2]);
    if let Some(section) = section {
        out.op(b'}');
        out.text(section);
    }
    out.ordered_dict();
    out.op(b'(');
    let mut seen = HashSet::new();
    for item in items {
        let Item { name, kind, shape, .. } = item;
        let refuse = |what: String| Error::Refused { path: path.to_owned(), name: name.clone(), what };
        if !seen.insert(name) {
            return Err(refuse("the name is taken".into()));
        }
        let class = storage_class(*kind).ok_or_else(|| refuse(format!("kind {kind:?} is not supported")))?;
        out.text(name);
        out.tensor(class, storages.key(item), shape);
    }
    out.op(b'u');
    if section.is_some() {
        out.op(b's');
    }
    out.op(b'.');
    Ok(out.0)
}

/// Writes pickle protocol 2.
struct PickleWriter(Vec<u8>);

impl PickleWriter {
    fn op(&mut self, op: u8) {
        self.0.push(op);
    }

    fn text(&mut self, text: &str) {
        self.op(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").into_bytes());
    }

    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.0.extend(b")R");
    }

    fn int(&mut self, value: i64) {
        match i32::try_from(value) {
            Ok(small) => {
                self.op(b'J');
                self.0.extend(small.to_le_bytes());
            }
            Err(_) => {
                self.0.extend([0x8a, 8]);
                self.0.extend(value.to_le_bytes());
            }
        }
    }

    fn ints(&mut self, values: &[i64]) {
        self.op(b'(');
        values.iter().for_each(|&v| self.int(v));
        self.op(b't');
    }

    /// `_rebuild_tensor_v2(storage, 0, size, stride, requires_grad=False, hooks=OrderedDict())`,
    /// contiguous.
    fn tensor(&mut self, class: &str, key: usize, shape: &[i64]) {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis].max(1);
        }
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.op(b'(');
        self.op(b'(');
        self.text("storage");
        self.global("torch", class);
        self.text(&key.to_string());
        self.text("cpu");
        self.int(shape.iter().product());
        self.0.extend(b"tQ");
        self.int(0);
        self.ints(shape);
        self.ints(&strides);
        self.op(0x89);
        self.ordered_dict();
        self.0.extend(b"tR");
    }
}
