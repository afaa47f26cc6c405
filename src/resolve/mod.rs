//! Resolution of command-line arguments.

pub mod device;
mod tokenizer;

pub use tokenizer::open_tokenizer;
