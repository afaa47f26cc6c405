//! `--model`, `--tokenizer` and their weights: a directory, a config beside a checkpoint, or a shipped name.

use std::path::{Path, PathBuf};

use ar_model::ArConfig;
use base::Precision;
use base::config::Document;
use base::hint::nearest;
use cli::{ModelArgs, PairedTokenizerArgs, TokenizerArgs};
use tch::Device;
use tokenizer::TokenizerConfig;

use crate::commands::Context;
use crate::failure::Failure;

/// The shipped model that is used when none is named.
pub const DEFAULT_MODEL: &str = "imagenet56-64";
/// The shipped model that draws prompts.
pub const DEFAULT_TEXT_MODEL: &str = "imagenet56-64-text";

const CONFIG: &str = "config.yaml";

/// Where a model's config and weights are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory that holds both, as training writes it.
    Directory(PathBuf),
    /// A config and a checkpoint, as published.
    Files {
        /// YAML.
        config: PathBuf,
        /// `.pt` or `.safetensors`.
        weights: PathBuf,
    },
}

impl Location {
    fn config_file(&self) -> PathBuf {
        match self {
            Location::Directory(dir) => dir.join(CONFIG),
            Location::Files { config, .. } => config.clone(),
        }
    }

    /// Tells which keys of the config change nothing.
    fn tell_ignored(&self, keys: fn(&Document) -> Vec<String>, context: &Context) -> anyhow::Result<()> {
        let config = self.config_file();
        let keys = keys(&Document::read(&config)?);
        if !keys.is_empty() {
            context.printer.note(&format!("{}: without effect here: {}", config.display(), keys.join(", ")));
        }
        Ok(())
    }

    /// Loads a tokenizer, and tells from which file and section.
    pub fn open_tokenizer(
        &self,
        device: Device,
        precision: Precision,
        context: &Context,
    ) -> anyhow::Result<tokenizer::Loaded> {
        let loaded = match self {
            Location::Directory(dir) => tokenizer::open_dir(dir, device, precision)?,
            Location::Files { config, weights } => {
                tokenizer::open(&TokenizerConfig::read(config)?, weights, device, precision)?
            }
        };
        context.printer.note(&format!("tokenizer: {}", loaded.source.origin()));
        self.tell_ignored(TokenizerConfig::keys_without_effect, context)?;
        Ok(loaded)
    }

    /// A transformer's configuration.
    pub fn config(&self) -> anyhow::Result<ArConfig> {
        Ok(ArConfig::read(&self.config_file())?)
    }

    /// Loads a transformer, and tells from which file and section.
    pub fn open_transformer(
        &self,
        device: Device,
        precision: Precision,
        context: &Context,
    ) -> anyhow::Result<ar_model::Loaded> {
        let loaded = match self {
            Location::Directory(dir) => ar_model::open_dir(dir, device, precision)?,
            Location::Files { config, weights } => {
                ar_model::open(&ArConfig::read(config)?, weights, device, precision)?
            }
        };
        context.printer.note(&format!("model: {}", loaded.source.origin()));
        self.tell_ignored(ArConfig::keys_without_effect, context)?;
        Ok(loaded)
    }
}

/// A model's own directory, or a directory of a transformer with its tokenizer inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Transformer,
    Tokenizer,
}

/// The tokenizer that a verb without a transformer uses.
pub fn tokenizer(args: &TokenizerArgs) -> anyhow::Result<Location> {
    match &args.tokenizer {
        Some(given) => locate("--tokenizer", given, "--weights", args.weights.as_deref(), Kind::Tokenizer),
        None => locate("--tokenizer", DEFAULT_MODEL, "--weights", None, Kind::Tokenizer),
    }
}

/// The transformer.
pub fn transformer(args: &ModelArgs) -> anyhow::Result<Location> {
    let given = args.model.as_deref().unwrap_or(DEFAULT_MODEL);
    locate("--model", given, "--weights", args.weights.as_deref(), Kind::Transformer)
}

/// The tokenizer that goes with a transformer: the one named, else the one in the transformer's directory.
pub fn tokenizer_of(model: &Location, args: &PairedTokenizerArgs) -> anyhow::Result<Location> {
    if let Some(given) = &args.tokenizer {
        let weights = args.tokenizer_weights.as_deref();
        return locate("--tokenizer", given, "--tokenizer-weights", weights, Kind::Tokenizer);
    }
    let inside = match model {
        Location::Directory(dir) => dir.join("tokenizer"),
        Location::Files { config, .. } => {
            let message = format!("`{}` does not say which tokenizer made its codes", config.display());
            return Err(Failure::new(message)
                .hint("name it: `--tokenizer DIR`, or `--tokenizer CONFIG --tokenizer-weights FILE`")
                .into());
        }
    };
    if inside.join(CONFIG).is_file() {
        return Ok(Location::Directory(inside));
    }
    Err(Failure::new(format!("there is no tokenizer in `{}`", inside.display()))
        .hint("a model's directory holds its tokenizer as `tokenizer/`; or name one with `--tokenizer`")
        .into())
}

fn locate(
    flag: &str,
    given: &str,
    weights_flag: &str,
    weights: Option<&Path>,
    kind: Kind,
) -> anyhow::Result<Location> {
    let path = Path::new(given);
    if path.is_dir() {
        return in_directory(flag, path, weights, kind);
    }
    if path.is_file() {
        return config_file(flag, path, weights_flag, weights);
    }
    match find_shipped(given) {
        Some(dir) => in_directory(flag, &dir, weights, kind),
        None => Err(unknown(flag, given).into()),
    }
}

