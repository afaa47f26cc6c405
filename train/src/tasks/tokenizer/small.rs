//! Small version of a recipe: the same options with narrow, random networks and one picture a step,
//! to try the recipe without its data and its files.

use std::path::Path;

use base::config::Document;
use serde_json::Value;

use super::TokenizerRecipe;
use crate::Result;

impl TokenizerRecipe {
    /// A small version of the recipe for the pictures in a folder. The image size stays, since
    /// discriminators depend on it.
    ///
    /// # Errors
    /// Returns an error if the recipe cannot be written or read.
    pub fn small(&self, pictures: &Path) -> Result<TokenizerRecipe> {
        let mut recipe = self.clone();
        (recipe.init_from, recipe.data.validation) = (None, None);
        recipe.data.train = Some(pictures.to_owned());
        recipe.freeze.retain(|pattern| pattern == "vision"); // others may name removed layers
        let mut document = Document::complete("the recipe, small", &recipe)?;
        document.set(&changes(&document.to_json()?))?;
        Ok(document.typed()?)
    }
}

/// Keys of frozen networks' files.
const WEIGHTS: [&str; 6] = [
    "init.vision",
    "losses.perceptual.trunk",
    "losses.perceptual.heads",
    "losses.perceptual.weights",
    "losses.semantic.teacher.weights",
    "losses.adversarial.discriminator.weights",
];

/// Changes that make a recipe small, for the keys that it has.
fn changes(recipe: &Value) -> Vec<String> {
    let at = |pointer: &str| recipe.pointer(pointer).filter(|v| !v.is_null());
    let groups = at("/model/cnn/norm_groups").and_then(Value::as_i64).unwrap_or(32);
    let mut all = vec![
        format!("model.cnn.channels={groups}"),
        "model.cnn.res_blocks=1".to_owned(),
        "model.quantizer.codebook_size=64".to_owned(),
        "optimization.batch_size=1".to_owned(),
        "optimization.micro_batches=1".to_owned(),
        "optimization.workers=1".to_owned(),
    ];
    let aligned = at("/model/alignment/layer").and_then(Value::as_i64).unwrap_or(1);
    if at("/model/encoder").is_some() {
        all.push("model.encoder={width: 32, layers: 1, heads: 2}".to_owned());
        all.push(format!("model.decoder={{width: 32, layers: {aligned}, heads: 2}}"));
    }
    if at("/losses/semantic/teacher/type").is_some_and(|t| t == "dinov2") {
        all.push("losses.semantic.teacher={type: dinov2, size: s, weights: random:0}".to_owned());
        all.push("model.alignment.width=384".to_owned());
    }
    for key in WEIGHTS {
        let given = recipe.pointer(&format!("/{}", key.replace('.', "/")));
        if given.is_some_and(|v| v.is_null() || v.is_string()) {
            all.push(format!("{key}=random:0"));
        }
    }
    if at("/losses/adversarial/discriminator/channels").is_some() {
        all.push("losses.adversarial.discriminator.channels=8".to_owned());
    }
    all
}
