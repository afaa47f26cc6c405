//! A digest of sets of images that does not depend on their order or split.

use serde::{Deserialize, Serialize};

/// The sum of the SHA-256 of each image's name and pixels, in four words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest([u64; 4]);

impl Digest {
    /// The digest of one image.
    pub fn of(hash: [u8; 32]) -> Self {
        let word = |i: usize| u64::from_le_bytes(hash[8 * i..8 * i + 8].try_into().expect("eight bytes"));
        Digest([word(0), word(1), word(2), word(3)])
    }

    /// Adds another image or set.
    pub fn add(&mut self, other: Digest) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a = a.wrapping_add(b));
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().flat_map(|w| w.to_le_bytes()).try_for_each(|b| write!(f, "{b:02x}"))
    }
}
