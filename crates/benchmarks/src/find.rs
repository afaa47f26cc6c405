//! Benchmarks by name: the files that come with the program, and files of the user's own.

use std::path::{Path, PathBuf};

use base::config::ConfigError;
use sampler::SamplingConfig;
use settings::ReferenceKind;

use crate::error::{Error, Result};
use crate::schema::{Benchmark, Task};

impl Benchmark {
    /// The benchmark of that name, or in that file.
    ///
    /// # Errors
    /// Returns an error if there is none, or if the file is malformed.
    pub fn find(given: &str) -> Result<Benchmark> {
        let path = Path::new(given);
        if path.is_file() {
            return Ok(Benchmark::read(path)?);
        }
        let file = format!("{given}.yaml");
        match search_path().into_iter().map(|dir| dir.join(&file)).find(|f| f.is_file()) {
            Some(found) => Ok(Benchmark::read(&found)?),
            None => Err(Error::Unknown { given: given.to_owned(), known: names() }),
        }
    }

    /// Reads a file and checks it beyond its type.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or contradicts itself.
    pub fn read(path: &Path) -> Result<Benchmark, ConfigError> {
        let benchmark: Benchmark = base::config::read(path)?;
        let invalid = |message: String| ConfigError::Invalid { origin: path.display().to_string(), message };
        benchmark.check().map_err(invalid)?;
        Ok(benchmark)
    }

    fn check(&self) -> Result<(), String> {
        if let Task::Generation(task) = &self.task {
            SamplingConfig::from_settings(task.sampling.clone()).map_err(|e| e.to_string())?;
            if task.sampling.cfg.is_none() && task.search.is_none() {
                return Err(
                    "task: neither `sampling.cfg` nor `search` says which guidance scale to take".into()
                );
            }
        }
        let reference = match &self.task {
            Task::Reconstruction(task) => Some(&task.reference),
            Task::Generation(task) => Some(&task.reference),
            Task::TextToImage(_) | Task::Probe(_) | Task::NotRunnable(_) => None,
        };
        if reference.is_some_and(|r| r.kind == ReferenceKind::Other) {
            return Err("task.reference.kind: unknown variant `other`, expected `rfid` or `gfid`".into());
        }
        if self.expected.iter().any(|e| e.tolerance.is_some_and(|t| t.is_nan() || t <= 0.0)) {
            return Err("expected: a tolerance must be positive, or null".into());
        }
        Ok(())
    }
}

/// The text of a configuration in `configs/`, as built into the program.
pub fn config_text(tokenizer: bool, name: &str) -> Option<&'static str> {
    let all = if tokenizer { tokenizer::released::RELEASED } else { ar_model::released::RELEASED };
    all.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// Folders of benchmarks, first match wins.
fn search_path() -> Vec<PathBuf> {
    generate::install::folders("benchmarks", "configs/benchmarks")
}

/// Names of all benchmarks that are installed.
pub fn names() -> Vec<String> {
    let entries = search_path().into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let stem = |path: PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".yaml")?.to_owned());
    let mut names: Vec<String> = entries.filter_map(|e| stem(e.path())).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use base::Hint;

    use super::*;

    /// Whether a tokenizer's, and the name.
    fn configs(benchmark: &Benchmark) -> Vec<(bool, &str)> {
        match &benchmark.task {
            Task::Reconstruction(t) => vec![(true, &t.tokenizer.config)],
            Task::Generation(t) => vec![(true, &t.tokenizer.config), (false, &t.transformer.config)],
            Task::TextToImage(t) => vec![(true, &t.tokenizer.config), (false, &t.transformer.config)],
            Task::Probe(t) => vec![(true, &t.tokenizer.config), (false, &t.transformer.config)],
            Task::NotRunnable(_) => vec![],
        }
    }

    #[test]
    fn every_benchmark_is_understood_and_names_configurations_that_exist() {
        let names = names();
        assert!(names.len() > 50, "{}", names.len());
        for name in names {
            let benchmark = Benchmark::find(&name).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            for (tokenizer, config) in configs(&benchmark) {
                assert!(config_text(tokenizer, config).is_some(), "{name}: no config `{config}`");
            }
            // Nothing was published of LlamaGen's text-to-image models.
            let runnable = !matches!(benchmark.task, Task::NotRunnable(_) | Task::TextToImage(_));
            assert_eq!(runnable, !benchmark.expected.is_empty(), "{name}");
            let kind = match &benchmark.task {
                Task::Reconstruction(t) => Some((t.reference.kind, ReferenceKind::Rfid)),
                Task::Generation(t) => Some((t.reference.kind, ReferenceKind::Gfid)),
                _ => None,
            };
            assert!(kind.is_none_or(|(is, should)| is == should), "{name}: the wrong kind of reference");
        }
    }

    #[test]
    fn a_misspelled_benchmark_gets_a_suggestion() {
        let hints = Benchmark::find("gigatok-bl+gpt-bb").unwrap_err().hints();
        assert!(hints[0].contains("did you mean `gigatok-bl+gpt-b`"), "{hints:?}");
    }
}
