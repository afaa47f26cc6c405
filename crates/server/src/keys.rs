//! API keys.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// A file of keys that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeysError {
    /// No key in the file.
    #[error("the file holds no key; expected one a line")]
    Empty,
    /// A key that no header can carry.
    #[error("line {line}: a key has printable ASCII characters only, without spaces")]
    Unprintable {
        /// Line, from 1.
        line: usize,
    },
    /// A key that is soon guessed.
    #[error("line {line}: a key has at least {least} characters; `openssl rand -hex 32` makes one")]
    Short {
        /// Line, from 1.
        line: usize,
        /// Least number of characters.
        least: usize,
    },
}

/// Keys that a client may send, kept as hashes.
#[derive(Clone)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    const LEAST: usize = 16;

    /// The keys of a text: one a line; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// Returns an error if there is no key, or one is short or not printable.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let lines = text.lines().map(str::trim).enumerate();
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let hashes = keys.map(|(i, key)| match key {
            _ if !key.bytes().all(|b| b.is_ascii_graphic()) => Err(KeysError::Unprintable { line: i + 1 }),
            _ if key.len() < Self::LEAST => Err(KeysError::Short { line: i + 1, least: Self::LEAST }),
            _ => Ok(hash(key)),
        });
        let hashes = hashes.collect::<Result<Vec<_>, _>>()?;
        if hashes.is_empty() { Err(KeysError::Empty) } else { Ok(Keys(hashes)) }
    }

    /// Whether `key` is one of them. The time taken depends on neither.
    pub fn allow(&self, key: &str) -> bool {
        let given = hash(key);
        self.0.iter().fold(Choice::from(0), |found, key| found | key.ct_eq(&given)).into()
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_keys() {
        let keys = Keys::parse("# of the team\nsk-0123456789abcdef\r\n\n  sk-fedcba9876543210 \n").unwrap();
        assert_eq!(format!("{keys:?}"), "2 keys");
        assert!(keys.allow("sk-0123456789abcdef") && keys.allow("sk-fedcba9876543210"));
        assert!(!keys.allow("") && !keys.allow("sk-0123456789abcde") && !keys.allow("# of the team"));
        assert_eq!(Keys::parse("# none\n").unwrap_err(), KeysError::Empty);
        assert_eq!(Keys::parse("\nshort").unwrap_err(), KeysError::Short { line: 2, least: 16 });
        assert_eq!(Keys::parse("a key of several words").unwrap_err(), KeysError::Unprintable { line: 1 });
    }
}
