//! Report of `gen reconstruct`.

use std::path::PathBuf;

use eval::PairScores;
use serde::Serialize;

use crate::context;
use crate::inputs::Skipped;

/// Result of a reconstruction.
#[derive(Debug, Serialize)]
pub struct Report {
    pub tokenizer: String,
    pub images: Vec<Row>,
    pub mean: Option<PairScores>,
    pub sheet: Option<PathBuf>,
    pub skipped: Vec<Skipped>,
}

/// One image.
#[derive(Debug, Serialize)]
pub struct Row {
    pub input: String,
    pub output: PathBuf,
    #[serde(flatten)]
    pub scores: PairScores,
}

impl context::Report for Report {
    fn text(&self) -> String {
        let width = self.images.iter().map(|r| r.input.chars().count()).max().unwrap_or(0).max(4);
        let line = |name: &str, s: &PairScores| {
            let (one, two) = (s.ssim.unwrap_or(f64::NAN), s.ssim_published.unwrap_or(f64::NAN));
            format!("{name:<width$}  {:>7.3}  {one:.4}  {two:>14.4}", s.psnr)
        };
        let mut lines =
            vec![format!("{:<width$}  {:>7}  {:>6}  {:>14}", "", "PSNR dB", "SSIM", "SSIM (range 2)")];
        lines.extend(self.images.iter().map(|row| line(&row.input, &row.scores)));
        if let Some(mean) = self.mean.as_ref().filter(|_| self.images.len() > 1) {
            lines.push(line("mean", mean));
        }
        if let Some(sheet) = &self.sheet {
            lines.push(format!("side by side: {}", sheet.display()));
        }
        lines.join("\n")
    }
}
