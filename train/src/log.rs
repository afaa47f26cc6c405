//! Log of a run's scalars, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::tensorboard::EventWriter;
use crate::{Error, Result};

/// Appends to `log.jsonl`, and to an event file for TensorBoard.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    events: EventWriter,
}

impl Log {
    /// Opens the log in the directory of a run after `step`, and drops lines that a killed process
    /// wrote after it.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or written.
    pub fn open(run: &Path, step: u64) -> Result<Self> {
        let path = run.join("log.jsonl");
        if path.exists() {
            keep_until(&path, step)?;
        }
        let file =
            OpenOptions::new().create(true).append(true).open(&path).map_err(Error::file("write", &path))?;
        Ok(Log { path, file, events: EventWriter::open(run, step)? })
    }

    /// Appends one line: the step, then `scalars` in their order. NaN and infinities become null.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn write(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        line.extend(scalars.iter().map(|(k, v)| (k.clone(), Value::from(*v))));
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(Error::file("write", &self.path))?;
        self.events.write(step, scalars)
    }
}

/// Rewrites a log without lines of later steps and without an incomplete last line.
fn keep_until(path: &Path, step: u64) -> Result<()> {
    let file = File::open(path).map_err(Error::file("read", path))?;
    let mut kept = String::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(Error::file("read", path))?;
        let at = serde_json::from_str::<Value>(&line).ok().and_then(|v| v["step"].as_u64());
        if at.is_some_and(|s| s <= step) {
            kept.push_str(&line);
            kept.push('\n');
        }
    }
    crate::files::write_atomically(path, kept.as_bytes())
}
