//! `gen reconstruct`: images → codes → images, side by side, with scores.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use base::{Images, ImagesU8, Progress};
use cli::reconstruct::ReconstructArgs;
use eval::{PairScores, PixelMetrics, PixelPair, Reconstruction};
use generate::Picture;
use serde::Serialize;
use tch::Device;
use tokenizer::Tokenizer as _;

use crate::context::{Context, Outcome, report_left_out, report_skipped};
use crate::files;
use crate::inputs::{Batch, Inputs, Skipped};
use crate::resolve::device;

/// The sheet shows no more pairs than this.
const MOST_ON_A_SHEET: usize = 64;
/// Pairs in a row of the sheet.
const PAIRS_A_ROW: usize = 4;

#[derive(Debug, Serialize)]
struct Report {
    tokenizer: String,
    images: Vec<Row>,
    mean: Option<PairScores>,
    sheet: Option<PathBuf>,
    skipped: Vec<Skipped>,
}

#[derive(Debug, Serialize)]
struct Row {
    input: String,
    output: PathBuf,
    #[serde(flatten)]
    scores: PairScores,
}

/// Reconstructs all images; [`Outcome::Incomplete`] when some were skipped.
pub fn run(args: &ReconstructArgs, context: &Context) -> anyhow::Result<Outcome> {
    let device = device::resolve(&args.compute.device)?;
    let mut inputs = Inputs::open(&args.images)?;
    inputs.left_out().for_each(|(path, files)| report_left_out(context, path, files));
    let location = generate::locate::tokenizer(&args.tokenizer.choice())?;
    let tokenizer = location.open_tokenizer(device, args.compute.precision, &mut context.printer.clone())?;
    let side = tokenizer.model.spec().image_size;
    files::make_folder(&args.output)?;
    let mut work = Work::new(&args.output);
    let mut progress = context.printer.clone();
    progress.start("reconstructing", Some(inputs.len() as u64));
    inputs.for_each_batch(side, args.batch.batch_size, |batch| {
        let images = Images::new(batch.images.tensor().to_device(device))?;
        let codes = tokenizer.model.encode(&images);
        let decoded = codes.and_then(|codes| tokenizer.model.decode(&codes));
        let decoded = decoded.map_err(|e| e.of_images(|i| format!("`{}`", batch.names[i])))?;
        let n = batch.names.len() as u64;
        work.take(batch, &ImagesU8::new(decoded.to_u8().into_tensor().to_device(Device::Cpu))?)?;
        progress.advance(n);
        Ok(())
    })?;
    progress.finish();
    let report = Report {
        tokenizer: tokenizer.source.origin().to_string(),
        sheet: work.write_sheet()?,
        mean: work.scores.means(),
        images: work.rows,
        skipped: inputs.skipped,
    };
    report_skipped(context, &report.skipped);
    match args.json.json {
        true => context.printer.json(&report)?,
        false => context.printer.line(&table(&report))?,
    }
    Ok(if report.skipped.is_empty() { Outcome::Done } else { Outcome::Incomplete })
}

/// What grows batch by batch.
struct Work<'a> {
    dir: &'a Path,
    names: HashSet<String>,
    scores: Reconstruction,
    rows: Vec<Row>,
    /// Originals and reconstructions in turn.
    sheet: Vec<Picture>,
}

impl<'a> Work<'a> {
    fn new(dir: &'a Path) -> Self {
        Work {
            dir,
            names: HashSet::from(["sheet".to_owned()]),
            scores: Reconstruction::default(),
            rows: vec![],
            sheet: vec![],
        }
    }

    fn take(&mut self, batch: Batch, reconstruction: &ImagesU8) -> anyhow::Result<()> {
        let pair = PixelPair::published(reconstruction, &batch.images)?;
        let scores = self.scores.update(&pair, PixelMetrics::ALL)?;
        let originals = Picture::from_batch(&batch.images.to_u8())?;
        let pictures = Picture::from_batch(reconstruction)?;
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

    fn write_sheet(&self) -> anyhow::Result<Option<PathBuf>> {
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

fn table(report: &Report) -> String {
    let width = report.images.iter().map(|r| r.input.chars().count()).max().unwrap_or(0).max(4);
    let line = |name: &str, s: &PairScores| {
        let (one, two) = (s.ssim.unwrap_or(f64::NAN), s.ssim_published.unwrap_or(f64::NAN));
        format!("{name:<width$}  {:>7.3}  {one:.4}  {two:>14.4}", s.psnr)
    };
    let mut lines =
        vec![format!("{:<width$}  {:>7}  {:>6}  {:>14}", "", "PSNR dB", "SSIM", "SSIM (range 2)")];
    lines.extend(report.images.iter().map(|row| line(&row.input, &row.scores)));
    if let Some(mean) = report.mean.as_ref().filter(|_| report.images.len() > 1) {
        lines.push(line("mean", mean));
    }
    if let Some(sheet) = &report.sheet {
        lines.push(format!("side by side: {}", sheet.display()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_have_unique_names() {
        let mut work = Work::new(Path::new("out"));
        let names = ["a/x.jpg", "b/x.png", "x-2.jpg", "t.safetensors[3]", "sheet.jpg", "v1.5 final.webp"];
        let found: Vec<String> = names.iter().map(|n| work.file_name(n)).collect();
        assert_eq!(
            found,
            ["x.png", "x-2.png", "x-2-2.png", "t.safetensors-3.png", "sheet-2.png", "v1.5 final.png"]
        );
    }
}
