//! The `text` part of a text-conditional transformer's recipe.

use std::path::PathBuf;

use backbones::text_encoder::T5Config;
use base::Precision;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Path from an image's caption to its features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextRecipe {
    /// Source of the features.
    pub encoder: EncoderRecipe,
    /// Clean captions first, as published.
    #[serde(default = "yes")]
    pub clean: bool,
    /// Captions for images that have a class and no caption, one at random each time: `{}` is the
    /// class's name, `{a}` the name with its article.
    #[serde(default)]
    pub templates: Vec<String>,
    /// Probability of using only a caption's first sentence (0.3 in LlamaGen's second stage).
    #[serde(default)]
    pub first_sentence: f64,
}

fn yes() -> bool {
    true
}

/// Source of text features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum EncoderRecipe {
    /// A frozen T5, run on every batch.
    Frozen {
        /// Its folder in Hugging Face's layout.
        folder: Option<PathBuf>,
        /// Dtype of its weights and activations.
        #[serde(default = "bf16")]
        precision: Precision,
    },
    /// Stored features from `gen extract --text`.
    Stored {
        /// Folders that are searched for each caption.
        features: Vec<PathBuf>,
    },
    /// A small T5 that is trained jointly, with a byte-level BPE tokenizer that is first learned
    /// from the captions.
    Joint {
        /// Entries of the vocabulary, at most.
        vocab_size: usize,
        /// Blocks.
        layers: i64,
        /// Heads.
        heads: i64,
        /// Width of a head.
        head_width: i64,
        /// Width of the feed-forward.
        feed_forward_width: i64,
    },
}

fn bf16() -> Precision {
    Precision::Bf16
}

impl TextRecipe {
    /// Refuses numbers out of their range.
    pub(crate) fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.first_sentence) {
            let found = self.first_sentence;
            return Err(Error::Recipe(format!("text.first_sentence must be in [0, 1], found {found}")));
        }
        if let Some(bad) = self.templates.iter().find(|t| !t.contains("{}") && !t.contains("{a}")) {
            let message = format!("text.templates: {bad:?} has neither {{}} nor {{a}} for the class's name");
            return Err(Error::Recipe(message));
        }
        let EncoderRecipe::Joint { layers, heads, head_width, feed_forward_width, .. } = self.encoder else {
            return Ok(());
        };
        let sizes = [
            ("layers", layers),
            ("heads", heads),
            ("head_width", head_width),
            ("feed_forward_width", feed_forward_width),
        ];
        match sizes.iter().find(|(_, size)| *size < 1) {
            None => Ok(()),
            Some((key, found)) => {
                Err(Error::Recipe(format!("text.encoder.{key} must be at least 1, found {found}")))
            }
        }
    }

    /// The paths given.
    pub(crate) fn paths(&mut self) -> Vec<&mut PathBuf> {
        match &mut self.encoder {
            EncoderRecipe::Frozen { folder, .. } => folder.iter_mut().collect(),
            EncoderRecipe::Stored { features } => features.iter_mut().collect(),
            EncoderRecipe::Joint { .. } => vec![],
        }
    }
}

/// The small T5 of a recipe, for features of this width.
pub(super) fn joint_config(encoder: &EncoderRecipe, vocab_size: i64, width: i64) -> Option<T5Config> {
    let EncoderRecipe::Joint { layers, heads, head_width, feed_forward_width, .. } = *encoder else {
        return None;
    };
    let published = T5Config::named("small").expect("a published size");
    Some(T5Config {
        vocab_size,
        d_model: width,
        d_kv: head_width,
        d_ff: feed_forward_width,
        num_layers: layers,
        num_heads: heads,
        ..published
    })
}
