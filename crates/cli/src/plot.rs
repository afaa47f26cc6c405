//! `gen plot`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Plots training curves of several runs, one panel per term.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// Run directories or `log.jsonl` files
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,

    /// Output file: .png, .svg or .html
    #[arg(short, long, value_name = "FILE", default_value = "curves.png")]
    pub output: PathBuf,

    /// Terms to plot, as named in `log.jsonl`; `*` matches any part of a name [default: all losses
    /// and validation metrics]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub terms: Vec<String>,

    /// Horizontal axis
    #[arg(long, value_name = "AXIS", default_value = "steps")]
    pub x: Axis,

    /// Smoothing by an exponential moving average, 0 (none) to 1; the raw curve stays in the
    /// background
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0, value_parser = weight)]
    pub smooth: f64,

    /// Logarithmic vertical axis, for positive terms
    #[arg(long)]
    pub log: bool,

    /// Legend labels, in the order of the runs [default: folder names]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub names: Vec<String>,
}

/// Quantity on the horizontal axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Axis {
    /// Optimizer steps
    Steps,
    /// Training time
    Time,
    /// Images seen
    Samples,
}

fn weight(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(w) if (0.0..1.0).contains(&w) => Ok(w),
        _ => Err("expected a number from 0 to below 1".into()),
    }
}
