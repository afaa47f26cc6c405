//! Images of models from files: locates and loads a transformer and its tokenizer, resolves
//! conditions, draws batches, and writes images with their provenance. A [`GenerateConfig`] is
//! resolved once; [`Generator::load`] loads its models, and [`Generator::run`] starts a run, which
//! makes images. Independent of the command line.

mod backend;
mod classes;
mod condition;
mod config;
mod error;
mod files;
mod generator;
mod hints;
pub mod install;
pub mod locate;
mod networks;
mod open;
pub mod output;
mod pair;
mod picture;
mod preview;
mod prompt_encoder;
mod prompt_features;
mod provenance;
pub mod rerender;
mod run;
mod target;

pub use backend::{check_cuda_graphs, check_gpu, decoder, pack_tokenizer};
pub use classes::classes_of;
pub use condition::{Condition, ConditionName, Prompt};
pub use config::{DrawConfig, GenerateConfig, ModelsConfig, TextConfig};
pub use error::{Error, Result};
pub use generator::Generator;
pub use locate::Location;
pub use networks::{Identity, Networks};
pub use pair::ModelPair;
pub use picture::Picture;
pub use preview::{Preview, preview};
pub use prompt_encoder::PromptEncoder;
pub use provenance::{GpuSettings, ModelId, Provenance, RunSettings, SHEET, has_sheet};
pub use run::{Run, SampledImage};
pub use target::{Order, Targets};
