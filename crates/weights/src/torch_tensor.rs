//! Tensors in a torch pickle: `_rebuild_tensor_v2` and the storages behind it.

use std::collections::HashMap;

use tch::Kind;

use crate::origin::Unsupported;
use crate::pickle::{Id, Node, Pickle};
use crate::source::{Entry, TensorInfo};

type Result<T> = std::result::Result<T, String>;

/// A storage's type, by its class or dtype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Element {
    Known(Kind),
    /// Bytes, of the dtype that the tensor names.
    Untyped,
    /// A dtype that libtorch's C++ side or tch lacks.
    Unknown(String),
}

/// Persistent id: `("storage", class, key, location, count[, view])`.
#[derive(Debug, Clone)]
pub(crate) struct StorageId {
    pub key: String,
    pub element: Element,
    /// Into the storage called `key`, in elements: views of the older layout.
    pub view_offset: usize,
}

/// A storage's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storage {
    pub blob: usize,
    pub length: usize,
}

/// `_rebuild_tensor_v2(storage, offset, size, stride, …)`, checked against the storage's bytes.
/// `dtype` is the tensor's own statement of its dtype, in newer files.
pub(crate) fn tensor(
    pickle: &Pickle,
    storages: &HashMap<String, Storage>,
    args: &[Id],
    dtype: Option<Element>,
) -> Result<Entry> {
    let [storage, offset, size, stride, ..] = args else { return Err("a tensor lacks arguments".into()) };
    let id = storage_id(pickle, *storage)?;
    let storage = storages.get(&id.key);
    let storage = storage.ok_or_else(|| format!("the data of storage `{}` is missing", id.key))?;
    let shape = sizes(pickle, *size)?;
    let strides = sizes(pickle, *stride)?;
    let extent = extent(&shape, &strides).ok_or("a tensor's size is out of range")?;
    let dims: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    let kind = match dtype.unwrap_or(id.element) {
        Element::Known(kind) => kind,
        Element::Untyped => Kind::Uint8,
        Element::Unknown(name) => {
            let info = TensorInfo { shape: dims, kind: Kind::Uint8, bytes: storage.length as u64 };
            let unsupported = Some(Unsupported::dtype(name));
            return Ok(Entry {
                info,
                blob: storage.blob,
                offset: 0,
                strides: None,
                unsupported,
                pieces: vec![],
            });
        }
    };
    let width = kind.elt_size_in_bytes();
    let Node::Int(offset) = pickle.node(*offset) else { return Err("a tensor without an offset".into()) };
    let offset = usize::try_from(*offset).ok().and_then(|o| o.checked_add(id.view_offset));
    let offset = offset.and_then(|o| o.checked_mul(width)).ok_or("a tensor's offset is out of range")?;
    let end = extent.last.checked_mul(width).and_then(|n| n.checked_add(offset));
    if end.is_none_or(|end| end > storage.length) {
        return Err(format!("a tensor of shape {shape:?} reaches beyond storage `{}`", id.key));
    }
    let bytes = extent.count.checked_mul(width).ok_or("a tensor's size is out of range")?;
    // Only an expanded view is larger than its storage; one that is vastly so is there to eat
    // memory.
    if bytes > storage.length.saturating_mul(64).saturating_add(1 << 26) {
        return Err(format!("a tensor of shape {shape:?} is expanded beyond measure"));
    }
    let info = TensorInfo { shape: dims, kind, bytes: bytes as u64 };
    let strides = (!extent.contiguous).then_some(strides);
    Ok(Entry { info, blob: storage.blob, offset, strides, unsupported: None, pieces: vec![] })
}

/// A tensor's shape.
pub(crate) fn shape_of(pickle: &Pickle, id: Id) -> Result<Vec<i64>> {
    Ok(sizes(pickle, id)?.into_iter().map(|d| d as i64).collect())
}

