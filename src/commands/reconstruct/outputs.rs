//! Pictures and scores of reconstructions.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use base::{Images, ImagesU8};
use eval::{PairScores, PixelMetrics, PixelPair, Reconstruction};
use generate::Picture;
use tch::Tensor;

use super::report::Row;
use crate::inputs::{Made, Tensors};

/// Scores and pictures, batch by batch.
pub struct Outputs<'a> {
    dir: &'a Path,
    names: HashSet<String>,
    pub scores: Reconstruction,
    pub rows: Vec<Row>,
    /// Originals and reconstructions in turn.
    sheet: Vec<Picture>,
}

impl<'a> Outputs<'a> {
    /// For the folder `dir`.
    pub fn new(dir: &'a Path) -> Self {
        Outputs {
            dir,
            names: HashSet::from(["sheet".to_owned()]),
            scores: Reconstruction::default(),
            rows: vec![],
            sheet: vec![],
        }
    }

    /// Adds and writes a batch of [`score`].
    pub fn take(&mut self, mut batch: Made) -> anyhow::Result<()> {
        let scores = scores(&batch.take(SCORES)?)?;
        self.scores.add(&scores);
        let originals = Picture::from_batch(&ImagesU8::new(batch.take(ORIGINALS)?)?)?;
        let pictures = Picture::from_batch(&ImagesU8::new(batch.take(RECONSTRUCTIONS)?)?)?;
        for (((input, scores), original), picture) in
            batch.names.into_iter().zip(scores).zip(originals).zip(pictures)
        {
            let output = self.dir.join(self.file_name(&input));
            picture.write_png(&output, &[])?;
            self.rows.push(Row { input, output, scores });
            if self.sheet.len() < 2 * MOST_ON_A_SHEET {
                self.sheet.extend([original, picture]);
            }
        }
        Ok(())
    }

    /// The input's name as a PNG; a number makes it unique where two folders hold the same name.
    fn file_name(&mut self, input: &str) -> String {
        let base = Path::new(input).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let known = data::looks_like_image(&base);
        let stem = match base.rsplit_once('.') {
            Some((stem, _)) if known => stem.to_owned(),
            _ => base.replace(['[', ']'], "-").trim_end_matches('-').to_owned(),
        };
        let numbered = (2..).map(|n| format!("{stem}-{n}"));
        let name = std::iter::once(stem.clone()).chain(numbered).find(|name| !self.names.contains(name));
        let name = name.expect("the numbers do not end");
        self.names.insert(name.clone());
        format!("{name}.png")
    }

    /// Writes the sheet; returns its path.
    pub fn write_sheet(&self) -> anyhow::Result<Option<PathBuf>> {
        // Tensors of several sizes do not fit on one sheet; the first size does.
        let size = self.sheet.first().map(|p| (p.width, p.height));
        let same: Vec<Picture> =
            self.sheet.iter().filter(|p| Some((p.width, p.height)) == size).cloned().collect();
        let columns = 2 * PAIRS_A_ROW.min(same.len() / 2);
        let Some(sheet) = Picture::grid(&same, columns) else { return Ok(None) };
        let path = self.dir.join("sheet.png");
        sheet.write_png(&path, &[])?;
        Ok(Some(path))
    }
}

/// Tensors of a batch: pixels of both sides, and three scores of each pair in float64.
const ORIGINALS: &str = "originals";
const RECONSTRUCTIONS: &str = "reconstructions";
const SCORES: &str = "scores";

/// Scores reconstructions.
pub fn score(originals: &Images, reconstructions: ImagesU8) -> anyhow::Result<Tensors> {
    let pair = PixelPair::published(&reconstructions, originals)?;
    let scores = PairScores::of(&pair, PixelMetrics::ALL)?;
    let missing = f64::NAN; // of none with all metrics
    let row = |s: &PairScores| [s.psnr, s.ssim.unwrap_or(missing), s.ssim_published.unwrap_or(missing)];
    let scores: Vec<f64> = scores.iter().flat_map(row).collect();
    let tensors = [
        (ORIGINALS, originals.to_u8().into_tensor()),
        (RECONSTRUCTIONS, reconstructions.into_tensor()),
        (SCORES, Tensor::from_slice(&scores)),
    ];
    Ok(tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into())
}

/// The scores that [`score`] put into a tensor.
fn scores(rows: &Tensor) -> anyhow::Result<Vec<PairScores>> {
    let values = Vec::<f64>::try_from(rows)?;
    let scores = |row: &[f64]| PairScores { psnr: row[0], ssim: Some(row[1]), ssim_published: Some(row[2]) };
    Ok(values.chunks_exact(3).map(scores).collect())
}

/// The sheet shows no more pairs than this.
const MOST_ON_A_SHEET: usize = 64;

/// Pairs in a row of the sheet.
const PAIRS_A_ROW: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_have_unique_names() {
        let mut outputs = Outputs::new(Path::new("out"));
        let names = ["a/x.jpg", "b/x.png", "x-2.jpg", "t.safetensors[3]", "sheet.jpg", "v1.5 final.webp"];
        let found: Vec<String> = names.iter().map(|n| outputs.file_name(n)).collect();
        assert_eq!(
            found,
            ["x.png", "x-2.png", "x-2-2.png", "t.safetensors-3.png", "sheet-2.png", "v1.5 final.png"]
        );
    }
}
