//! Origin of a network's weights: a file, or random numbers.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base::Vars;
use serde::{Deserialize, Serialize};
use weights::{Checkpoint, Format, KeyMap, TensorSource, Want};

use crate::files::{PublicFile, sha256};
use crate::random::{RandomWeights, Range};
use crate::{Error, Result};

/// Weights of a frozen network. In configurations: a path, or `random:SEED`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum WeightSource {
    /// A public weight file.
    File(PathBuf),
    /// No file: numbers that are a function of the tensors' names and a seed. Features then have
    /// the right shapes and nothing else; their id marks them as not comparable.
    Random {
        /// The seed.
        seed: u64,
    },
}

impl WeightSource {
    /// The file, where there is one.
    pub fn path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            WeightSource::File(path) => Some(path),
            WeightSource::Random { .. } => None,
        }
    }
}

impl From<String> for WeightSource {
    fn from(text: String) -> Self {
        let Ok(source) = text.parse();
        source
    }
}

impl From<WeightSource> for String {
    fn from(source: WeightSource) -> String {
        match source {
            WeightSource::File(path) => path.display().to_string(),
            WeightSource::Random { seed } => format!("random:{seed}"),
        }
    }
}

impl FromStr for WeightSource {
    type Err = Infallible;

    /// `random:SEED`, or a path.
    fn from_str(s: &str) -> std::result::Result<Self, Infallible> {
        let seed = s.strip_prefix("random:").and_then(|seed| seed.parse().ok());
        Ok(match seed {
            Some(seed) => WeightSource::Random { seed },
            None => WeightSource::File(s.into()),
        })
    }
}

/// Provenance of loaded weights.
#[derive(Debug, Clone)]
pub(crate) struct Provenance {
    /// SHA-256 of the file, or `random:SEED`.
    pub sha256: String,
    /// Whether it is the public file.
    pub comparable: bool,
}

/// Fills all of `vars` from a file through `map`, or at random within `range`. The values are
/// comparable only if the file is the one of [`crate::files::FILES`] called `public`; fitting
/// tensors may hold other values.
pub(crate) fn fill(
    network: &str,
    public: &str,
    vars: &Vars,
    from: &WeightSource,
    map: &KeyMap,
    range: Range,
) -> Result<Provenance> {
    match from {
        WeightSource::File(path) => {
            fill_from(network, vars, open(network, path)?.as_ref(), map)?;
            let sha256 = sha256(path)?;
            let comparable = PublicFile::named(public).is_ok_and(|file| file.recognises(&sha256));
            Ok(Provenance { sha256, comparable })
        }
        WeightSource::Random { seed } => {
            fill_from(network, vars, &RandomWeights::new(vars, *seed, range), &KeyMap::identity())?;
            Ok(Provenance { sha256: format!("random:{seed}"), comparable: false })
        }
    }
}

/// Fills all of `vars` from named tensors, strictly.
pub(crate) fn fill_from(network: &str, vars: &Vars, source: &dyn TensorSource, map: &KeyMap) -> Result<()> {
    weights::load(vars, source, map).map_err(|e| load_error(network, &source.origin().path, e))?;
    Ok(())
}

/// The tensors of a weight file.
fn open(network: &str, path: &Path) -> Result<Box<dyn TensorSource>> {
    let fail = |e| load_error(network, path, e);
    let file = Checkpoint::open(path).map_err(fail)?;
    if path.is_dir() || file.format() == Format::ShardedSafetensors {
        return Err(Error::Sharded { path: path.to_owned() });
    }
    file.source(Want::Auto).map_err(fail)
}

fn load_error(network: &str, path: &Path, source: weights::Error) -> Error {
    Error::Load { network: network.to_owned(), path: path.to_owned(), source: Box::new(source) }
}
