//! Codes for a transformer's training: stored, or encoded from images during the run.

use std::path::{Path, PathBuf};

use data::codes::{CodeBatch, CodeLoader, CodeLoaderConfig};
use data::{Class, LeftOut, Loader, LoaderState, Partition, Target};
use serde::{Deserialize, Serialize};
use tokenizer::{Loaded, Tokenizer};

use super::images;
use crate::recipe::ImageData;
use crate::task::{DataFacts, TrainingData};
use crate::{Error, Result};

/// Either stored codes or images that are encoded during the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArData {
    /// Folders of stored codes; several are joined as further views of the same images.
    #[serde(default)]
    pub codes: Vec<PathBuf>,
    /// Folders of stored codes of held-out images.
    #[serde(default)]
    pub validation_codes: Vec<PathBuf>,
    /// Images.
    pub images: ImageData,
}

/// Settings of the code streams of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodesConfig<'a> {
    /// Stored codes or images.
    pub data: &'a ArData,
    /// Codes of one image that the model takes.
    pub num_tokens: i64,
    /// Records in a batch.
    pub batch_size: usize,
    /// Seed of order, views and augmentation.
    pub seed: u64,
}

/// Training codes, held-out ones, and the frozen tokenizer that they belong to.
pub struct CodeSets {
    /// Endless and shuffled.
    pub(crate) train: CodeStream,
    /// Held-out codes once.
    pub(crate) validation: Option<CodeStream>,
    pub(crate) tokenizer: Loaded,
}

impl CodeSets {
    /// Opens training and held-out codes.
    pub(crate) fn open(config: CodesConfig<'_>, tokenizer: Loaded) -> Result<Self> {
        let train = CodeStream::training(config, &tokenizer)?;
        let validation = CodeStream::validation(config, &tokenizer)?;
        if let Some(held_out) = &validation {
            images::same_classes(train.classes(), held_out.classes())?;
        }
        Ok(CodeSets { train, validation, tokenizer })
    }

    /// Classes of training and of held-out data, as far as known.
    pub(crate) fn classes(&self) -> impl Iterator<Item = &Class> {
        let held_out = self.validation.iter().flat_map(CodeStream::classes);
        self.train.classes().iter().chain(held_out)
    }
}

impl TrainingData for CodeSets {
    type Batch = CodeBatch;

    fn next(&mut self) -> Result<CodeBatch> {
        self.train.next(&self.tokenizer)?.ok_or_else(images::ended)
    }

    fn share(&mut self, partition: Partition) {
        self.train.share(partition);
        self.validation.iter_mut().for_each(|codes| codes.share(partition));
    }

    fn position(&self) -> Result<String> {
        images::position(match &self.train {
            CodeStream::Stored(loader) => loader.state(),
            CodeStream::Encoded(loader) => loader.state(),
        })
    }

    fn restore(&mut self, position: &str) -> Result<()> {
        self.train.go_to(images::parse_position(position)?)
    }

    fn facts(&self) -> Result<DataFacts> {
        Ok(match &self.train {
            CodeStream::Stored(loader) => DataFacts {
                description: self.train.describe(),
                records: loader.source().len(),
                fingerprint: data::codes::fingerprint(loader.source().as_ref())?,
            },
            CodeStream::Encoded(loader) => images::facts(loader),
        })
    }

    fn skipped(&self) -> Vec<LeftOut> {
        images::all_skipped(self.train.skipped(), self.validation.as_ref().map(CodeStream::skipped))
    }
}

/// A stream of code batches.
#[derive(Debug)]
pub(crate) enum CodeStream {
    /// Read from files.
    Stored(CodeLoader),
    /// Encoded from images by the frozen tokenizer.
    Encoded(Loader),
}

impl CodeStream {
    /// Endless and shuffled.
    fn training(config: CodesConfig<'_>, tokenizer: &Loaded) -> Result<Self> {
        let CodesConfig { data, batch_size, seed, .. } = config;
        match (data.codes.is_empty(), &data.images.train) {
            (false, None) => {
                let loader = CodeLoaderConfig::training(batch_size, seed);
                Ok(CodeStream::Stored(stored(&data.codes, config.num_tokens, tokenizer, loader)?))
            }
            (true, Some(_)) => {
                let size = side(config.num_tokens, tokenizer)?;
                Ok(CodeStream::Encoded(images::training(&data.images, size, batch_size, seed)?))
            }
            (false, Some(_)) => Err(Error::Recipe(
                "`data.codes` and `data.images.train` are both given; give one of them".into(),
            )),
            (true, None) => Err(Error::Recipe(
                "no training data: give images as `--data`, or codes from `gen extract` as `--codes`".into(),
            )),
        }
    }

