//! Where a transformer's codes come from: stored, or encoded on the fly.

use std::path::{Path, PathBuf};

use base::ImagesU8;
use data::codes::{CodeLoader, CodeLoaderConfig};
use data::{Class, LeftOut, Loader, LoaderState, Target};
use tch::Tensor;
use tokenizer::{Loaded, Tokenizer};

use super::ar::ArRecipe;
use super::images;
use crate::task::DataFacts;
use crate::{Error, Result};

/// Codes (B, N), and what is known of their images.
pub(crate) struct CodeBatch {
    pub codes: Tensor,
    /// Class indices, [`data::NO_CLASS`] where there is none.
    pub labels: Vec<i64>,
    /// Captions, empty where there is none.
    pub captions: Vec<String>,
    /// The records' places in their source.
    pub indices: Vec<usize>,
    /// Their names, for messages.
    pub keys: Vec<String>,
    /// The epoch they belong to.
    pub epoch: u64,
}

/// A source of batches.
#[derive(Debug)]
pub(crate) enum Codes {
    /// Read from files.
    Stored(CodeLoader),
    /// Encoded from images by the frozen tokenizer.
    Encoded(Loader),
}

impl Codes {
    /// Endless and shuffled.
    pub fn training(recipe: &ArRecipe, tokenizer: &Loaded) -> Result<Codes> {
        let (batch, seed) = (recipe.optimization.micro_batch_size(), recipe.seed);
        let data = &recipe.data;
        match (data.codes.is_empty(), &data.images.train) {
            (false, None) => {
                let config = CodeLoaderConfig::training(batch, seed);
                Ok(Codes::Stored(stored(&data.codes, recipe, tokenizer, config)?))
            }
            (true, Some(_)) => {
                Ok(Codes::Encoded(images::training(&data.images, side(recipe, tokenizer)?, batch, seed)?))
            }
            (false, Some(_)) => Err(Error::Recipe(
                "`data.codes` and `data.images.train` are both given; which is it to be?".into(),
            )),
            (true, None) => Err(Error::Recipe(
                "no training data: give images as `--data`, or codes from `gen extract` as `--codes`".into(),
            )),
        }
    }

    /// Held-out images or codes once, if there are any.
    pub fn validation(recipe: &ArRecipe, tokenizer: &Loaded) -> Result<Option<Codes>> {
        let batch = recipe.optimization.micro_batch_size();
        let data = &recipe.data;
        if !data.validation_codes.is_empty() {
            let config = CodeLoaderConfig::once(batch);
            return Ok(Some(Codes::Stored(stored(&data.validation_codes, recipe, tokenizer, config)?)));
        }
        let size = side(recipe, tokenizer)?;
        Ok(images::validation(data.images.validation.as_deref(), size, batch)?.map(Codes::Encoded))
    }

    /// The next batch, `None` at the end.
    pub fn next(&mut self, tokenizer: &Loaded) -> Result<Option<CodeBatch>> {
        Ok(match self {
            Codes::Stored(loader) => {
                let named = |i: &usize| format!("record {i} of the stored codes");
                loader.next()?.map(|b| CodeBatch {
                    codes: b.codes.into_tensor(),
                    labels: b.labels,
                    captions: b.captions,
                    keys: b.indices.iter().map(named).collect(),
                    indices: b.indices,
                    epoch: b.epoch,
                })
            }
            Codes::Encoded(loader) => match loader.next()? {
                Some(batch) => {
                    let images = batch.images.tensor().to_device(tokenizer.vars.device());
                    let images = ImagesU8::new(images).map_err(tokenizer::Error::from)?.to_float();
                    let codes = tokenizer.model.encode(&images)?.into_tensor();
                    Some(CodeBatch {
                        codes,
                        labels: batch.labels,
                        captions: batch.captions,
                        keys: batch.keys.iter().map(|k| format!("`{k}`")).collect(),
                        indices: batch.indices,
                        epoch: batch.epoch,
                    })
                }
                None => None,
            },
        })
    }

