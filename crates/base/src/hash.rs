//! Hashes: SHA-256 of files and of sequences of values, its short form as a fingerprint, and
//! FNV-1a.

use std::io::{self, Read as _};
use std::path::Path;

use sha2::Digest as _;

/// SHA-256 of values in sequence.
#[derive(Debug, Clone, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Takes in a value.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes);
    }

    /// All 32 bytes.
    pub fn digest(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    /// All 64 hexadecimal digits.
    pub fn hex(self) -> String {
        hex(&self.digest())
    }

    /// First 16 hexadecimal digits.
    pub fn fingerprint(self) -> String {
        hex(&self.digest()[..8])
    }
}

/// SHA-256 of bytes.
pub fn sha256(bytes: impl AsRef<[u8]>) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// Returns an error if the file cannot be read or is not a regular one.
pub fn sha256_of_file(path: &Path) -> io::Result<String> {
    let mut file = crate::files::open_regular(path)?;
    let mut hash = Sha256::default();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hash.hex()),
            n => hash.update(&block[..n]),
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 64-bit FNV-1a of a text.
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_published_ones() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256("abc")), abc);
        let mut hash = Sha256::default();
        ["a", "bc"].iter().for_each(|part| hash.update(part));
        assert_eq!((hash.clone().hex(), hash.fingerprint()), (abc.to_owned(), abc[..16].to_owned()));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        assert_eq!(sha256_of_file(file.path()).unwrap(), abc);
        assert_eq!(fnv1a("check"), 0x830C_F176_3726_0A67);
    }
}