    /// Held-out codes or images once, if given.
    fn validation(config: CodesConfig<'_>, tokenizer: &Loaded) -> Result<Option<Self>> {
        let CodesConfig { data, num_tokens, batch_size, .. } = config;
        if !data.validation_codes.is_empty() {
            let loader = CodeLoaderConfig::once(batch_size);
            let codes = stored(&data.validation_codes, num_tokens, tokenizer, loader)?;
            return Ok(Some(CodeStream::Stored(codes)));
        }
        let size = side(num_tokens, tokenizer)?;
        let images = images::validation(data.images.validation.as_deref(), size, batch_size)?;
        Ok(images.map(CodeStream::Encoded))
    }

    /// The next batch, `None` at the end.
    pub fn next(&mut self, tokenizer: &Loaded) -> Result<Option<CodeBatch>> {
        let loader = match self {
            CodeStream::Stored(loader) => return Ok(loader.next()?),
            CodeStream::Encoded(loader) => loader,
        };
        let Some(batch) = loader.next()? else { return Ok(None) };
        let images = images::to_device(&batch.images, tokenizer.vars.device())?.to_float();
        Ok(Some(CodeBatch {
            codes: tokenizer.model.encode(&images)?,
            labels: batch.labels,
            captions: batch.captions,
            keys: batch.keys.iter().map(|k| format!("`{k}`")).collect(),
            indices: batch.indices,
            valid: batch.valid,
            epoch: batch.epoch,
        }))
    }

    fn share(&mut self, partition: Partition) {
        match self {
            CodeStream::Stored(loader) => loader.share(partition),
            CodeStream::Encoded(loader) => loader.share(partition),
        }
    }

    /// Starts again from the first record.
    pub fn rewind(&mut self) -> Result<()> {
        self.go_to(LoaderState::default())
    }

    fn go_to(&mut self, state: LoaderState) -> Result<()> {
        match self {
            CodeStream::Stored(loader) => loader.restore(state)?,
            CodeStream::Encoded(loader) => loader.restore(state)?,
        }
        Ok(())
    }

    /// All captions, in the order of the records.
    pub fn captions(&self) -> Result<Vec<String>> {
        (0..self.len()).filter_map(|i| self.caption(i).transpose()).collect()
    }

    /// Up to `n` captions, evenly spaced.
    pub fn some_captions(&self, n: usize) -> Result<Vec<String>> {
        (0..n).filter_map(|i| self.caption(i * self.len() / n).transpose()).collect()
    }

    fn len(&self) -> usize {
        match self {
            CodeStream::Stored(loader) => loader.source().len(),
            CodeStream::Encoded(loader) => loader.dataset().len(),
        }
    }

    /// Caption of a record, if it has one.
    fn caption(&self, index: usize) -> Result<Option<String>> {
        let text = match self {
            CodeStream::Stored(loader) => loader.source().caption(index)?,
            CodeStream::Encoded(loader) => match loader.dataset().target(index) {
                Target::Caption(text) => text,
                Target::None | Target::Class(_) => return Ok(None),
            },
        };
        Ok(Some(text).filter(|text| !text.trim().is_empty()))
    }

    /// Classes of the labels, as far as known.
    pub fn classes(&self) -> &[Class] {
        match self {
            CodeStream::Stored(loader) => loader.source().classes(),
            CodeStream::Encoded(loader) => loader.dataset().classes(),
        }
    }

    /// Images skipped so far; none for stored codes.
    fn skipped(&self) -> Vec<LeftOut> {
        match self {
            CodeStream::Stored(_) => vec![],
            CodeStream::Encoded(loader) => loader.left_out(),
        }
    }

    /// Form and size of the data in one line.
    pub fn describe(&self) -> String {
        match self {
            CodeStream::Stored(loader) => loader.source().describe(),
            CodeStream::Encoded(loader) => loader.dataset().describe(),
        }
    }
}

/// Side of the images with `num_tokens` codes, in pixels.
fn side(num_tokens: i64, tokenizer: &Loaded) -> Result<i64> {
    let side = tokenizer.model.spec().image_size_of(num_tokens);
    side.ok_or_else(|| Error::Recipe(format!("the tokenizer does not make {num_tokens} codes an image")))
}

/// Opens stored codes and checks that this tokenizer made them, if the files name theirs.
fn stored(
    folders: &[PathBuf],
    num_tokens: i64,
    tokenizer: &Loaded,
    config: CodeLoaderConfig,
) -> Result<CodeLoader> {
    let paths: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    let source = data::open_codes(&paths)?;
    let names = || folders.iter().map(|p| format!("`{}`", p.display())).collect::<Vec<_>>().join(", ");
    if source.num_tokens() as i64 != num_tokens {
        let found = source.num_tokens();
        return Err(Error::Recipe(format!(
            "{} holds {found} codes an image, the model takes {num_tokens}",
            names()
        )));
    }
    if let Some(id) = source.tokenizer() {
        let expected = tokenizer.fingerprint()?;
        if id.fingerprint != expected {
            return Err(Error::OtherTokenizer { codes: names(), found: id.fingerprint.clone(), expected });
        }
    }
    Ok(CodeLoader::new(source, config)?)
}
