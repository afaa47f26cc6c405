//! Writing `.npz` archives and their members.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use libtorch_ext::bytes::with_bytes;
use tch::{Kind, Tensor};
use zip::CompressionMethod;
use zip::result::ZipError;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::NpzError;
use crate::files::write_atomic;

/// NumPy's name of a dtype.
fn descr(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Double => "<f8",
        Kind::Float => "<f4",
        Kind::Half => "<f2",
        Kind::Int64 => "<i8",
        Kind::Int => "<i4",
        Kind::Int16 => "<i2",
        Kind::Int8 => "|i1",
        Kind::Uint8 => "|u1",
        Kind::Bool => "|b1",
        _ => return None,
    })
}

/// The head of a version 1.0 `.npy` file in C order; the data begin at a multiple of 64 bytes.
/// `kind` is NumPy's name of the dtype: `|u1`, `<f4`, `<U12`.
pub fn npy_header(kind: &str, shape: &[u64]) -> Vec<u8> {
    let dims: Vec<String> = shape.iter().map(u64::to_string).collect();
    let dims = if dims.len() == 1 { format!("{},", dims[0]) } else { dims.join(", ") };
    let mut dict = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({dims}), }}");
    let fixed = 10 + dict.len() + 1;
    dict.push_str(&" ".repeat(fixed.next_multiple_of(64) - fixed));
    dict.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((dict.len() as u16).to_le_bytes());
    header.extend(dict.as_bytes());
    header
}

/// A whole `.npy` file of texts: shape (N), or () for a single one.
pub fn npy_texts(texts: &[String], shape: &[u64]) -> Vec<u8> {
    let width = texts.iter().map(|t| t.chars().count()).max().unwrap_or(0).max(1);
    let mut bytes = npy_header(&format!("<U{width}"), shape);
    for text in texts {
        let characters = text.chars().map(u32::from).chain(std::iter::repeat(0));
        bytes.extend(characters.take(width).flat_map(u32::to_le_bytes));
    }
    bytes
}

/// Writes arrays, uncompressed; a reader never meets half a file.
///
/// # Errors
/// Returns an error if the file cannot be written, or NumPy has no such dtype.
pub fn write(path: &Path, arrays: &[(&str, &Tensor)]) -> Result<(), NpzError> {
    let fail = |e: io::Error| NpzError {
        path: path.to_owned(),
        message: format!("cannot be written: {e}"),
        hints: vec![],
    };
    write_atomic(path, |file| {
        let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 20, file));
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
        for (name, tensor) in arrays {
            let kind = descr(tensor.kind())
                .ok_or_else(|| io::Error::other(format!("NumPy has no kind {:?}", tensor.kind())))?;
            let shape: Vec<u64> = tensor.size().iter().map(|&d| d as u64).collect();
            zip.start_file(format!("{name}.npy"), options)?;
            zip.write_all(&npy_header(kind, &shape))?;
            with_bytes(tensor, |bytes| zip.write_all(bytes)).map_err(io::Error::other)??;
        }
        zip.finish().map_err(|e: ZipError| io::Error::from(e))?.flush()
    })
    .map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_npy_head_is_aligned() {
        let h = npy_header("|u1", &[50_000, 256, 256, 3]);
        assert_eq!(h.len() % 64, 0);
        assert!(String::from_utf8_lossy(&h).contains("'shape': (50000, 256, 256, 3), }"));
        assert!(String::from_utf8_lossy(&npy_header("<f4", &[7])).contains("'shape': (7,), }"));
        assert!(String::from_utf8_lossy(&npy_header("<f4", &[])).contains("'shape': (), }"));
    }

    #[test]
    fn texts_are_padded_to_the_longest() {
        let bytes = npy_texts(&["ä".into(), "bc".into()], &[2]);
        assert!(String::from_utf8_lossy(&bytes).contains("'descr': '<U2'"));
        let words: Vec<u32> = bytes[bytes.len() - 16..]
            .chunks_exact(4)
            .map(|w| u32::from_le_bytes(w.try_into().unwrap()))
            .collect();
        assert_eq!(words, [0xe4, 0, u32::from('b'), u32::from('c')]);
    }
}
