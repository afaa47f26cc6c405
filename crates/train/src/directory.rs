//! What a run's directory says of the run, beside its log and its states.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base::Progress;
use base::files::tsv_cell;
use data::{LeftOut, count_left_out};
use serde::Serialize;
use serde_json::{Value, json};

use crate::files::write_atomically;
use crate::state::to_json;
use crate::task::DataFacts;
use crate::{Error, Result};

/// Held while a process trains in a directory; the operating system lets go of it however the process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] File);

impl Lock {
    /// Refuses a directory in which another process trains, and clears what a killed one left unfinished.
    pub fn take(run: &Path) -> Result<Lock> {
        let path = run.join(".lock");
        let file = File::create(&path).map_err(Error::file("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(Error::Busy { path: run.to_owned() }),
            // Some network file systems know no locks.
            Err(std::fs::TryLockError::Error(_)) => {}
        }
        for folder in [run.to_owned(), run.join("state")].iter().filter(|f| f.is_dir()) {
            base::files::remove_stale_temps(folder).map_err(Error::file("clear", folder))?;
        }
        Ok(Lock(file))
    }
}

/// One start of a run: `run.json` lists them all.
#[derive(Debug, Serialize)]
pub(crate) struct Start<'a> {
    /// As [`crate::Run::program`].
    pub program: &'a str,
    pub device: &'a str,
    /// Whether fp32 products and convolutions took TF32, on a GPU.
    pub tf32: bool,
    pub threads: i32,
    /// TFLOP/s against which MFU is told.
    pub peak_tflops: Option<f64>,
    /// The step it went on from.
    pub after_step: u64,
    pub unix_time: u64,
    pub data: &'a DataFacts,
}

/// Adds a start to `run.json`, and warns if the data are not those of the start before.
pub(crate) fn note_start(run: &Path, start: &Start<'_>, progress: &mut dyn Progress) -> Result<()> {
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
            "the training data are not those of the start before (fingerprint {is}, not {was}); the run goes on, but \
             not as if it had not been interrupted"
        ));
    }
    starts.push(json!(start));
    write_atomically(&path, to_json(&json!({ "starts": starts })).as_bytes())
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Keeps `left-out.tsv`: every file that was left out, with the reason.
#[derive(Debug)]
pub(crate) struct LeftOutFiles {
    path: PathBuf,
    known: BTreeMap<String, String>,
}

/// So many are named on the screen; the file names them all.
const NAMED: usize = 20;

impl LeftOutFiles {
    /// Goes on with what earlier starts of a run found, if `resumed`.
    pub fn open(run: &Path, resumed: bool) -> Self {
        let path = run.join("left-out.tsv");
        let text = if resumed { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let known = text.lines().filter_map(|l| l.split_once('\t'));
        LeftOutFiles { path, known: known.map(|(n, r)| (n.to_owned(), r.to_owned())).collect() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Takes in what was found until now; names what is new, and writes it down.
    pub fn update(&mut self, found: Vec<LeftOut>, progress: &mut dyn Progress) -> Result<()> {
        let before = self.known.len();
        for LeftOut { name, reason } in found {
            let (name, reason) = (tsv_cell(&name), tsv_cell(&reason));
            if self.known.contains_key(&name) {
                continue;
            }
            match self.known.len() {
                n if n < NAMED => progress.warn(&format!("left out `{name}`: {reason}")),
                NAMED => {
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

    /// One sentence with the numbers, if there are any.
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
        let mut files = LeftOutFiles::open(dir.path(), false);
        files.update(vec![left("a\tb", "damaged: x"), left("c", "hidden")], &mut Silent).unwrap();
        let mut files = LeftOutFiles::open(dir.path(), true);
        files.update(vec![left("c", "hidden"), left("d", "damaged: y")], &mut Silent).unwrap();
        assert_eq!(files.count(), 3);
        assert!(files.summary().unwrap().starts_with("3 files were left out (2 damaged, 1 hidden)"));
        let text = std::fs::read_to_string(dir.path().join("left-out.tsv")).unwrap();
        assert_eq!(text, "a\\tb\tdamaged: x\nc\thidden\nd\tdamaged: y\n");
    }
}
