//! Image batches for the tasks.

use std::path::Path;
use std::time::{Duration, Instant};

use base::ImagesU8;
use data::{Batch, Class, LeftOut, Loader, LoaderConfig, LoaderState, Partition, Transform, transform};
use tch::Device;

use crate::recipe::{Crop, ImageData};
use crate::task::{DataFacts, TrainingData};
use crate::{Error, Result};

/// Training images and held-out ones.
#[derive(Debug)]
pub struct ImageSets {
    /// Endless, shuffled, augmented.
    pub train: Loader,
    /// Held-out images once, centre-cropped.
    pub validation: Option<Loader>,
}

impl ImageSets {
    /// Opens the images of a recipe at a side of `size` pixels, in batches of `batch_size`.
    ///
    /// # Errors
    /// Returns an error if no training images are given or images cannot be opened.
    pub fn open(recipe: &ImageData, size: i64, batch_size: usize, seed: u64) -> Result<Self> {
        let train = training(recipe, size, batch_size, seed)?;
        let validation = validation(recipe.validation.as_deref(), size, batch_size)?;
        Ok(ImageSets { train, validation })
    }
}

impl TrainingData for ImageSets {
    type Batch = Batch;

    fn next(&mut self) -> Result<Batch> {
        self.train.next()?.ok_or_else(ended)
    }

    fn share(&mut self, partition: Partition) {
        self.train.share(partition);
        self.validation.iter_mut().for_each(|loader| loader.share(partition));
    }

    fn position(&self) -> Result<String> {
        position(self.train.state())
    }

    fn restore(&mut self, position: &str) -> Result<()> {
        Ok(self.train.restore(parse_position(position)?)?)
    }

    fn facts(&self) -> Result<DataFacts> {
        Ok(facts(&self.train))
    }

    fn skipped(&self) -> Vec<LeftOut> {
        all_skipped(self.train.left_out(), self.validation.as_ref().map(Loader::left_out))
    }
}

/// Error of endless data that ended.
pub(crate) fn ended() -> Error {
    Error::Recipe("the training data ended".into())
}

/// 8-bit images (B, 3, H, W) on a device.
pub(crate) fn to_device(images: &ImagesU8, device: Device) -> Result<ImagesU8> {
    Ok(ImagesU8::new(images.tensor().to_device(device)).map_err(tokenizer::Error::from)?)
}

/// Endless, shuffled, augmented loader over the training images.
pub(crate) fn training(recipe: &ImageData, size: i64, batch_size: usize, seed: u64) -> Result<Loader> {
    let path = recipe.train.as_deref().ok_or_else(|| {
        Error::Recipe(
            "no training images: give a folder, tar shards or a list as `--data` or `data.train`".into(),
        )
    })?;
    let crop = match recipe.crop {
        Crop::Center => transform::Crop::Center,
        Crop::Random { min_fraction } => transform::Crop::Random { min_fraction },
    };
    let transform = Transform { size: size as u32, crop, flip: recipe.flip };
    let mut config = LoaderConfig::training(batch_size, seed);
    config.max_corrupt = recipe.max_corrupt;
    if let Some(workers) = recipe.workers {
        config.workers = workers;
    }
    Ok(Loader::new(data::open(path)?, transform, config)?)
}

/// Training images that one core decodes and augments a second, measured for about two seconds.
///
/// # Errors
/// Returns an error if there are no images or too many damaged ones.
pub fn images_per_second(recipe: &ImageData, size: i64) -> Result<f64> {
    const AT_A_TIME: usize = 16;
    let one = ImageData { workers: Some(1), ..recipe.clone() };
    let records = data::open(one.train.as_deref().unwrap_or(Path::new("")))?.len();
    let batch = AT_A_TIME.min(records.max(1));
    let mut loader = training(&one, size, batch, 0)?;
    loader.next()?; // opens files and starts the worker
    // As many are decoded ahead by now as will be at the end, so both cancel.
    let start = Instant::now();
    let mut images = 0;
    while start.elapsed() < Duration::from_secs(2) {
        loader.next()?;
        images += batch;
    }
    Ok(images as f64 / start.elapsed().as_secs_f64())
}

/// Loader that reads held-out images once, centre-cropped.
pub(crate) fn validation(path: Option<&Path>, size: i64, batch_size: usize) -> Result<Option<Loader>> {
    let Some(path) = path else { return Ok(None) };
    let config = LoaderConfig::once(batch_size);
    Ok(Some(Loader::new(data::open(path)?, Transform::center(size as u32), config)?))
}

/// Sums of each batch of a validation loader, from its beginning, that `f` makes of images and
/// labels; 0 for a batch without an image that can be read.
pub(crate) fn each_batch<const N: usize>(
    loader: &mut Loader,
    mut f: impl FnMut(&ImagesU8, &[i64]) -> Result<[f64; N]>,
) -> Result<Vec<[f64; N]>> {
    loader.restore(LoaderState::default())?;
    let mut rows = vec![];
    while let Some(batch) = loader.next()? {
        rows.push(if batch.valid > 0 { f(&batch.images, &batch.labels)? } else { [0.0; N] });
    }
    Ok(rows)
}

/// Identity of a loader's images.
pub(crate) fn facts(loader: &Loader) -> DataFacts {
    let dataset = loader.dataset().as_ref();
    DataFacts {
        description: dataset.describe(),
        records: dataset.len(),
        fingerprint: data::fingerprint(dataset),
    }
}

/// Skipped training and held-out images, the latter under `validation/`.
pub(crate) fn all_skipped(train: Vec<LeftOut>, held_out: Option<Vec<LeftOut>>) -> Vec<LeftOut> {
    let held_out = held_out.into_iter().flatten();
    let held_out = held_out.map(|l| LeftOut { name: format!("validation/{}", l.name), ..l });
    train.into_iter().chain(held_out).collect()
}

/// Refuses held-out data whose labels are numbered otherwise.
pub(crate) fn same_classes(train: &[Class], held_out: &[Class]) -> Result<()> {
    Ok(data::same_numbering(("the training data", train), ("the validation data", held_out))?)
}

/// A loader's position as text.
pub(crate) fn position(state: LoaderState) -> Result<String> {
    serde_json::to_string(&state).map_err(|e| Error::Recipe(format!("loader position: {e}")))
}

/// Inverse of [`position`].
pub(crate) fn parse_position(text: &str) -> Result<LoaderState> {
    serde_json::from_str(text)
        .map_err(|e| Error::Recipe(format!("the saved state's data position is damaged: {e}")))
}
