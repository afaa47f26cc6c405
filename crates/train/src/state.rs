//! Saving a whole run and taking it up again.
//!
//! A state is one safetensors file in `state/`: weights, averages, both moments of each optimizer, and in its
//! metadata the step, the position in the data, the recipe and the program's version. It is written under
//! another name and renamed, and the one before it is kept, so that a kill at any moment loses nothing older than
//! the last save.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use base::config::to_yaml;
use tch::{Device, Tensor};
use weights::{Checkpoint, TensorSource};

use crate::recipe::Optimization;
use crate::{Error, Result};

/// A saved run, open for reading.
pub struct Saved {
    path: PathBuf,
    /// The last finished step.
    pub step: u64,
    /// The position in the data.
    pub position: String,
    /// The recipe, as YAML.
    pub recipe: String,
    source: Box<dyn TensorSource>,
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saved").field("path", &self.path).field("step", &self.step).finish_non_exhaustive()
    }
}

const FORMAT: &str = "gen-training-state-1";

impl Saved {
    /// The newest state of a run that can be read; a damaged newer one is passed over and named in the second
    /// result.
    pub fn newest(run: &Path) -> Result<(Saved, Vec<String>)> {
        let dir = run.join("state");
        let mut states = Vec::new();
        let mut damaged = Vec::new();
        for path in state_files(&dir)? {
            match Saved::open(&path) {
                Ok(s) => states.push(s),
                Err(e) => damaged.push(format!("passing over `{}`: {e}", path.display())),
            }
        }
        let newest = states.into_iter().max_by_key(|s| s.step);
        newest.map(|s| (s, damaged)).ok_or_else(|| Error::NoState { path: run.to_owned() })
    }

    /// The state that a path names: a file, or a run's newest.
    pub fn at(path: &Path) -> Result<(Saved, Vec<String>)> {
        if path.is_dir() { Saved::newest(path) } else { Ok((Saved::open(path)?, vec![])) }
    }

    /// Notes in another run's directory that it goes on from here.
    pub(crate) fn note_fork(&self, dir: &Path) -> Result<()> {
        if self.path.parent() == Some(&dir.join("state")) {
            return Ok(());
        }
        let path = std::path::absolute(&self.path).map_err(Error::file("find", &self.path))?;
        let text = to_yaml(&BTreeMap::from([
            ("file", path.display().to_string()),
            ("step", self.step.to_string()),
        ]))?;
        write_atomically(&dir.join("forked-from.yaml"), text.as_bytes())
    }

    /// The file, for people.
    pub fn describe(&self) -> String {
        format!("`{}`", self.path.display())
    }

    /// Refuses a state that is not a beginning for a run with this schedule under another name: one that has gone
    /// past the recipe's last step, or in which the learning rate has begun to fall.
    pub fn check_fork(&self, optimization: &Optimization) -> Result<()> {
        let (step, steps) = (self.step, optimization.steps);
        let bad = |message: String| Err(Error::State { path: self.path.clone(), message });
        if step >= steps {
            return bad(format!(
                "it is of step {step} and the run ends with {steps}; raise `optimization.steps`"
            ));
        }
        match optimization.schedule().decay_start() {
            Some(start) if step > start => bad(format!(
                "it is of step {step}, but the learning rate falls from step {start} on; fork an earlier state, or \
                 raise `optimization.steps`"
            )),
            _ => Ok(()),
        }
    }

    fn open(path: &Path) -> Result<Saved> {
        let bad = |message: &str| Error::State { path: path.to_owned(), message: message.into() };
        let file = Checkpoint::open(path)?;
        let text = |key: &str| {
            let value = file.metadata().get(key).and_then(|v| v.as_str()).map(str::to_owned);
            value.ok_or_else(|| bad(&format!("its metadata has no `{key}`")))
        };
        if text("format")? != FORMAT {
            return Err(bad("it is not a training state of this version"));
        }
        let step = text("step")?.parse().map_err(|_| bad("its step is not a number"))?;
        let (position, recipe) = (text("position")?, text("recipe")?);
        Ok(Saved { path: path.to_owned(), step, position, recipe, source: file.section(None)? })
    }

    /// One tensor by its full name, e.g. `model/encoder.conv_in.weight`.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        self.source.info(name)?;
        self.source.read(name, Device::Cpu).ok()
    }

    /// The error for a tensor that is missing or has another shape.
    pub fn misfit(&self, what: &str) -> Error {
        Error::State { path: self.path.clone(), message: format!("no tensor {what}") }
    }
}

/// Refuses a run directory that holds something already.
pub fn check_unused(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let mut entries = std::fs::read_dir(dir).map_err(Error::file("read", dir))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::Occupied { path: dir.to_owned(), run: dir.join("state").is_dir() }),
    }
}

/// Writes a state and removes all but the newest and the one before it.
pub fn save(run: &Path, step: u64, position: &str, recipe: &str, tensors: &[(String, Tensor)]) -> Result<()> {
    let dir = run.join("state");
    std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    let metadata: BTreeMap<String, String> = [
        ("format", FORMAT.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("step", step.to_string()),
        ("position", position.to_owned()),
        ("recipe", recipe.to_owned()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    weights::save_safetensors(&dir.join(format!("step-{step:09}.safetensors")), tensors, &metadata)?;
    let mut files = state_files(&dir)?;
    files.sort_unstable(); // zero-padded steps sort as numbers
    let surplus = files.len().saturating_sub(2);
    for old in &files[..surplus] {
        std::fs::remove_file(old).map_err(Error::file("remove", old))?;
    }
    Ok(())
}

fn state_files(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(vec![]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::file("read", dir))? {
        let path = entry.map_err(Error::file("read", dir))?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Writes a small file whole or not at all.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    base::files::write_atomic(path, |file| file.write_all(bytes)).map_err(Error::file("write", path))
}
