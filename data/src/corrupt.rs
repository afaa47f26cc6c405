//! Damaged images: named, counted, listed, and too many of them stop the run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base::files::{tsv_cell, write_atomic};

use crate::{Dataset, Error, Result};

/// Keeps account of the records that cannot be decoded. Shared between threads.
#[derive(Debug)]
pub struct CorruptLog {
    ceiling: usize,
    list: Option<PathBuf>,
    /// Names that the file held already when this run began.
    listed: BTreeSet<String>,
    seen: Mutex<BTreeMap<String, String>>,
}

impl CorruptLog {
    /// Allows `ceiling` damaged records; each is appended to the file `list`, if there is one, as
    /// `key<TAB>reason` in one line, unless an earlier run listed it there.
    pub fn new(ceiling: usize, list: Option<&Path>) -> Self {
        let before = list.and_then(|p| std::fs::read_to_string(p).ok()).unwrap_or_default();
        let listed = before.lines().filter_map(|l| l.split('\t').next()).map(str::to_owned).collect();
        CorruptLog { ceiling, list: list.map(Path::to_owned), listed, seen: Mutex::default() }
    }

    /// Notes a failed record. Errors other than [`Error::Decode`] are passed on, as is one failure
    /// too many.
    pub fn note(&self, error: Error) -> Result<()> {
        let Error::Decode { key, message } = error else { return Err(error) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.insert(key.clone(), message.clone()).is_some() {
            return Ok(());
        }
        if let Some(path) = self.list.as_ref().filter(|_| !self.listed.contains(&tsv_cell(&key))) {
            append(path, &key, &message).map_err(Error::write(path))?;
        }
        let (count, ceiling) = (seen.len(), self.ceiling);
        if count > ceiling {
            return Err(Error::TooManyCorrupt { count, ceiling, key, message, list: self.list.clone() });
        }
        Ok(())
    }

    /// The damaged records met so far: key and reason.
    pub fn entries(&self) -> Vec<(String, String)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|(k, m)| (k.clone(), m.clone())).collect()
    }
}

fn append(path: &Path, key: &str, message: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    // In one piece: other processes may append to the file.
    file.write_all(format!("{}\t{}\n", tsv_cell(key), tsv_cell(message)).as_bytes())
}

/// Sorts a list of damaged records, to which processes append as they meet them, into the order of
/// the records. Does nothing if there is no list.
///
/// # Errors
/// Returns an error if the list cannot be written.
pub fn sort_corrupt_list(path: &Path, records: &dyn Dataset) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(()) };
    let places: HashMap<String, usize> = (0..records.len()).map(|i| (tsv_cell(&records.key(i)), i)).collect();
    let place = |line: &&str| line.split('\t').next().and_then(|key| places.get(key)).copied();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(place);
    lines.dedup();
    write_atomic(path, |file| lines.iter().try_for_each(|line| writeln!(file, "{line}")))
        .map_err(Error::write(path))
}
