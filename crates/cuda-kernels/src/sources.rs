//! The kernels' sources and what they are compiled for.

use libtorch_ext::cuda_kernel::{Arg, Launch, Program};

use crate::{Format, Result};

const PRODUCT: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/product.cu"));
const ATTENTION: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/attention.cu"));
const DRAW: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/draw.cu"));
const EMBED: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/embed.cu"));
const GROUP_NORM: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/group_norm.cu"));
const ROWS: &str = concat!(include_str!("../cuda/common.cuh"), include_str!("../cuda/rows.cu"));

/// Threads of a block, from which others are counted.
pub(crate) const PRODUCT_THREADS: i64 = 128;
pub(crate) const GROUP_NORM_THREADS: i64 = 256;

/// Products of `rows` rows.
pub(crate) fn product(weight: Format, rows: i64) -> Program {
    let defines = vec![("WEIGHT", weight.name().to_owned()), ("ROWS", rows.to_string())];
    // Few threads a block, so that small weights occupy all of a GPU.
    Program { name: "product.cu", source: PRODUCT, threads: PRODUCT_THREADS, defines }
}

/// Attention of heads of `head` channels over a cache of `length` positions.
pub(crate) fn attention(cache: Format, head: i64, length: i64, single: bool) -> Program {
    let activation = if single { "float" } else { "bf16" };
    let defines = vec![
        ("HEAD", head.to_string()),
        ("STORED", stored_width(head, cache).to_string()),
        ("CACHED", cache.name().to_owned()),
        ("ACTIVATION", activation.to_owned()),
        ("LENGTH", length.to_string()),
    ];
    Program { name: "attention.cu", source: ATTENTION, threads: 128, defines }
}

/// Drawing one of so many codes.
pub(crate) fn draw(codes: i64) -> Program {
    Program { name: "draw.cu", source: DRAW, threads: 1024, defines: vec![("CODES", codes.to_string())] }
}

/// Embedding by tables of fp32, else of bf16.
pub(crate) fn embed(single: bool) -> Program {
    let table = if single { "float" } else { "bf16" };
    Program { name: "embed.cu", source: EMBED, threads: 256, defines: vec![("TABLE", table.to_owned())] }
}

/// Group norm of maps with so many channels.
pub(crate) fn group_norm(channels: i64, groups: i64) -> Program {
    let defines = vec![("CHANNELS", channels.to_string()), ("GROUPS", groups.to_string())];
    Program { name: "group_norm.cu", source: GROUP_NORM, threads: GROUP_NORM_THREADS, defines }
}

/// What stands between the products of many rows.
fn rows() -> Program {
    Program { name: "rows.cu", source: ROWS, threads: 256, defines: vec![] }
}

/// Runs a kernel of `rows.cu` over `rows` rows.
pub(crate) fn launch_rows(engine: &dyn Launch, kernel: &'static str, rows: i64, args: &[Arg]) -> Result<()> {
    engine.launch(&self::rows(), kernel, [rows, 1], args)
}

/// Channels of a head in the cache, as whole chunks.
pub(crate) fn stored_width(head: i64, cache: Format) -> i64 {
    (head + cache.chunk() - 1) / cache.chunk() * cache.chunk()
}

/// All sources, for heads of 64 and of 100 channels, to be compiled as a test.
pub fn all() -> Vec<Program> {
    let mut programs = vec![
        rows(),
        embed(true),
        embed(false),
        draw(16_384),
        draw(1000),
        group_norm(128, 32),
        group_norm(512, 32),
    ];
    for format in [Format::Bf16, Format::Int8] {
        programs.extend([1, 2, 8].map(|r| product(format, r)));
        for head in [64, 100] {
            programs.extend([true, false].map(|single| attention(format, head, 257, single)));
        }
    }
    programs
}
