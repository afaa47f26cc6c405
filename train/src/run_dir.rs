//! Files of a run's directory beside its log and its states: lock, `run.json`, `left-out.tsv`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base::Progress;
use base::files::tsv_cell;
use data::{LeftOut, count_left_out};
use serde::Serialize;
use serde_json::{Value, json};

use crate::files::{to_json, write_atomically};
use crate::task::DataFacts;
use crate::{Error, Result};

/// Lock on a run's directory while a process trains in it. The operating system releases it however
/// the process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] File);

impl Lock {
    /// Locks the directory and removes unfinished files of a killed process.
    ///
    /// # Errors
    /// Returns an error if another process trains in the directory.
    pub fn take(run: &Path) -> Result<Lock> {
        let path = run.join(".lock");
        let file = File::create(&path).map_err(Error::file("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(Error::Busy { path: run.to_owned() }),
            // Some network file systems have no locks.
            Err(std::fs::TryLockError::Error(_)) => {}
        }
        for folder in [run.to_owned(), run.join("state")].iter().filter(|f| f.is_dir()) {
            base::files::remove_stale_temps(folder).map_err(Error::file("clear", folder))?;
        }
        Ok(Lock(file))
    }
}

/// One start of a run; `run.json` lists them all.
#[derive(Debug, Serialize)]
pub(crate) struct Start<'a> {
    /// Same as [`crate::Run::program`].
    pub program: &'a str,
    pub device: &'a str,
    /// Whether fp32 products and convolutions use TF32, on a GPU.
    pub tf32: bool,
    /// Number of processes, and threads of each.
    pub processes: usize,
    pub threads: i32,
    /// Peak of the device, which MFU is a share of, in TFLOP/s.
    pub peak_tflops: Option<f64>,
    /// Last finished step before this start.
    pub after_step: u64,
    pub unix_time: u64,
    pub data: &'a DataFacts,
}

/// Adds a start to `run.json`, and warns if the data differ from those of the previous start.
pub(crate) fn record_start(run: &Path, start: &Start<'_>, progress: &mut dyn Progress) -> Result<()> {
    let path = run.join("run.json");
    let before = match std::fs::read_to_string(&path) {
        Ok(text) if start.after_step > 0 => serde_json::from_str::<Value>(&text).ok(),
        _ => None,
    };
    let mut starts = before.and_then(|v| v["starts"].as_array().cloned()).unwrap_or_default();
    let was = starts.last().and_then(|s| s["data"]["fingerprint"].as_str());
    if let Some(was) = was.filter(|f| *f != start.data.fingerprint) {
        let is = &start.data.fingerprint;
        progress.warn(&format!(
            "the training data are not those of the start before (fingerprint {is}, not {was}); the run \
             continues, but not as an uninterrupted one would"
        ));
    }
    starts.push(json!(start));
    write_atomically(&path, to_json(&json!({ "starts": starts })).as_bytes())
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Skipped files of the data, with the reason: `left-out.tsv`.
#[derive(Debug)]
pub(crate) struct SkippedFiles {
    path: PathBuf,
    known: BTreeMap<String, String>,
}

/// Number of skipped files named on the screen; the file names all.
const SHOWN: usize = 20;

impl SkippedFiles {
    /// Opens the list, with the entries of earlier starts if `resumed`.
    pub fn open(run: &Path, resumed: bool) -> Self {
        let path = run.join("left-out.tsv");
        let text = if resumed { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let known = text.lines().filter_map(|l| l.split_once('\t'));
        SkippedFiles { path, known: known.map(|(n, r)| (n.to_owned(), r.to_owned())).collect() }
    }

    /// Number of skipped files.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Adds the files skipped so far; warns about new ones and writes them to the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn update(&mut self, found: Vec<LeftOut>, progress: &mut dyn Progress) -> Result<()> {
        let before = self.known.len();
        for LeftOut { name, reason } in found {
            let (name, reason) = (tsv_cell(&name), tsv_cell(&reason));
            if self.known.contains_key(&name) {
                continue;
            }
            match self.known.len() {
                n if n < SHOWN => progress.warn(&format!("left out `{name}`: {reason}")),
                SHOWN => {
                    progress.warn(&format!("more files are left out; {} names them", self.path.display()))
                }
                _ => {}
            }
            self.known.insert(name, reason);
        }
        if self.known.len() == before {
            return Ok(());
        }
        let rows: String = self.known.iter().map(|(n, r)| format!("{n}\t{r}\n")).collect();
        write_atomically(&self.path, rows.as_bytes())
    }

    /// One sentence with the counts; `None` without skipped files.
    pub fn summary(&self) -> Option<String> {
        let file =
            |(name, reason): (&String, &String)| LeftOut { name: name.clone(), reason: reason.clone() };
        let files: Vec<LeftOut> = self.known.iter().map(file).collect();
        count_left_out(&files).map(|count| format!("{count}; {} names them", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Silent;

    #[test]
    fn a_second_process_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(Error::Busy { .. })));
        drop(lock);
        std::fs::write(dir.path().join(".partial-x"), "half").unwrap();
        Lock::take(dir.path()).unwrap();
        assert!(!dir.path().join(".partial-x").exists());
    }

    #[test]
    fn files_are_counted_once_over_all_starts() {
        let dir = tempfile::tempdir().unwrap();
        let left = |name: &str, reason: &str| LeftOut { name: name.into(), reason: reason.into() };
        let mut files = SkippedFiles::open(dir.path(), false);
        files.update(vec![left("a\tb", "damaged: x"), left("c", "hidden")], &mut Silent).unwrap();
        let mut files = SkippedFiles::open(dir.path(), true);
        files.update(vec![left("c", "hidden"), left("d", "damaged: y")], &mut Silent).unwrap();
        assert_eq!(files.count(), 3);
        assert!(files.summary().unwrap().starts_with("3 files were left out (2 damaged, 1 hidden)"));
        let text = std::fs::read_to_string(dir.path().join("left-out.tsv")).unwrap();
        assert_eq!(text, "a\\tb\tdamaged: x\nc\thidden\nd\tdamaged: y\n");
    }
}
