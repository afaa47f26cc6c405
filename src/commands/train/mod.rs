//! Verbs that train, and their shared part.

pub mod ar;
pub mod features;
mod run;
mod samples;
mod start;
pub mod tokenizer;
