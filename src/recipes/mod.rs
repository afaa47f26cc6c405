//! Published figures as recipes: what to run, with which files, and what should come out.

pub mod climb;
mod job;
pub mod pieces;
mod quantity;
pub mod run;
mod schema;
pub mod steps;
pub mod verdict;

use std::path::{Path, PathBuf};

use base::config::ConfigError;
use base::hint::nearest;
use sampler::SamplingConfig;
use settings::ReferenceKind;

pub use self::job::BenchmarkJob;
pub use self::quantity::{GFID, Quantity, RFID};
pub use self::schema::*;
use crate::failure::Failure;

impl Recipe {
    /// The recipe of that name, or in that file.
    pub fn find(given: &str) -> anyhow::Result<Recipe> {
        let path = Path::new(given);
        if path.is_file() {
            return Ok(Recipe::read(path)?);
        }
        let file = format!("{given}.yaml");
        match search_path().into_iter().map(|dir| dir.join(&file)).find(|f| f.is_file()) {
            Some(found) => Ok(Recipe::read(&found)?),
            None => Err(unknown(given).into()),
        }
    }

    /// Reads a file and checks what its type does not tell.
    pub fn read(path: &Path) -> Result<Recipe, ConfigError> {
        let recipe: Recipe = base::config::read(path)?;
        let invalid = |message: String| ConfigError::Invalid { origin: path.display().to_string(), message };
        recipe.check().map_err(invalid)?;
        Ok(recipe)
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

/// Folders of recipes, first match wins.
fn search_path() -> Vec<PathBuf> {
    generate::install::folders("benchmarks", "configs/benchmarks")
}

/// Names of all recipes that are there.
pub fn names() -> Vec<String> {
    let entries = search_path().into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let stem = |path: PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".yaml")?.to_owned());
    let mut names: Vec<String> = entries.filter_map(|e| stem(e.path())).collect();
    names.sort();
    names.dedup();
    names
}

fn unknown(given: &str) -> Failure {
    let names = names();
    let failure = Failure::new(format!("`--recipe {given}` is neither a file nor a known recipe"));
    let near = nearest(given, names.iter().map(String::as_str), 3);
    match near.is_empty() {
        false => failure.hint(format!("did you mean `{}`?", near.join("` or `"))),
        true => failure.hint(format!("known are: {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a tokenizer's, and the name.
    fn configs(recipe: &Recipe) -> Vec<(bool, &str)> {
        match &recipe.task {
            Task::Reconstruction(t) => vec![(true, &t.tokenizer.config)],
            Task::Generation(t) => vec![(true, &t.tokenizer.config), (false, &t.transformer.config)],
            Task::TextToImage(t) => vec![(true, &t.tokenizer.config), (false, &t.transformer.config)],
            Task::Probe(t) => vec![(true, &t.tokenizer.config), (false, &t.transformer.config)],
            Task::NotRunnable(_) => vec![],
        }
    }

    #[test]
    fn every_recipe_is_understood_and_names_configurations_that_exist() {
        let names = names();
        assert!(names.len() > 50, "{}", names.len());
        for name in names {
            let recipe = Recipe::find(&name).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            for (tokenizer, config) in configs(&recipe) {
                assert!(config_text(tokenizer, config).is_some(), "{name}: no config `{config}`");
            }
            // Nothing was published of LlamaGen's text-to-image models.
            let runnable = !matches!(recipe.task, Task::NotRunnable(_) | Task::TextToImage(_));
            assert_eq!(runnable, !recipe.expected.is_empty(), "{name}");
            let kind = match &recipe.task {
                Task::Reconstruction(t) => Some((t.reference.kind, ReferenceKind::Rfid)),
                Task::Generation(t) => Some((t.reference.kind, ReferenceKind::Gfid)),
                _ => None,
            };
            assert!(kind.is_none_or(|(is, should)| is == should), "{name}: the wrong kind of reference");
        }
    }

    #[test]
    fn a_misspelled_recipe_gets_a_suggestion() {
        let text = crate::failure::render(&Recipe::find("gigatok-bl+gpt-bb").unwrap_err());
        assert!(text.contains("did you mean `gigatok-bl+gpt-b`"), "{text}");
    }
}