    /// The position as text.
    pub fn position(&self) -> Result<String> {
        match self {
            Codes::Stored(loader) => images::position(loader.state()),
            Codes::Encoded(loader) => images::position(loader.state()),
        }
    }

    /// Continues at a position.
    pub fn restore(&mut self, position: &str) -> Result<()> {
        self.go_to(images::parse_position(position)?)
    }

    /// Starts anew.
    pub fn rewind(&mut self) -> Result<()> {
        self.go_to(LoaderState::default())
    }

    fn go_to(&mut self, state: LoaderState) -> Result<()> {
        match self {
            Codes::Stored(loader) => loader.restore(state)?,
            Codes::Encoded(loader) => loader.restore(state)?,
        }
        Ok(())
    }

    /// All captions, in the order of the records.
    pub fn captions(&self) -> Result<Vec<String>> {
        (0..self.len()).filter_map(|i| self.caption(i).transpose()).collect()
    }

    /// Up to `n` captions, far apart.
    pub fn some_captions(&self, n: usize) -> Result<Vec<String>> {
        (0..n).filter_map(|i| self.caption(i * self.len() / n).transpose()).collect()
    }

    fn len(&self) -> usize {
        match self {
            Codes::Stored(loader) => loader.source().len(),
            Codes::Encoded(loader) => loader.dataset().len(),
        }
    }

    /// The caption of a record, if it has one.
    fn caption(&self, index: usize) -> Result<Option<String>> {
        let text = match self {
            Codes::Stored(loader) => loader.source().caption(index)?,
            Codes::Encoded(loader) => match loader.dataset().target(index) {
                Target::Caption(text) => text,
                Target::None | Target::Class(_) => return Ok(None),
            },
        };
        Ok(Some(text).filter(|text| !text.trim().is_empty()))
    }

    /// The classes of the labels, as far as the data tells.
    pub fn classes(&self) -> &[Class] {
        match self {
            Codes::Stored(loader) => loader.source().classes(),
            Codes::Encoded(loader) => loader.dataset().classes(),
        }
    }

    /// What is read.
    pub fn facts(&self) -> Result<DataFacts> {
        Ok(match self {
            Codes::Stored(loader) => DataFacts {
                description: self.describe(),
                records: loader.source().len(),
                fingerprint: data::codes::fingerprint(loader.source().as_ref())?,
            },
            Codes::Encoded(loader) => images::facts(loader),
        })
    }

    /// The images that were left out so far; stored codes leave nothing out.
    pub fn left_out(&self) -> Vec<LeftOut> {
        match self {
            Codes::Stored(_) => vec![],
            Codes::Encoded(loader) => loader.left_out(),
        }
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        match self {
            Codes::Stored(loader) => loader.source().describe(),
            Codes::Encoded(loader) => loader.dataset().describe(),
        }
    }
}

/// Side of the images whose codes the model takes.
fn side(recipe: &ArRecipe, tokenizer: &Loaded) -> Result<i64> {
    let n = recipe.model.num_tokens;
    let side = tokenizer.model.spec().image_size_of(n);
    side.ok_or_else(|| Error::Recipe(format!("the tokenizer does not make {n} codes an image")))
}

/// Opens stored codes and checks that this very tokenizer made them, where the files tell.
fn stored(
    folders: &[PathBuf],
    recipe: &ArRecipe,
    tokenizer: &Loaded,
    config: CodeLoaderConfig,
) -> Result<CodeLoader> {
    let paths: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    let source = data::open_codes(&paths)?;
    let which = || folders.iter().map(|p| format!("`{}`", p.display())).collect::<Vec<_>>().join(", ");
    if source.num_tokens() as i64 != recipe.model.num_tokens {
        let (found, expected) = (source.num_tokens(), recipe.model.num_tokens);
        return Err(Error::Recipe(format!(
            "{} holds {found} codes an image, the model takes {expected}",
            which()
        )));
    }
    if let Some(id) = source.tokenizer() {
        let expected = tokenizer.fingerprint()?;
        if id.fingerprint != expected {
            return Err(Error::OtherTokenizer { codes: which(), found: id.fingerprint.clone(), expected });
        }
    }
    Ok(CodeLoader::new(source, config)?)
}
