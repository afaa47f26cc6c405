//! Recipes: everything that decides a training run, as `configs/train/*.yaml` hold it.

mod image_data;
mod intervals;
mod optimization;
mod range;

use std::path::{Path, PathBuf};

use base::config::Document;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use image_data::{Crop, ImageData};
pub use intervals::Intervals;
pub use optimization::{OnNonfinite, Optimization};
pub(crate) use range::at_least_zero;

use crate::cost::RunCost;
use crate::{Error, Result};

/// The keys that every recipe has, see [`CommonKeys`].
#[derive(Debug, Clone, Copy)]
pub struct Common<'a> {
    /// Seed of everything random.
    pub seed: u64,
    /// Steps, batches, optimizer.
    pub optimization: &'a Optimization,
    /// Intervals of logging, validating and saving.
    pub every: Intervals,
    /// Checkpoint or model directory with the first weights.
    pub init_from: Option<&'a Path>,
    /// Parameters of the model that are not trained, by patterns as in [`weights::matches`].
    pub freeze: &'a [String],
}

/// Access to the keys that all recipes share. The `recipe!` macro implements it.
pub trait CommonKeys {
    /// The shared keys.
    fn common(&self) -> Common<'_>;
}

/// Everything that decides a run; as YAML it is itself valid input.
pub trait Recipe: Serialize + CommonKeys {
    /// Cost of the run: arithmetic, time and memory.
    ///
    /// # Errors
    /// Returns an error if a network cannot be described, e.g. because its configuration is
    /// missing.
    fn cost(&self) -> Result<RunCost>;

    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// Returns an error that names the settings.
    fn check(&self) -> Result<()> {
        self.common().optimization.check()
    }

    /// The training images and their side in pixels, for a recipe that reads images.
    fn images(&self) -> Option<(&ImageData, i64)> {
        None
    }

    /// Whether `recompute` would save memory and is off.
    fn can_recompute(&self) -> bool {
        false
    }

    /// Every file and folder named in the recipe.
    fn paths(&mut self) -> Vec<&mut PathBuf>;
}

/// Declares a recipe: a struct with the shared keys around its own, and its [`CommonKeys`].
///
/// A macro rather than a generic struct with `#[serde(flatten)]`, which does not work together with
/// `deny_unknown_fields` and loses the place of an error. The order of the fields is the order of
/// the keys in `recipe.yaml`: `seed`, the `model` group, `init_from`, `freeze`, the `data` group,
/// `optimization`, `every`.
macro_rules! recipe {
    (
        $(#[$meta:meta])*
        $name:ident {
            model { $($(#[$model_meta:meta])* $model:ident: $model_type:ty,)+ }
            data { $($(#[$data_meta:meta])* $data:ident: $data_type:ty,)+ }
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Seed of the first weights, the order of the data, augmentation and everything else
            /// random.
            pub seed: u64,
            $($(#[$model_meta])* pub $model: $model_type,)+
            /// Checkpoint or model directory with the first weights (`--init-from`).
            #[serde(default)]
            pub init_from: Option<std::path::PathBuf>,
            /// Parameters that are not trained: names or prefixes of names in whole parts; `*`
            /// matches any one part.
            #[serde(default)]
            pub freeze: Vec<String>,
            $($(#[$data_meta])* pub $data: $data_type,)+
            /// Steps, batches, optimizer, learning rate.
            pub optimization: $crate::recipe::Optimization,
            /// Intervals of logging, validating and saving, in steps.
            pub every: $crate::recipe::Intervals,
        }

        impl $crate::recipe::CommonKeys for $name {
            fn common(&self) -> $crate::recipe::Common<'_> {
                $crate::recipe::Common {
                    seed: self.seed,
                    optimization: &self.optimization,
                    every: self.every,
                    init_from: self.init_from.as_deref(),
                    freeze: &self.freeze,
                }
            }
        }
    };
}

pub(crate) use recipe;

/// Reads a recipe with `key=value` changes, which may also name keys that the file leaves at their
/// defaults. Relative paths in the file start at its folder, those in changes at the working
/// directory; the result holds absolute ones.
pub(crate) fn with_overrides<T: DeserializeOwned + Recipe>(
    document: &Document,
    changes: &[String],
) -> Result<T> {
    let mut complete: T = document.typed()?;
    let origin = Path::new(&document.origin);
    if let (true, Some(folder)) = (origin.is_file(), origin.parent()) {
        complete.paths().into_iter().for_each(|path| *path = folder.join(&*path));
    }
    let mut complete = Document::complete(&document.origin, &complete)?;
    complete.set(changes)?;
    let mut recipe: T = complete.typed()?;
    for path in recipe.paths() {
        *path = std::path::absolute(&*path).map_err(Error::file("find", path))?;
    }
    Ok(recipe)
}
