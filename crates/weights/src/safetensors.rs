//! Safetensors files.

use std::path::Path;
use std::sync::Arc;

use libtorch_ext::mmap::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value as Json};
use tch::Kind;

use crate::origin::Unsupported;
use crate::source::{Blob, Entry, TensorInfo};
use crate::{Error, Result};

/// A file's tensors and metadata.
pub(crate) struct Contents {
    pub blobs: Vec<Blob>,
    pub entries: Vec<(String, Entry)>,
    pub metadata: Map<String, Json>,
}

/// True for what begins like a safetensors file: a header length that could be, and `{`.
pub(crate) fn recognise(head: &[u8]) -> bool {
    const LARGEST_HEADER: u64 = 100_000_000; // the format's own limit
    let Some((length, rest)) = head.split_first_chunk::<8>() else { return false };
    (2..=LARGEST_HEADER).contains(&u64::from_le_bytes(*length)) && rest.first() == Some(&b'{')
}

/// Reads one mapped file's header.
pub(crate) fn open(path: &Path, map: Mmap) -> Result<Contents> {
    let mut contents = Contents { blobs: vec![], entries: vec![], metadata: Map::new() };
    add(path, map, &mut contents)?;
    Ok(contents)
}

fn add(path: &Path, map: Mmap, contents: &mut Contents) -> Result<()> {
    let (header, table) = SafeTensors::read_metadata(&map)
        .map_err(|e| Error::damaged(path, format!("it does not hold what its header says ({e})")))?;
    let start = 8 + header;
    for name in table.offset_keys() {
        let info = table.info(&name).expect("a name that the table listed");
        contents.entries.push((name.clone(), entry(info, contents.blobs.len())));
    }
    for (key, value) in table.metadata().iter().flatten() {
        contents.metadata.insert(key.clone(), Json::String(value.clone()));
    }
    contents.metadata.sort_keys();
    let stored = map.len() - start;
    contents.blobs.push(Blob { map: Arc::new(map), start, stored, inflated: None });
    Ok(())
}

fn entry(info: &safetensors::tensor::TensorInfo, blob: usize) -> Entry {
    let kind = kind_of(info.dtype);
    let unsupported = kind.is_none().then(|| Unsupported::dtype(format!("{:?}", info.dtype)));
    let kind = kind.unwrap_or(Kind::Uint8);
    let shape = info.shape.iter().map(|&d| d as i64).collect();
    let bytes = (info.data_offsets.1 - info.data_offsets.0) as u64;
    Entry {
        info: TensorInfo { shape, kind, bytes },
        blob,
        offset: info.data_offsets.0,
        strides: None,
        unsupported,
        pieces: vec![],
    }
}

/// The dtype of a safetensors header.
pub(crate) fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        _ => return None,
    })
}

/// Name of a dtype in a safetensors header.
pub(crate) fn dtype_name(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Bool => "BOOL",
        Kind::Uint8 => "U8",
        Kind::Int8 => "I8",
        Kind::Int16 => "I16",
        Kind::Int => "I32",
        Kind::Int64 => "I64",
        Kind::Half => "F16",
        Kind::BFloat16 => "BF16",
        Kind::Float => "F32",
        Kind::Double => "F64",
        _ => return None,
    })
}
