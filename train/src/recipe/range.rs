//! Ranges of numbers in recipes.

use crate::{Error, Result};

/// Refuses a number that is negative or not finite, by its key.
pub(crate) fn at_least_zero(key: &str, value: f64) -> Result<()> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(Error::Recipe(format!("{key} must be 0 or more, found {value}"))),
    }
}
