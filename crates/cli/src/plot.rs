//! `gen plot`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Draws curves of training runs side by side, one panel a term.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// Directories of runs, or `log.jsonl` files
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,

    /// The picture: .png, .svg or .html
    #[arg(short, long, value_name = "FILE", default_value = "curves.png")]
    pub output: PathBuf,

    /// Terms to draw, as `log.jsonl` names them; `*` stands for any part of a name
    /// [default: all losses and validation figures]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub terms: Vec<String>,

    /// What the horizontal axis shows
    #[arg(long, value_name = "AXIS", default_value = "steps")]
    pub x: Axis,

    /// Smoothing by an exponential moving average, from 0 (none) up to 1; the curve itself stays in the background
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0, value_parser = weight)]
    pub smooth: f64,

    /// A logarithmic vertical axis, for terms that are always above 0
    #[arg(long)]
    pub log: bool,

    /// Names of the runs in the legend, in their order [default: their folders']
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub names: Vec<String>,
}

/// What the horizontal axis shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Axis {
    /// Optimizer steps
    Steps,
    /// Hours, minutes or seconds of training
    Time,
    /// Images seen
    Samples,
}

fn weight(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(w) if (0.0..1.0).contains(&w) => Ok(w),
        _ => Err("expected a number from 0 up to, but not, 1".into()),
    }
}
