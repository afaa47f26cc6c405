//! Networks that tell photographs from reconstructions.

mod patchgan;

pub use patchgan::{PatchGan, PatchGanConfig};
