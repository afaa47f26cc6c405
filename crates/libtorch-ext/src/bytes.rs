//! Tensors from bytes and back, with one copy.

use tch::{Device, Kind, TchError, Tensor};

/// A contiguous CPU tensor holding a copy of `data` (native byte order, any alignment).
///
/// Unlike tch's `f_from_data_size`, checks the length and does not zero the memory first.
///
/// # Errors
/// Returns an error if the length does not match the shape and dtype.
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
        // SAFETY: a fresh contiguous tensor of exactly `data.len()` bytes, which nothing else
        // refers to yet.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), tensor.data_ptr().cast::<u8>(), data.len()) };
    }
    Ok(tensor)
}

/// Calls `f` with a tensor's values as bytes (row-major, native byte order), copying only if the
/// tensor is not contiguous on the CPU.
///
/// # Errors
/// Returns an error if libtorch rejects the copy.
pub fn with_bytes<T>(tensor: &Tensor, f: impl FnOnce(&[u8]) -> T) -> Result<T, TchError> {
    let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
    let length = tensor.numel() * tensor.f_kind()?.elt_size_in_bytes();
    if length == 0 {
        return Ok(f(&[]));
    }
    // SAFETY: contiguous CPU memory of that many bytes, kept alive by `tensor` until `f` returns;
    // values of every dtype are plain bytes.
    Ok(f(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }))
}

/// Element of a tensor in Rust; bf16 as its sixteen bits.
pub trait Element: private::Plain {
    /// Dtype of such tensors.
    const KIND: Kind;
}
impl Element for f32 {
    const KIND: Kind = Kind::Float;
}
impl Element for u16 {
    const KIND: Kind = Kind::BFloat16;
}

mod private {
    /// Every bit pattern is a value.
    pub trait Plain: Copy {}
    impl Plain for f32 {}
    impl Plain for u16 {}
}

/// Calls `f` with a tensor's values, copying only if the tensor is not contiguous on the CPU.
///
/// # Errors
/// Returns an error if the tensor has another dtype.
pub fn with_values<E: Element, T>(tensor: &Tensor, f: impl FnOnce(&[E]) -> T) -> Result<T, TchError> {
    check_kind::<E>(tensor.f_kind()?)?;
    with_bytes(tensor, |bytes| {
        // SAFETY: any bits are a value of `E`; bytes outside the aligned middle are refused below.
        let (before, values, after) = unsafe { bytes.align_to::<E>() };
        assert!(before.is_empty() && after.is_empty(), "tensors are aligned to their elements");
        f(values)
    })
}

/// All values of a tensor in row-major order, converted to fp32.
///
/// # Panics
/// Panics if libtorch rejects the conversion, like tch's own operators.
pub fn f32_values(tensor: &Tensor) -> Vec<f32> {
    let values = with_values(&tensor.to_kind(Kind::Float), <[f32]>::to_vec);
    values.unwrap_or_else(|e| panic!("{e}"))
}

/// A contiguous CPU tensor with values written by `fill`, which receives uninitialised numbers.
///
/// # Errors
/// Returns an error if libtorch cannot allocate it.
pub fn tensor_of<E: Element>(shape: &[i64], fill: impl FnOnce(&mut [E])) -> Result<Tensor, TchError> {
    let tensor = Tensor::f_empty(shape, (E::KIND, Device::Cpu))?;
    if tensor.numel() > 0 {
        // SAFETY: a fresh contiguous tensor of that many elements, which nothing else refers to
        // yet; libtorch aligns memory to 64 bytes, and any bits are a value of `E`.
        fill(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<E>(), tensor.numel()) });
    }
    Ok(tensor)
}

fn check_kind<E: Element>(kind: Kind) -> Result<(), TchError> {
    if kind == E::KIND {
        return Ok(());
    }
    Err(TchError::Kind(format!("expected a tensor of {:?}, found {kind:?}", E::KIND)))
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
    fn values_are_read_in_place_and_written_into_fresh_tensors() {
        let t = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]).view([2, 2]);
        assert_eq!(with_values(&t.tr(), <[f32]>::to_vec).unwrap(), [1.0, 3.0, 2.0, 4.0]);
        assert!(with_values(&t, <[u16]>::to_vec).is_err());
        let made = tensor_of(&[2, 2], |values| values.copy_from_slice(&[1.0f32, 2.0, 3.0, 4.0])).unwrap();
        assert_eq!(made, t);
        assert_eq!(tensor_of::<u16>(&[0, 3], |_| unreachable!()).unwrap().size(), [0, 3]);
    }

    #[test]
    fn a_wrong_length_is_refused() {
        assert!(tensor_from_bytes(&[0; 7], &[2], Kind::Float).is_err());
        assert!(tensor_from_bytes(&[0; 8], &[-2, -1], Kind::Float).is_err());
    }
}
