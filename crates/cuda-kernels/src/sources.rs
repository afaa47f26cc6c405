//! The kernels' sources, and the macros that they are compiled for.

use libtorch_ext::cuda_kernel::{Arg, KernelLauncher, KernelSource};

use crate::{Format, Result};

const GEMV: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/gemv.cu"));
const ATTENTION: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/attention.cu"));
const SAMPLE: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/sample.cu"));
const EMBED: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/embed.cu"));
const GROUP_NORM: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/group_norm.cu"));
const ROWS: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/rows.cu"));

/// Threads of a block, on which grid sizes depend.
pub(crate) const GEMV_THREADS: i64 = 128;
pub(crate) const GROUP_NORM_THREADS: i64 = 256;

/// Products of `rows` rows.
pub(crate) fn gemv(weight: Format, rows: i64) -> KernelSource {
    let defines = vec![("WEIGHT", weight.name().to_owned()), ("ROWS", rows.to_string())];
    // Few threads per block, so that small weights occupy a whole GPU.
    KernelSource { name: "gemv.cu", text: GEMV, threads: GEMV_THREADS, defines }
}

/// Attention of heads of `head` channels over a cache of `length` positions.
pub(crate) fn attention(cache: Format, head: i64, length: i64, single: bool) -> KernelSource {
    let activation = if single { "float" } else { "bf16" };
    let defines = vec![
        ("HEAD", head.to_string()),
        ("PADDED_HEAD", padded_head_dim(head, cache).to_string()),
        ("CACHED", cache.name().to_owned()),
        ("ACTIVATION", activation.to_owned()),
        ("LENGTH", length.to_string()),
    ];
    KernelSource { name: "attention.cu", text: ATTENTION, threads: 128, defines }
}

/// Sampling from a vocabulary of `codes`.
pub(crate) fn sample(codes: i64) -> KernelSource {
    KernelSource {
        name: "sample.cu",
        text: SAMPLE,
        threads: 1024,
        defines: vec![("CODES", codes.to_string())],
    }
}

/// Embedding with fp32 tables if `single`, else bf16.
pub(crate) fn embed(single: bool) -> KernelSource {
    let table = if single { "float" } else { "bf16" };
    KernelSource { name: "embed.cu", text: EMBED, threads: 256, defines: vec![("TABLE", table.to_owned())] }
}

/// Group norm of maps with `channels` channels.
pub(crate) fn group_norm(channels: i64, groups: i64) -> KernelSource {
    let defines = vec![("CHANNELS", channels.to_string()), ("GROUPS", groups.to_string())];
    KernelSource { name: "group_norm.cu", text: GROUP_NORM, threads: GROUP_NORM_THREADS, defines }
}

/// Operations between the products of many rows.
fn rows() -> KernelSource {
    KernelSource { name: "rows.cu", text: ROWS, threads: 256, defines: vec![] }
}

/// Runs a kernel of `rows.cu` over `rows` rows.
pub(crate) fn launch_rows(
    launcher: &dyn KernelLauncher,
    kernel: &'static str,
    rows: i64,
    args: &[Arg],
) -> Result<()> {
    launcher.launch(&self::rows(), kernel, [rows, 1], args)
}

/// Channels of a head in the cache, padded to whole 16-byte chunks.
pub(crate) fn padded_head_dim(head: i64, cache: Format) -> i64 {
    (head + cache.chunk() - 1) / cache.chunk() * cache.chunk()
}

/// All sources, for heads of 64 and of 100 channels, to compile in a test.
pub fn all() -> Vec<KernelSource> {
    let mut sources = vec![
        rows(),
        embed(true),
        embed(false),
        sample(16_384),
        sample(1000),
        group_norm(128, 32),
        group_norm(512, 32),
    ];
    for format in [Format::Bf16, Format::Int8] {
        sources.extend([1, 2, 8].map(|r| gemv(format, r)));
        for head in [64, 100] {
            sources.extend([true, false].map(|single| attention(format, head, 257, single)));
        }
    }
    sources
}