fn sizes(pickle: &Pickle, id: Id) -> Result<Vec<usize>> {
    let list = match pickle.node(id) {
        Node::Tuple(list) | Node::List(list) => list.as_slice(),
        Node::Object(size) => match pickle.items(size.args).first().map(|&id| pickle.node(id)) {
            Some(Node::Tuple(list) | Node::List(list)) => list,
            _ => return Err("a tensor's shape is not a tuple".into()),
        },
        _ => return Err("a tensor's shape is not a tuple".into()),
    };
    if list.len() > 64 {
        return Err("a tensor's shape is out of range".into());
    }
    let size = |&id: &Id| match pickle.node(id) {
        Node::Int(i) => i64::try_from(*i).ok().and_then(|i| usize::try_from(i).ok()),
        _ => None,
    };
    let sizes: Option<Vec<usize>> = list.iter().map(size).collect();
    sizes.ok_or_else(|| "a tensor's shape is out of range".into())
}

struct Extent {
    /// Elements in all.
    count: usize,
    /// One more than the highest index touched, counted from the first element.
    last: usize,
    contiguous: bool,
}

fn extent(shape: &[usize], strides: &[usize]) -> Option<Extent> {
    if shape.len() != strides.len() {
        return None;
    }
    if shape.contains(&0) {
        return Some(Extent { count: 0, last: 0, contiguous: true });
    }
    let (mut count, mut last, mut contiguous) = (1usize, 1usize, true);
    for (&d, &s) in shape.iter().zip(strides).rev() {
        contiguous &= d == 1 || s == count;
        count = count.checked_mul(d)?;
        last = last.checked_add((d - 1).checked_mul(s)?)?;
    }
    Some(Extent { count, last, contiguous })
}

/// Storage of a persistent node.
pub(crate) fn storage_id(pickle: &Pickle, id: Id) -> Result<StorageId> {
    let bad = || "a tensor's storage is not what torch.save writes".to_owned();
    let Node::Persistent(id) = pickle.node(id) else { return Err(bad()) };
    let Node::Tuple(parts) = pickle.node(*id) else { return Err(bad()) };
    let [tag, class, key, _location, _count, view @ ..] = parts.as_slice() else { return Err(bad()) };
    if pickle.node(*tag) != &Node::Str("storage".into()) {
        return Err(bad());
    }
    let Node::Global(class) = pickle.node(*class) else { return Err(bad()) };
    let key = match pickle.node(*key) {
        Node::Str(key) if key.len() <= 256 => key.clone(),
        Node::Int(key) => key.to_string(),
        _ => return Err(bad()),
    };
    let view_offset = match view.first().map(|&v| pickle.node(v)) {
        Some(Node::Tuple(view)) if view.len() == 3 => match pickle.node(view[1]) {
            Node::Int(offset) => usize::try_from(*offset).map_err(|_| bad())?,
            _ => return Err(bad()),
        },
        _ => 0,
    };
    Ok(StorageId { key, element: class_element(class), view_offset })
}

fn class_element(class: &str) -> Element {
    let name = class.rsplit('.').next().unwrap_or(class);
    Element::Known(match name {
        "FloatStorage" => Kind::Float,
        "DoubleStorage" => Kind::Double,
        "HalfStorage" => Kind::Half,
        "BFloat16Storage" => Kind::BFloat16,
        "LongStorage" => Kind::Int64,
        "IntStorage" => Kind::Int,
        "ShortStorage" => Kind::Int16,
        "CharStorage" => Kind::Int8,
        "ByteStorage" => Kind::Uint8,
        "BoolStorage" => Kind::Bool,
        "UntypedStorage" => return Element::Untyped,
        _ => return Element::Unknown(class.into()),
    })
}

pub(crate) fn dtype_element(dtype: &str) -> Element {
    Element::Known(match dtype {
        "torch.float32" => Kind::Float,
        "torch.float64" => Kind::Double,
        "torch.float16" => Kind::Half,
        "torch.bfloat16" => Kind::BFloat16,
        "torch.int64" => Kind::Int64,
        "torch.int32" => Kind::Int,
        "torch.int16" => Kind::Int16,
        "torch.int8" => Kind::Int8,
        "torch.uint8" => Kind::Uint8,
        "torch.bool" => Kind::Bool,
        _ => return Element::Unknown(dtype.into()),
    })
}
