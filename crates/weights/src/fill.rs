//! Filling a model from one checkpoint, with a word on which released model the file looks like
//! when it does not fit.

use std::path::Path;

use base::Vars;

use crate::load::{Signature, likely, load};
use crate::{Checkpoint, Error, KeyMap, Result, TensorSource, Want};

/// A model directory's configuration.
pub const CONFIG_FILE: &str = "config.yaml";
/// A model directory's weights.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

/// The file that keeps `dir` from being a model directory, if one does.
pub fn missing_from(dir: &Path) -> Option<&'static str> {
    [CONFIG_FILE, WEIGHTS_FILE].into_iter().find(|name| !dir.join(name).is_file())
}

/// Fills `vars` from the section of `checkpoint` that [`Want::Auto`] takes, which is returned.
/// `known` are the released models, asked for only if the file does not fit.
///
/// # Errors
/// Returns an error if the file cannot be read, or its tensors are not exactly those of `vars`
/// after `map`.
pub fn fill(
    vars: &Vars,
    checkpoint: &Path,
    map: &KeyMap,
    known: impl FnOnce() -> Vec<Signature>,
) -> Result<Box<dyn TensorSource>> {
    let file = Checkpoint::open(checkpoint)?;
    let source = file.source(Want::Auto)?;
    load(vars, source.as_ref(), map).map_err(|e| with_likely(e, &file, source.as_ref(), known))?;
    Ok(source)
}

/// The error with a word on which of the `known` models the file looks like, and on weights
/// elsewhere in it.
pub(crate) fn with_likely(
    error: Error,
    file: &Checkpoint,
    source: &dyn TensorSource,
    known: impl FnOnce() -> Vec<Signature>,
) -> Error {
    let known = known();
    let likely = likely(source, &known).into_iter().map(Signature::sentence);
    error.with_likely(likely.chain(file.elsewhere(source.origin().section.as_deref())))
}
