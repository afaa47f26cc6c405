//! Images and codes in safetensors files.

use std::collections::HashMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::form::internal;
use crate::error::{ApiError, Result};

/// The rows of a tensor of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Rows<T> {
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// The values, the last axis first.
    pub values: Vec<T>,
}

/// The tensor `codes`, (B, N) int64.
///
/// # Errors
/// Returns an error if the file holds no such tensor.
pub fn codes(file: &[u8]) -> Result<Rows<i64>> {
    let (shape, bytes) = tensor(file, "codes", Dtype::I64, "(B, N) int64", 2)?;
    let values =
        bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap_or_default())).collect();
    Ok(Rows { shape, values })
}

/// The tensor `images`, (B, 3, S, S) uint8.
///
/// # Errors
/// Returns an error if the file holds no such tensor.
pub fn images(file: &[u8]) -> Result<Rows<u8>> {
    let (shape, values) = tensor(file, "images", Dtype::U8, "(B, 3, S, S) uint8", 4)?;
    Ok(Rows { shape, values })
}

fn tensor(
    file: &[u8],
    name: &str,
    dtype: Dtype,
    expected: &str,
    axes: usize,
) -> Result<(Vec<usize>, Vec<u8>)> {
    let invalid = |message: String| ApiError::invalid(name, "invalid_value", message);
    let file = SafeTensors::deserialize(file)
        .map_err(|error| ApiError::body(format!("The body is no safetensors file: {error}.")))?;
    let found = file
        .tensor(name)
        .map_err(|_| invalid(format!("The file holds no tensor '{name}'; it holds {:?}.", file.names())))?;
    if found.dtype() != dtype || found.shape().len() != axes {
        let (shape, dtype) = (found.shape(), found.dtype());
        return Err(invalid(format!("Tensor '{name}': expected {expected}, found {shape:?} of {dtype:?}.")));
    }
    Ok((found.shape().to_vec(), found.data().to_vec()))
}

/// A file of `codes` (B, N), as `gen encode` writes it and `gen decode` reads it.
///
/// # Errors
/// Returns an error if the shape is not that of the values.
pub fn codes_file(rows: &Rows<i64>, metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = rows.values.iter().flat_map(|code| code.to_le_bytes()).collect();
    one_tensor("codes", Dtype::I64, &rows.shape, &bytes, metadata)
}

/// A file of `images` (B, 3, S, S).
///
/// # Errors
/// Returns an error if the shape is not that of the values.
pub fn images_file(rows: &Rows<u8>) -> Result<Vec<u8>> {
    one_tensor("images", Dtype::U8, &rows.shape, &rows.values, HashMap::new())
}

fn one_tensor(
    name: &str,
    dtype: Dtype,
    shape: &[usize],
    bytes: &[u8],
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>> {
    let view = TensorView::new(dtype, shape.to_vec(), bytes).map_err(internal)?;
    safetensors::serialize([(name, view)], Some(metadata)).map_err(internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_back() {
        let rows = Rows { shape: vec![2, 3], values: vec![1, 2, 3, 4, 5, 1 << 40] };
        assert_eq!(codes(&codes_file(&rows, HashMap::new()).unwrap()).unwrap(), rows);
        let rows = Rows { shape: vec![1, 3, 1, 2], values: vec![1, 2, 3, 4, 5, 6] };
        let file = images_file(&rows).unwrap();
        assert_eq!(images(&file).unwrap(), rows);
        assert!(codes(&file).unwrap_err().to_body().error.message.contains("holds no tensor 'codes'"));
        assert!(images(b"no").unwrap_err().to_body().error.message.contains("no safetensors file"));
    }
}
