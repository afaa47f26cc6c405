//! Checkpoint files in and out: PyTorch's `.pt` (zip and older layouts) and safetensors (one file
//! or shards), and an exact account of what matched when a model's variables are filled. Files are
//! mapped, so opening one reads its table of contents only, and each tensor is copied once. It
//! is independent of any model.

mod adopt;
mod checkpoint;
mod error;
mod fill;
mod fingerprint;
mod keymap;
mod load;
mod loaded;
mod origin;
mod parcel;
mod parse;
mod parsed;
mod pickle;
mod recognise;
mod released;
mod safetensors;
mod save;
mod save_torch;
mod shards;
mod sliced;
mod source;
mod torch_file;
mod torch_graph;
mod torch_objects;
mod torch_rebuild;
mod torch_tensor;

pub use adopt::adopt;
pub use checkpoint::{Checkpoint, Section, Want};
pub use error::{Error, LoadFailure, Mismatch};
pub use fill::{CONFIG_FILE, WEIGHTS_FILE, fill, missing_from};
pub use fingerprint::{fingerprint, fingerprint_source};
pub use keymap::{KeyMap, matches};
pub use load::{Dropped, LoadReport, Signature, likely, load};
pub use loaded::Loaded;
pub use origin::{Origin, Unsupported};
pub use parcel::Parcel;
pub use parsed::Format;
pub use released::signatures;
pub use save::{export_safetensors, named_tensors, save_safetensors, save_with_digest};
pub use save_torch::{export_torch, save_torch};
pub use sliced::{Slice, save_slices};
pub use source::{TensorInfo, TensorSource};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