fn in_directory(flag: &str, dir: &Path, weights: Option<&Path>, kind: Kind) -> anyhow::Result<Location> {
    let config = dir.join(CONFIG);
    if !config.is_file() {
        let message = format!("`{flag} {}`: the directory holds no `{CONFIG}`", dir.display());
        return Err(Failure::new(message)
            .hint("a model's directory holds `config.yaml` and `weights.safetensors`")
            .hint("a published checkpoint goes with its config: CONFIG.yaml and the weights as a file")
            .into());
    }
    let found = if is_transformer(&config)? { Kind::Transformer } else { Kind::Tokenizer };
    match (kind, found) {
        (Kind::Tokenizer, Kind::Transformer) => in_directory(flag, &dir.join("tokenizer"), weights, kind),
        (Kind::Transformer, Kind::Tokenizer) => {
            let message = format!("`{flag} {}` is a tokenizer, not a transformer", dir.display());
            Err(Failure::new(message)
                .hint("give the transformer's directory, for example a run of `gen train-ar`")
                .into())
        }
        _ => Ok(match weights {
            Some(weights) => Location::Files { config, weights: weights.to_owned() },
            None => Location::Directory(dir.to_owned()),
        }),
    }
}

fn is_transformer(config: &Path) -> anyhow::Result<bool> {
    let document = Document::read(config)?.to_json()?;
    Ok(document.get("type").and_then(|t| t.as_str()) == Some("gpt"))
}

fn config_file(
    flag: &str,
    config: &Path,
    weights_flag: &str,
    weights: Option<&Path>,
) -> anyhow::Result<Location> {
    if let Some(weights) = weights {
        return Ok(Location::Files { config: config.to_owned(), weights: weights.to_owned() });
    }
    let shown = config.display();
    let failure = match is_text(config) {
        true => Failure::new(format!("`{flag} {shown}` is a config, and its weights are not given"))
            .hint(format!("add `{weights_flag} FILE`")),
        false => Failure::new(format!("`{flag} {shown}` is not a config"))
            .hint(format!("if it is a checkpoint: `{flag} CONFIG.yaml {weights_flag} {shown}`")),
    };
    Err(failure.into())
}

fn is_text(path: &Path) -> bool {
    use std::io::Read;
    let mut head = vec![];
    let read = base::files::open_regular(path).and_then(|f| f.take(4096).read_to_end(&mut head));
    read.is_ok() && !head.contains(&0)
}

/// The places that shipped models are looked for, first match wins.
pub fn search_path() -> Vec<PathBuf> {
    let named = std::env::var_os("GEN_MODELS").map(PathBuf::from);
    let exe = std::env::current_exe().ok().and_then(|e| e.canonicalize().ok());
    let installed = exe.as_deref().and_then(Path::parent).map(|bin| bin.join("../share/gen/models"));
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    [named, installed, Some(checkout)].into_iter().flatten().collect()
}

/// Names of all models that are there.
pub fn shipped() -> Vec<String> {
    let mut names: Vec<String> = search_path()
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| entry.path().join(CONFIG).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn find_shipped(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|dir| dir.join(name)).find(|dir| dir.join(CONFIG).is_file())
}

fn unknown(flag: &str, given: &str) -> Failure {
    let names = shipped();
    let failure = Failure::new(format!("`{flag} {given}` is no directory, no config, and no shipped model"));
    let near = nearest(given, names.iter().map(String::as_str), 1);
    if let Some(name) = near.first() {
        return failure.hint(format!("did you mean `{name}`?"));
    }
    let known = match names.is_empty() {
        true => "none is here; `GEN_MODELS` names the folder that holds them".to_owned(),
        false => format!("shipped models: {}", names.join(", ")),
    };
    failure.hint(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(root: &Path, name: &str, config: &str) -> PathBuf {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(CONFIG), config).unwrap();
        dir
    }

    fn named(tokenizer: &Path, weights: Option<&Path>) -> TokenizerArgs {
        TokenizerArgs {
            tokenizer: Some(tokenizer.display().to_string()),
            weights: weights.map(Path::to_owned),
        }
    }

    #[test]
    fn a_transformers_directory_stands_for_its_tokenizer_where_one_is_wanted() {
        let root = tempfile::tempdir().unwrap();
        let model = directory(root.path(), "m", "type: gpt");
        let inside = directory(&model, "tokenizer", "type: gigatok");
        let expected = Location::Directory(inside.clone());
        assert_eq!(tokenizer(&named(&model, None)).unwrap(), expected);
        assert_eq!(tokenizer(&named(&inside, None)).unwrap(), expected);
        let none = PairedTokenizerArgs { tokenizer: None, tokenizer_weights: None };
        assert_eq!(tokenizer_of(&Location::Directory(model), &none).unwrap(), expected);
        let args = ModelArgs { model: Some(inside.display().to_string()), weights: None };
        assert!(transformer(&args).unwrap_err().to_string().contains("is a tokenizer"));
    }

    #[test]
    fn a_config_needs_its_weights_and_a_checkpoint_needs_its_config() {
        let root = tempfile::tempdir().unwrap();
        let config = directory(root.path(), "m", "type: gigatok").join(CONFIG);
        let weights = root.path().join("w.pt");
        std::fs::write(&weights, b"PK\x03\x04\0\0").unwrap();
        let found = tokenizer(&named(&config, Some(&weights))).unwrap();
        assert_eq!(found, Location::Files { config: config.clone(), weights: weights.clone() });
        let error = tokenizer(&named(&config, None)).unwrap_err();
        assert!(crate::failure::render(&error).contains("add `--weights FILE`"));
        let error = tokenizer(&named(&weights, None)).unwrap_err();
        assert!(crate::failure::render(&error).contains("CONFIG.yaml --weights"));
    }
}
