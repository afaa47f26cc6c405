//! libtorch's two switches for TF32: whether a GPU rounds the inputs of fp32 products and of fp32 convolutions to ten bits.
//! libtorch itself starts with the first off and the second on.

use std::ffi::c_char;

use crate::Error;
use crate::error::words;

unsafe extern "C" {
    fn ext_set_tf32(on: bool) -> *mut c_char;
    fn ext_get_tf32(products: *mut bool, convolutions: *mut bool) -> *mut c_char;
}

/// Turns TF32 on or off, for products and convolutions both.
///
/// # Errors
/// libtorch refuses.
pub fn set(on: bool) -> Result<(), Error> {
    // SAFETY: sets two numbers of libtorch's.
    checked(unsafe { ext_set_tf32(on) })
}

/// Whether products, and whether convolutions, take TF32.
///
/// # Errors
/// libtorch refuses.
pub fn get() -> Result<[bool; 2], Error> {
    let [mut products, mut convolutions] = [false; 2];
    // SAFETY: both are written before the call returns.
    checked(unsafe { ext_get_tf32(&mut products, &mut convolutions) })?;
    Ok([products, convolutions])
}

fn checked(error: *mut c_char) -> Result<(), Error> {
    words(error).map_err(|message| Error::Libtorch { call: "TF32", message })
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
