//! Tasks: things that can be trained.

mod ar;
mod codes;
mod features;
mod images;
mod text;
mod tokenizer;

pub use ar::{ArRecipe, ArTask};
pub use codes::ArData;
pub use features::{FeaturesModel, FeaturesRecipe, FeaturesTask};
pub use images::images_per_second;
pub use text::{EncoderRecipe, TextRecipe, first_sentence};
pub use tokenizer::{
    Adversarial, Auxiliary, Classifier, DiscriminatorOptimization, FeatureDistance, Perceptual, Semantic,
    Teacher, TokenizerLosses, TokenizerRecipe, TokenizerTask,
};
