//! Pictures of a model while it is trained: `samples/step-N.png` in the run's directory.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use base::{ImagesU8, image};
use generate::{Picture, Preview, preview};
use tch::Kind;
use tokenizer::Tokenizer;
use train::tasks::{ArTask, TokenizerTask};
use train::{Observer, Task};

use crate::files;

/// Result of an observation.
type Seen = Result<Vec<(&'static str, f64)>, Box<dyn std::error::Error + Send + Sync>>;

/// Pictures on a sheet, and pictures in a row of it.
const PICTURES: usize = 16;
const COLUMNS: usize = 8;

fn sheet(dir: &Path, step: u64) -> anyhow::Result<PathBuf> {
    let folder = dir.join("samples");
    files::make_folder(&folder)?;
    Ok(folder.join(format!("step-{step:09}.png")))
}

/// Draws the same classes or texts with the same random numbers each time, at the published
/// guidance of 2.
#[derive(Debug)]
pub struct Samples<'a>(pub &'a Path);

impl Observer<ArTask> for Samples<'_> {
    /// `distinct_codes`: the share of the vocabulary that occurs in the samples.
    fn observe(&mut self, task: &ArTask, step: u64) -> Seen {
        self.draw(task, step).map_err(Into::into)
    }
}

impl Samples<'_> {
    fn draw(&self, task: &ArTask, step: u64) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let (cond, names) = tch::no_grad(|| task.examples(PICTURES))?;
        let Preview { pictures, codes } =
            preview(task.model(), &task.tokenizer().model, &cond, names.len(), task.seed())?;
        if let Some(grid) = Picture::grid(&pictures, COLUMNS) {
            grid.write_png(&sheet(self.0, step)?, &[("Conditions", names.join("; "))])?;
        }
        let distinct: HashSet<i64> =
            Vec::<i64>::try_from(codes.tensor().reshape([-1]))?.into_iter().collect();
        let share = distinct.len() as f64 / task.model().config().vocab_size as f64;
        Ok(vec![("distinct_codes", share)])
    }
}

/// Reconstructs the same held-out images each time, or the first training images if there are none:
/// an original, its reconstruction, the next original.
#[derive(Debug)]
pub struct Reconstructions<'a> {
    dir: &'a Path,
    originals: Option<ImagesU8>,
}

impl<'a> Reconstructions<'a> {
    /// For a run in `dir`.
    pub fn new(dir: &'a Path) -> Self {
        Reconstructions { dir, originals: None }
    }

    fn draw(&mut self, task: &TokenizerTask, step: u64) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let originals = match self.originals.take() {
            Some(images) => images,
            None => task.some_images(PICTURES)?,
        };
        let originals = self.originals.insert(originals);
        let codes = task.model().encode(&originals.to_float())?;
        let images = task.model().decode(&codes)?.to_u8();
        let pairs = Picture::from_batch(originals)?.into_iter().zip(Picture::from_batch(&images)?);
        let pictures: Vec<Picture> = pairs.flat_map(|(a, b)| [a, b]).collect();
        if let Some(grid) = Picture::grid(&pictures, COLUMNS) {
            grid.write_png(&sheet(self.dir, step)?, &[])?;
        }
        let scaled = |x: &ImagesU8| x.tensor().to_kind(Kind::Float) / 255.0;
        let mse = image::mse(&scaled(&images), &scaled(originals)).mean(Kind::Double).clamp_min(1e-10);
        Ok(vec![("psnr", image::psnr(&mse).double_value(&[]))])
    }
}

impl Observer<TokenizerTask> for Reconstructions<'_> {
    /// `psnr` of the pictures taken together, dB.
    fn observe(&mut self, task: &TokenizerTask, step: u64) -> Seen {
        self.draw(task, step).map_err(Into::into)
    }
}
