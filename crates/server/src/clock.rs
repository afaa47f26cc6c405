//! Time of day, and numbers that nobody guesses twice.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A number that differs from call to call and from process to process. No secret: for request ids
/// and seeds.
pub fn fresh_number() -> u64 {
    RandomState::new().build_hasher().finish()
}
