//! The codes that are predicted: of images, or stored.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use base::{Codes, Precision};
use cli::eval::RunArgs;
use data::Class;
use data::codes::CodeSource;
use eval::{ImageSet, Item};
use generate::{Location, locate};
use tch::{Device, Tensor};

use crate::code_files::same_tokenizer;
use crate::commands::eval::images;
use crate::commands::eval::live::reconstructor::Reconstructor;
use crate::context::Context;
use crate::error::UserError;

/// Codes to predict.
pub enum CodesOf {
    /// Images, through the transformer's tokenizer.
    Images(Box<Reconstructor>, ImageSet),
    /// Stored codes; each view of a record counts as an image.
    Stored(Arc<dyn CodeSource>),
}

impl CodesOf {
    /// Opens a folder of code shards, or labelled images with the model's tokenizer.
    pub fn open(
        path: &Path,
        args: &RunArgs,
        (model, device): (&Location, Device),
        context: &Context,
    ) -> Result<Self> {
        let stored = if path.is_dir() { Some(data::open_codes(&[path])) } else { None };
        match stored {
            Some(Ok(stored)) => {
                let made_by = stored.tokenizer().map(|id| id.fingerprint.as_str());
                same_tokenizer((path, made_by), model, Some(&args.tokenizer.choice()), context)?;
                Ok(CodesOf::Stored(stored))
            }
            None | Some(Err(data::Error::NotCodes { .. })) => {
                let tokenizer = locate::tokenizer_of(model, &args.tokenizer.choice())?;
                let tokenizer = Reconstructor::load(&tokenizer, device, Precision::Fp32, context)?;
                let side = args.resize.unwrap_or(tokenizer.side());
                Ok(CodesOf::Images(Box::new(tokenizer), images::open(path, Some(side), context)?))
            }
            Some(Err(other)) => Err(other.into()),
        }
    }

    /// Refuses data without classes.
    pub fn check(&self) -> Result<()> {
        let described = match self {
            CodesOf::Images(_, set) if set.class_names().is_empty() => set.describe(),
            CodesOf::Stored(codes) if codes.read(0, 0)?.label == data::NO_CLASS => codes.describe(),
            _ => return Ok(()),
        };
        let message = format!("{described}: the model predicts codes of a class, and these have none");
        Err(UserError::new(message)
            .hint(
                "give class folders, shards with `.cls`, a list with a column `class`, or codes with labels",
            )
            .into())
    }

    /// The images, where they are not encoded yet.
    pub fn images(&self) -> Option<&ImageSet> {
        match self {
            CodesOf::Images(_, set) => Some(set),
            CodesOf::Stored(_) => None,
        }
    }

    /// The data in words, and the classes by its own numbers.
    pub fn classes(&self) -> (String, &[Class]) {
        match self {
            CodesOf::Images(_, set) => (set.describe(), set.classes()),
            CodesOf::Stored(codes) => (codes.describe(), codes.classes()),
        }
    }

    /// The classes by number.
    pub fn class_names(&self) -> Vec<(i64, String)> {
        match self {
            CodesOf::Images(_, set) => set.class_names(),
            CodesOf::Stored(codes) => codes.classes().iter().map(|c| (c.index, c.name.clone())).collect(),
        }
    }

    /// Fingerprint of the tokenizer, if known.
    pub fn tokenizer(&self) -> Result<Option<String>> {
        match self {
            CodesOf::Images(tokenizer, _) => Ok(Some(tokenizer.fingerprint()?)),
            CodesOf::Stored(codes) => Ok(codes.tokenizer().map(|id| id.fingerprint.clone())),
        }
    }

    /// Content of the images or codes.
    pub fn identity(&self) -> Result<String> {
        match self {
            CodesOf::Images(_, set) => Ok(set.identity()),
            CodesOf::Stored(codes) => Ok(data::codes::fingerprint(codes.as_ref())?),
        }
    }

    /// Number of images.
    pub fn num_images(&self) -> u64 {
        match self {
            CodesOf::Images(_, set) => set.len() as u64,
            CodesOf::Stored(codes) => (codes.len() * codes.views()) as u64,
        }
    }
}

/// Codes and classes of stored images.
pub fn stored(stored: &dyn CodeSource, items: &mut [Item]) -> Result<(Codes, Vec<i64>)> {
    let (mut codes, mut classes) = (vec![], vec![]);
    for item in &mut *items {
        let (record, view) = (item.index as usize / stored.views(), item.index as usize % stored.views());
        let record = stored.read(record, view)?;
        codes.extend(record.codes);
        item.class = Some(record.label);
        classes.push(record.label);
    }
    Ok((Codes::new(Tensor::from_slice(&codes).view([items.len() as i64, -1]))?, classes))
}
