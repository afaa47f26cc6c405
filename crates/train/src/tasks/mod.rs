//! What can be trained.

mod images;
mod tokenizer;

pub use tokenizer::{Adversarial, Auxiliary, FeatureDistance, TokenizerLosses, TokenizerRecipe, TokenizerTask};
