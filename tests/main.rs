//! Tests of the whole program, one binary; those of single crates are beside them, goldens in
//! `goldens/`.

mod architecture;
mod benchmarks;
mod captions;
mod cases;
mod cli;
mod common;
mod earlier;
mod eval;
mod extract;
mod features;
mod files;
mod help;
mod imports;
mod launch;
mod manifests;
mod operations;
mod pages;
mod probe;
mod sample;
mod serve;
mod text;
mod train;
mod verbs;
