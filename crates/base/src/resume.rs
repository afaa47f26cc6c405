//! Outputs that an interrupted run continues: its settings, kept in the folder, and its shards.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::files::write_json;

/// Settings of a run, kept in a file, so that only a run with equal settings continues its output.
#[derive(Debug)]
pub struct Claim<'a, T> {
    path: PathBuf,
    settings: &'a T,
    ignored: &'static [&'static str],
}

/// Reason why an output cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The settings cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// File of the settings.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The settings cannot be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// File of the settings.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("`{path}` holds no settings of such a run: {message}")]
    Malformed {
        /// File of the settings.
        path: PathBuf,
        /// The parser's message.
        message: String,
    },
    /// The run in the output has other settings.
    #[error("`{path}` holds other settings; what differs: {}", keys.join(", "))]
    Differs {
        /// File of the settings.
        path: PathBuf,
        /// Differing keys, as `key` or `key.inner`.
        keys: Vec<String>,
    },
}

impl<'a, T: Serialize + DeserializeOwned + PartialEq> Claim<'a, T> {
    /// Settings of this run, and the file for them.
    pub fn new(path: PathBuf, settings: &'a T) -> Self {
        Claim { path, settings, ignored: &[] }
    }

    /// Keys that two runs on one output may differ in, such as a description.
    #[must_use]
    pub fn ignoring(mut self, keys: &'static [&'static str]) -> Self {
        self.ignored = keys;
        self
    }

    /// Whether a run with these settings has begun. Creates the folder if it is missing.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created, the file cannot be read, or the settings
    /// differ.
    pub fn resumes(&self) -> Result<bool, ClaimError> {
        let folder = crate::files::folder_of(&self.path);
        let write = |source| ClaimError::Write { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(write)?;
        let Some(begun) = read::<T>(&self.path)? else { return Ok(false) };
        if begun == *self.settings {
            return Ok(true);
        }
        let mut keys = differing_keys(&begun, self.settings);
        keys.retain(|key| !self.ignored.contains(&key.as_str()));
        if keys.is_empty() { Ok(true) } else { Err(ClaimError::Differs { path: self.path.clone(), keys }) }
    }

    /// Writes the settings of a new run.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self) -> Result<(), ClaimError> {
        write_json(&self.path, self.settings)
            .map_err(|source| ClaimError::Write { path: self.path.clone(), source })
    }
}

/// Settings kept in a file; `None` if there is no such file.
///
/// # Errors
/// Returns an error if the file cannot be read or holds something else.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ClaimError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ClaimError::Read { path: path.to_owned(), source }),
    };
    let malformed =
        |e: serde_json::Error| ClaimError::Malformed { path: path.to_owned(), message: e.to_string() };
    serde_json::from_str(&text).map(Some).map_err(malformed)
}

/// Keys in which two settings differ, those of inner maps as `key.inner`.
pub fn differing_keys<T: Serialize>(a: &T, b: &T) -> Vec<String> {
    let json = |settings: &T| serde_json::to_value(settings).unwrap_or_default();
    let mut keys = vec![];
    compare("", &json(a), &json(b), &mut keys);
    keys
}

fn compare(at: &str, a: &Value, b: &Value, keys: &mut Vec<String>) {
    let (Some(left), Some(right)) = (a.as_object(), b.as_object()) else {
        if a != b {
            keys.push(at.to_owned());
        }
        return;
    };
    let missing = right.keys().filter(|key| !left.contains_key(*key));
    for key in left.keys().chain(missing) {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        compare(&path, &a[key], &b[key], keys);
    }
}

/// Division of an output into shards, files that appear only when they are complete.
#[derive(Debug, Clone)]
pub struct ShardPlan {
    /// Folder of the shards.
    pub folder: PathBuf,
    /// Beginning of their file names.
    pub stem: &'static str,
    /// Number of records.
    pub records: usize,
    /// Records of a shard; the last has the rest.
    pub shard_size: usize,
}

impl ShardPlan {
    /// Number of shards.
    pub fn count(&self) -> usize {
        self.records.div_ceil(self.shard_size)
    }

    /// Shards still to be written.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.count()).filter(|shard| !self.path(*shard).exists()).collect()
    }

    /// Records of a shard.
    pub fn range(&self, shard: usize) -> Range<usize> {
        let start = shard * self.shard_size;
        start..(start + self.shard_size).min(self.records)
    }

    /// File name of a shard.
    pub fn file(&self, shard: usize) -> String {
        format!("{}-{shard:05}-of-{:05}.safetensors", self.stem, self.count())
    }

    /// File names of all shards in order.
    pub fn files(&self) -> impl Iterator<Item = String> {
        (0..self.count()).map(|shard| self.file(shard))
    }

    /// File of a shard.
    pub fn path(&self, shard: usize) -> PathBuf {
        self.folder.join(self.file(shard))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_kept_for_equal_settings_and_refused_by_the_differing_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/settings.json");
        let settings = json!({"seed": 1, "head": {"lr": 0.5, "epochs": 3}, "data": "here"});
        let claim = Claim::new(path.clone(), &settings);
        assert!(!claim.resumes().unwrap());
        claim.write().unwrap();
        assert!(claim.resumes().unwrap());
        let other = json!({"seed": 2, "head": {"lr": 0.5, "epochs": 4}, "data": "there", "new": 1});
        let differing = |claim: Claim<Value>| match claim.resumes() {
            Err(ClaimError::Differs { keys, .. }) => keys,
            found => panic!("{found:?}"),
        };
        let mut all = differing(Claim::new(path.clone(), &other));
        all.sort(); // serde_json keeps an order of its own or the settings', as its features go
        assert_eq!(all, ["data", "head.epochs", "new", "seed"]);
        let ignoring = Claim::new(path.clone(), &other).ignoring(&["data", "new", "seed"]);
        assert_eq!(differing(ignoring), ["head.epochs"]);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(claim.resumes(), Err(ClaimError::Malformed { .. })));
    }

    #[test]
    fn shards_cover_the_records_and_are_missing_until_they_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let plan = ShardPlan { folder: dir.path().to_owned(), stem: "codes", records: 10, shard_size: 4 };
        assert_eq!((0..plan.count()).map(|s| plan.range(s)).collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
        assert_eq!(plan.missing(), [0, 1, 2]);
        std::fs::write(dir.path().join("codes-00001-of-00003.safetensors"), "").unwrap();
        assert_eq!(plan.missing(), [0, 2]);
    }
}
