//! Folders of shards that belong to one run.

use std::path::Path;

use base::resume::{Claim, ClaimError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Dataset, Error, Result, content_fingerprint, fingerprint};

/// File of a run's settings.
pub(crate) const PLAN: &str = "plan.json";

/// Name of a setting in messages, by its key.
pub(crate) type Name = fn(key: &str) -> &'static str;

/// Fingerprint of the images whose codes `root` is for: of their content, or of names and labels
/// alone if a version that knew no other began it with these images.
pub fn fingerprint_for(root: &Path, images: &dyn Dataset) -> String {
    let plan =
        std::fs::read(root.join(PLAN)).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let begun_with = plan.as_ref().and_then(|plan| plan["data_fingerprint"].as_str());
    let earlier = fingerprint(images);
    if begun_with == Some(earlier.as_str()) { earlier } else { content_fingerprint(images) }
}

/// Claims `root` for a run with the settings `plan`, where runs may differ in the keys `ignored`.
///
/// # Errors
/// Returns an error if a file cannot be read or written, and the one that `refusal` makes of the
/// differences if another run, or something else, uses the folder.
pub(crate) fn claim<T: Serialize + DeserializeOwned + PartialEq>(
    root: &Path,
    plan: &T,
    ignored: &'static [&'static str],
    name: Name,
    refusal: impl Fn(String) -> Error,
) -> Result<()> {
    let claim = Claim::new(root.join(PLAN), plan).ignoring(ignored);
    match claim.resumes() {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(ClaimError::Differs { keys, .. }) => return Err(refusal(names(&keys, name))),
        Err(other) => return Err(other.into()),
    }
    if let Some(entry) = std::fs::read_dir(root).map_err(Error::read(root))?.next() {
        let found = entry.map_err(Error::read(root))?.file_name();
        return Err(refusal(format!("there is no `{PLAN}`, but `{}`", found.to_string_lossy())));
    }
    Ok(claim.write()?)
}

/// Names of the outer keys, each once.
fn names(keys: &[String], name: Name) -> String {
    let mut names: Vec<&str> = vec![];
    for key in keys {
        let name = name(key.split('.').next().unwrap_or(key));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

impl From<ClaimError> for Error {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Read { path, source } => Error::Read { path, source },
            ClaimError::Write { path, source } => Error::Write { path, source },
            ClaimError::Malformed { path, message } => {
                Error::malformed(&path, format!("not a plan: {message}"))
            }
            ClaimError::Differs { path, keys } => {
                Error::malformed(&path, format!("settings of another run: {}", keys.join(", ")))
            }
        }
    }
}
