//! T5 (Raffel et al., arXiv 1910.10683), version 1.1: the text encoder of LlamaGen's text-to-image
//! models, and of small models that train one along.
//!
//! Weights: `google/flan-t5-{small,base,large,xl,xxl}` and `google/t5-v1_1-*` in Hugging Face's
//! layout, safetensors or `.bin`, in one file or in shards; the decoder of a whole model is left
//! out.

mod caption;
mod condition;
mod config;
mod description;
mod encoder;
mod html;
mod learn;
mod model;
mod spiece;
mod text;

pub use caption::{clean_caption, clean_once};
pub use condition::{TextFeatures, left_pad};
pub use config::T5Config;
pub use description::{TEXT_FILE, TEXT_FOLDER, TEXT_PREFIX, TextDescription, WhichEncoder};
pub use encoder::{EncoderFiles, TextEncoder, prepare};
pub use learn::learn_tokenizer;
pub use model::T5Encoder;
pub use text::{TextTokenizer, Tokens};
