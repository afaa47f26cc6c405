//! libtorch's two switches for TF32: whether a GPU rounds the inputs of fp32 products and of fp32
//! convolutions to 10-bit mantissas. By default libtorch has the first off and the second on.

use std::ffi::c_char;

use crate::Error;
use crate::error::check_message;

unsafe extern "C" {
    fn ext_set_tf32(on: bool) -> *mut c_char;
    fn ext_get_tf32(products: *mut bool, convolutions: *mut bool) -> *mut c_char;
}

/// Turns TF32 on or off, for both products and convolutions.
///
/// # Errors
/// Returns libtorch's message.
pub fn set(on: bool) -> Result<(), Error> {
    // SAFETY: sets two flags of libtorch.
    checked(unsafe { ext_set_tf32(on) })
}

/// Whether products, and whether convolutions, use TF32.
///
/// # Errors
/// Returns libtorch's message.
pub fn get() -> Result<[bool; 2], Error> {
    let [mut products, mut convolutions] = [false; 2];
    // SAFETY: both are written before the call returns.
    checked(unsafe { ext_get_tf32(&mut products, &mut convolutions) })?;
    Ok([products, convolutions])
}

fn checked(error: *mut c_char) -> Result<(), Error> {
    check_message(error).map_err(|message| Error::Libtorch { call: "TF32", message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_switches_go_together() {
        for on in [false, true, false] {
            set(on).unwrap();
            assert_eq!(get().unwrap(), [on, on]);
        }
    }
}
