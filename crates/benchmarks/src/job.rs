//! A benchmark to run, as the arguments resolve it.

use std::path::PathBuf;

use crate::artifacts::SearchDirs;

/// A benchmark, its files and the options of its run.
#[derive(Debug)]
pub struct BenchmarkJob {
    /// Name or file of the benchmark.
    pub benchmark: String,
    /// Folders to search for its artifacts.
    pub dirs: SearchDirs,
    /// The run's folder.
    pub output: PathBuf,
    /// Fewer images than published.
    pub limit: Option<u64>,
    /// Search the guidance scale.
    pub search: bool,
    /// `--device` for every step.
    pub device: String,
    /// The program that the steps are commands of.
    pub program: PathBuf,
}
