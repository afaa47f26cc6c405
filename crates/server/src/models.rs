//! The models that are served, by name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use engine::Engine;

use crate::clock::unix_seconds;

/// A model and its engine.
pub struct Served {
    /// Name towards clients: no path of this machine.
    pub id: String,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Its engine.
    pub engine: Engine,
}

/// Two models of one name.
#[derive(Debug, thiserror::Error)]
#[error("two models are called `{0}`")]
pub struct SameName(pub String);

/// All models, in the order in which they were named; the first is the default.
pub struct Models {
    list: RwLock<Vec<Arc<Served>>>,
    /// Other names: name → id.
    aliases: BTreeMap<String, String>,
}

impl Models {
    /// No models yet.
    pub fn new(aliases: BTreeMap<String, String>) -> Self {
        Models { list: RwLock::default(), aliases }
    }

    /// Adds a model.
    ///
    /// # Errors
    /// Returns an error if another one has its name.
    pub fn add(&self, engine: Engine) -> Result<Arc<Served>, SameName> {
        let id = public_name(&engine.info().id);
        if self.all().iter().any(|served| served.id == id) {
            return Err(SameName(id));
        }
        let name = id.clone();
        engine.set_log(move |text| tracing::warn!(model = name, "{text}"));
        let served = Arc::new(Served { id, created: unix_seconds(), engine });
        self.list.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&served));
        Ok(served)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Served>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The model of a name or of another name for it; the default without one.
    pub fn find(&self, name: Option<&str>) -> Option<Arc<Served>> {
        let all = self.all();
        let Some(name) = name else { return all.first().cloned() };
        let id = self.aliases.get(name).map_or(name, String::as_str);
        all.into_iter().find(|served| served.id == id)
    }

    /// Names that a request may give.
    pub fn names(&self) -> Vec<String> {
        self.all().iter().map(|served| served.id.clone()).chain(self.aliases.keys().cloned()).collect()
    }

    /// Other names of a model.
    pub fn aliases_of(&self, id: &str) -> Vec<String> {
        self.aliases.iter().filter(|(_, of)| *of == id).map(|(name, _)| name.clone()).collect()
    }
}

/// The last part of a path, such as `runs/ar`; a bundled model's name as it is.
pub fn public_name(given: &str) -> String {
    let path = Path::new(given);
    let name =
        if path.extension().is_some_and(|e| e == "yaml") { path.file_stem() } else { path.file_name() };
    name.map_or_else(|| given.to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_no_paths() {
        for (given, name) in [
            ("imagenet56-64", "imagenet56-64"),
            ("/home/me/runs/ar", "ar"),
            ("runs/ar/", "ar"),
            ("configs/ar/gigatok-gpt-b.yaml", "gigatok-gpt-b"),
        ] {
            assert_eq!(public_name(given), name);
        }
    }
}
