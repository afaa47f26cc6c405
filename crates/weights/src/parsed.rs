//! Contents of a checkpoint file, as each format's reader finds them.

use serde_json::{Map, Value as Json};

use crate::source::{Blob, Entry};

/// Layout of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One safetensors file.
    Safetensors,
    /// Several safetensors files with an index.
    ShardedSafetensors,
    /// Several safetensors files with slices of tensors.
    SlicedSafetensors,
    /// Several files of `torch.save` with an index.
    ShardedTorch,
    /// `torch.save`, as since PyTorch 1.6.
    TorchZip,
    /// `torch.save`, as before PyTorch 1.6.
    TorchLegacy,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::Safetensors => "safetensors",
            Format::ShardedSafetensors => "sharded safetensors",
            Format::SlicedSafetensors => "safetensors in slices",
            Format::ShardedTorch => "sharded PyTorch",
            Format::TorchZip => "PyTorch (zip)",
            Format::TorchLegacy => "PyTorch (before 1.6)",
        })
    }
}

/// Named tensors and their places.
pub(crate) type Entries = Vec<(String, Entry)>;

/// Contents of a file.
pub(crate) struct Parsed {
    pub format: Format,
    pub blobs: Vec<Blob>,
    pub sections: Vec<(Option<String>, Entries)>,
    pub metadata: Map<String, Json>,
    /// Other values, and the reason why they cannot be shown.
    pub not_shown: Vec<(String, String)>,
}
