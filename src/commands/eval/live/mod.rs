//! Images that are made while they are scored: a model's, or a tokenizer's.

pub mod error;
pub mod generator;
pub mod reconstructions;
pub mod reconstructor;
