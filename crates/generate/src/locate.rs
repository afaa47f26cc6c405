//! Models by name: a directory, a configuration beside a checkpoint, or a bundled model.

use std::path::{Path, PathBuf};

use base::config::Document;
use settings::ModelChoice;
use weights::{CONFIG_FILE, WEIGHTS_FILE};

use crate::error::{Error, Result};
use crate::install;

/// The bundled model of classes, the default.
pub const DEFAULT_MODEL: &str = "imagenet56-64";
/// The bundled model of prompts.
pub const DEFAULT_TEXT_MODEL: &str = "imagenet56-64-text";

/// Folder of a transformer's directory that holds its tokenizer.
const TOKENIZER_FOLDER: &str = "tokenizer";

/// Place of a model's configuration and weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory that holds both, as training writes it.
    Directory(PathBuf),
    /// A configuration and a checkpoint, as published.
    Files {
        /// YAML.
        config: PathBuf,
        /// `.pt` or `.safetensors`.
        weights: PathBuf,
    },
}

impl Location {
    /// The configuration.
    pub fn config_file(&self) -> PathBuf {
        match self {
            Location::Directory(dir) => dir.join(CONFIG_FILE),
            Location::Files { config, .. } => config.clone(),
        }
    }

    /// The checkpoint.
    pub fn weights_file(&self) -> PathBuf {
        match self {
            Location::Directory(dir) => dir.join(WEIGHTS_FILE),
            Location::Files { weights, .. } => weights.clone(),
        }
    }

    /// A file of the model's directory, if it exists. A file that cannot be read is an error.
    pub(crate) fn beside(&self, name: &str) -> Result<Option<PathBuf>> {
        let Location::Directory(dir) = self else { return Ok(None) };
        let path = dir.join(name);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        base::files::open_regular(&path).map_err(Error::read(&path))?;
        Ok(Some(path))
    }
}

/// Part of a model that is located, by the options that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Transformer,
    /// A tokenizer without a transformer.
    Tokenizer,
    /// The tokenizer beside a transformer.
    PairedTokenizer,
}

impl Part {
    fn option(self) -> &'static str {
        match self {
            Part::Transformer => "--model",
            Part::Tokenizer | Part::PairedTokenizer => "--tokenizer",
        }
    }

    fn weights_option(self) -> &'static str {
        match self {
            Part::Transformer | Part::Tokenizer => "--weights",
            Part::PairedTokenizer => "--tokenizer-weights",
        }
    }
}

/// A tokenizer that goes with no transformer; by default the bundled one.
///
/// # Errors
/// Returns an error if there is no such tokenizer, or its weights are not given.
pub fn tokenizer(choice: &ModelChoice) -> Result<Location> {
    match &choice.name {
        Some(given) => locate(given, choice.weights.as_deref(), Part::Tokenizer),
        None => locate(DEFAULT_MODEL, None, Part::Tokenizer),
    }
}

/// A transformer; by default the bundled one.
///
/// # Errors
/// Returns an error if there is no such transformer, or its weights are not given.
pub fn transformer(choice: &ModelChoice) -> Result<Location> {
    let given = choice.name.as_deref().unwrap_or(DEFAULT_MODEL);
    locate(given, choice.weights.as_deref(), Part::Transformer)
}

/// The tokenizer that goes with a transformer: the one that is named, else the one in the
/// transformer's directory.
///
/// # Errors
/// Returns an error if there is none.
pub fn tokenizer_of(model: &Location, choice: &ModelChoice) -> Result<Location> {
    if let Some(given) = &choice.name {
        return locate(given, choice.weights.as_deref(), Part::PairedTokenizer);
    }
    let inside = match model {
        Location::Directory(dir) => dir.join(TOKENIZER_FOLDER),
        Location::Files { config, .. } => return Err(Error::TokenizerUnknown { config: config.clone() }),
    };
    match inside.join(CONFIG_FILE).is_file() {
        true => Ok(Location::Directory(inside)),
        false => Err(Error::TokenizerMissing { path: inside }),
    }
}

fn locate(given: &str, weights: Option<&Path>, part: Part) -> Result<Location> {
    let path = Path::new(given);
    if path.is_dir() {
        return in_directory(path, weights, part);
    }
    if path.is_file() {
        return config_file(path, weights, part);
    }
    match find_bundled(given) {
        Some(dir) => in_directory(&dir, weights, part),
        None => {
            let (option, given) = (part.option(), given.to_owned());
            Err(Error::UnknownModel { option, given, bundled: bundled() })
        }
    }
}

