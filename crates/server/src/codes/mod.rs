//! The tokenizer as a service: images ⇄ codes.

mod binary;
pub mod decode;
pub mod encode;
mod form;
