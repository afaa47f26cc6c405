//! Decoding on a GPU.

use clap::Args;

/// Options of decoding on a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Computing")]
pub struct GpuOptions {
    /// Decode with custom CUDA kernels instead of libtorch's operations, in bf16 (int8 always uses
    /// them); also runs a bf16 tokenizer channels-last, with custom group norms
    #[arg(long)]
    pub gpu_kernels: bool,

    /// Use the custom kernels with an 8-bit KV cache: half its memory and bandwidth
    #[arg(long)]
    pub int8_cache: bool,
}