fn in_directory(dir: &Path, weights: Option<&Path>, part: Part) -> Result<Location> {
    let (option, config) = (part.option(), dir.join(CONFIG_FILE));
    if !config.is_file() {
        return Err(Error::ConfigMissing { option, dir: dir.to_owned() });
    }
    match (part, is_transformer(&config)?) {
        (Part::Tokenizer | Part::PairedTokenizer, true) => {
            in_directory(&dir.join(TOKENIZER_FOLDER), weights, part)
        }
        (Part::Transformer, false) => Err(Error::IsTokenizer { option, dir: dir.to_owned() }),
        _ => Ok(match weights {
            Some(weights) => Location::Files { config, weights: weights.to_owned() },
            None => Location::Directory(dir.to_owned()),
        }),
    }
}

fn is_transformer(config: &Path) -> Result<bool> {
    let document = Document::read(config)?.to_json()?;
    Ok(document.get("type").and_then(|t| t.as_str()) == Some("gpt"))
}

fn config_file(config: &Path, weights: Option<&Path>, part: Part) -> Result<Location> {
    if let Some(weights) = weights {
        return Ok(Location::Files { config: config.to_owned(), weights: weights.to_owned() });
    }
    let (option, weights_option, path) = (part.option(), part.weights_option(), config.to_owned());
    Err(match is_text(config) {
        true => Error::WeightsMissing { option, weights_option, path },
        false => Error::NotAConfig { option, weights_option, path },
    })
}

fn is_text(path: &Path) -> bool {
    use std::io::Read;
    let mut head = vec![];
    let read = base::files::open_regular(path).and_then(|f| f.take(4096).read_to_end(&mut head));
    read.is_ok() && !head.contains(&0)
}

/// Folders of bundled models, first match wins: `$GEN_MODELS`, then those of [`install::folders`].
pub fn search_path() -> Vec<PathBuf> {
    let named = std::env::var_os("GEN_MODELS").map(PathBuf::from);
    named.into_iter().chain(install::folders("models", "models")).collect()
}

/// Names of all bundled models.
pub fn bundled() -> Vec<String> {
    let mut names: Vec<String> = search_path()
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| entry.path().join(CONFIG_FILE).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn find_bundled(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|dir| dir.join(name)).find(|dir| dir.join(CONFIG_FILE).is_file())
}

#[cfg(test)]
mod tests {
    use base::Hint as _;

    use super::*;

    fn directory(root: &Path, name: &str, config: &str) -> PathBuf {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(CONFIG_FILE), config).unwrap();
        dir
    }

    fn named(model: &Path, weights: Option<&Path>) -> ModelChoice {
        ModelChoice { name: Some(model.display().to_string()), weights: weights.map(Path::to_owned) }
    }

    #[test]
    fn a_transformers_directory_stands_for_its_tokenizer_where_one_is_wanted() {
        let root = tempfile::tempdir().unwrap();
        let model = directory(root.path(), "m", "type: gpt");
        let inside = directory(&model, "tokenizer", "type: gigatok");
        let expected = Location::Directory(inside.clone());
        assert_eq!(tokenizer(&named(&model, None)).unwrap(), expected);
        assert_eq!(tokenizer(&named(&inside, None)).unwrap(), expected);
        assert_eq!(tokenizer_of(&Location::Directory(model), &ModelChoice::default()).unwrap(), expected);
        assert!(transformer(&named(&inside, None)).unwrap_err().to_string().contains("is a tokenizer"));
    }

    #[test]
    fn a_config_needs_its_weights_and_a_checkpoint_needs_its_config() {
        let root = tempfile::tempdir().unwrap();
        let config = directory(root.path(), "m", "type: gigatok").join(CONFIG_FILE);
        let weights = root.path().join("w.pt");
        std::fs::write(&weights, b"PK\x03\x04\0\0").unwrap();
        let found = tokenizer(&named(&config, Some(&weights))).unwrap();
        assert_eq!(found, Location::Files { config: config.clone(), weights: weights.clone() });
        let hints = |choice: ModelChoice| tokenizer(&choice).unwrap_err().hints().join("\n");
        assert!(hints(named(&config, None)).contains("add `--weights FILE`"));
        assert!(hints(named(&weights, None)).contains("CONFIG.yaml --weights"));
    }
}
