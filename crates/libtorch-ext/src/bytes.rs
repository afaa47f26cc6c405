//! Tensors from bytes and back, with one copy.

use tch::{Device, Kind, TchError, Tensor};

/// A contiguous CPU tensor holding a copy of `data` (native byte order, any alignment).
///
/// tch's own `f_from_data_size` does not check the length, and fills the memory with zeros first.
pub fn tensor_from_bytes(data: &[u8], shape: &[i64], kind: Kind) -> Result<Tensor, TchError> {
    let expected = shape
        .iter()
        .try_fold(kind.elt_size_in_bytes() as i64, |n, &d| n.checked_mul(d).filter(|&n| n >= 0))
        .and_then(|n| usize::try_from(n).ok());
    if expected != Some(data.len()) {
        return Err(TchError::Shape(format!("{} bytes for shape {shape:?} of {kind:?}", data.len())));
    }
    let tensor = Tensor::f_empty(shape, (kind, Device::Cpu))?;
    if !data.is_empty() {
        // SAFETY: a fresh contiguous tensor of exactly `data.len()` bytes, which nothing else refers to yet.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), tensor.data_ptr().cast::<u8>(), data.len()) };
    }
    Ok(tensor)
}

/// Calls `f` with a tensor's values as bytes (row-major, native byte order), copying only if the tensor is
/// not already contiguous on the CPU.
pub fn with_bytes<T>(tensor: &Tensor, f: impl FnOnce(&[u8]) -> T) -> Result<T, TchError> {
    let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
    let length = tensor.numel() * tensor.f_kind()?.elt_size_in_bytes();
    if length == 0 {
        return Ok(f(&[]));
    }
    // SAFETY: contiguous CPU memory of that many bytes, kept alive by `tensor` until `f` returns; values of
    // every kind are plain bytes.
    Ok(f(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_tensors_are_inverse_at_any_alignment() {
        let bytes: Vec<u8> = (0..25).collect();
        let t = tensor_from_bytes(&bytes[1..], &[2, 3], Kind::Int).unwrap();
        assert_eq!(with_bytes(&t, <[u8]>::to_vec).unwrap(), bytes[1..]);
        let transposed = with_bytes(&t.tr(), <[u8]>::to_vec).unwrap();
        assert_eq!(transposed[..8], [&bytes[1..5], &bytes[13..17]].concat());
    }

    #[test]
    fn a_wrong_length_is_refused() {
        assert!(tensor_from_bytes(&[0; 7], &[2], Kind::Float).is_err());
        assert!(tensor_from_bytes(&[0; 8], &[-2, -1], Kind::Float).is_err());
    }
}
