//! A benchmark to run, as the arguments resolve it.

use std::path::PathBuf;

use super::pieces::Places;

/// A recipe, its files and the options of its run.
#[derive(Debug)]
pub struct BenchmarkJob {
    /// Name or file of the recipe.
    pub recipe: String,
    /// Where its pieces may lie.
    pub places: Places,
    /// The run's folder.
    pub output: PathBuf,
    /// Fewer images than published.
    pub limit: Option<u64>,
    /// Search the guidance scale.
    pub search: bool,
    /// `--device` for every step.
    pub device: String,
    /// Print the report as JSON.
    pub json: bool,
}
