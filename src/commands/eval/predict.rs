//! How well a transformer predicts the codes of labelled images, or codes that are stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use ar_model::{AutoregressiveModel as _, Conditioning};
use base::{Codes, ImagesU8};
use cli::eval::RunArgs;
use data::codes::CodeSource;
use generate::{Location, locate};
use serde_json::{Value as Json, json};
use tch::{Device, Tensor};

use super::images::ImageSet;
use super::live::Reconstructor;
use crate::code_files::{check_codes, same_classes, same_tokenizer};
use crate::context::Context;
use crate::failure::Failure;
use crate::settings::device;

/// A transformer, and what it predicts.
pub struct Predictor {
    transformer: ar_model::Loaded,
    codes: CodesOf,
    path: PathBuf,
    device: Device,
}

enum CodesOf {
    /// Images, through the transformer's tokenizer.
    Images(Box<Reconstructor>, ImageSet),
    /// Stored codes; each view of a record counts as an image.
    Stored(Arc<dyn CodeSource>),
}

impl Predictor {
    /// Opens the transformer, and a folder of code shards or labelled images with the tokenizer.
    pub fn open(path: &Path, args: &RunArgs, context: &Context) -> Result<Self> {
        let device = device::resolve(&args.compute.device)?;
        let location = locate::transformer(&args.model.choice())?;
        let stored = if path.is_dir() { Some(data::open_codes(&[path])) } else { None };
        let codes = match stored {
            Some(Ok(stored)) => {
                let made_by = stored.tokenizer().map(|id| id.fingerprint.as_str());
                same_tokenizer((path, made_by), &location, Some(&args.tokenizer.choice()), context)?;
                CodesOf::Stored(stored)
            }
            None | Some(Err(data::Error::NotCodes { .. })) => {
                let tokenizer = locate::tokenizer_of(&location, &args.tokenizer.choice())?;
                let tokenizer = Reconstructor::load(&tokenizer, device, base::Precision::Fp32, context)?;
                let side = args.resize.unwrap_or(tokenizer.side());
                CodesOf::Images(Box::new(tokenizer), ImageSet::open(path, Some(side), context)?)
            }
            Some(Err(other)) => return Err(other.into()),
        };
        let mut progress = context.printer.clone();
        let transformer = location.open_transformer(device, args.compute.precision, &mut progress)?;
        let predictor = Predictor { transformer, codes, path: path.to_owned(), device };
        predictor.check()?;
        predictor.check_classes(&location)?;
        Ok(predictor)
    }

    fn check(&self) -> Result<()> {
        if self.transformer.model.spec().num_classes.is_none() {
            let failure = Failure::new("the model is conditioned on text, not on classes");
            return Err(failure.hint("`--likelihood` needs a class-conditional model").into());
        }
        let described = match &self.codes {
            CodesOf::Images(_, set) if set.class_names().is_empty() => set.describe(),
            CodesOf::Stored(codes) if codes.read(0, 0)?.label == data::NO_CLASS => codes.describe(),
            _ => return Ok(()),
        };
        let message = format!("{described}: the model predicts codes of a class, and these have none");
        Err(Failure::new(message)
            .hint(
                "give class folders, shards with `.cls`, a list with a column `class`, or codes with labels",
            )
            .into())
    }

    fn check_classes(&self, model: &Location) -> Result<()> {
        let (described, classes) = match &self.codes {
            CodesOf::Images(_, set) => (set.describe(), set.classes()),
            CodesOf::Stored(codes) => (codes.describe(), codes.classes()),
        };
        same_classes((&described, classes), model, self.transformer.model.spec().num_classes)
    }

    /// How many images.
    pub fn len(&self) -> u64 {
        match &self.codes {
            CodesOf::Images(_, set) => set.len() as u64,
            CodesOf::Stored(codes) => (codes.len() * codes.views()) as u64,
        }
    }

    /// The images, where they are not encoded yet.
    pub fn images(&self) -> Option<&ImageSet> {
        match &self.codes {
            CodesOf::Images(_, set) => Some(set),
            CodesOf::Stored(_) => None,
        }
    }

    /// The classes by number.
    pub fn class_names(&self) -> Vec<(i64, String)> {
        match &self.codes {
            CodesOf::Images(_, set) => set.class_names(),
            CodesOf::Stored(codes) => codes.classes().iter().map(|c| (c.index, c.name.clone())).collect(),
        }
    }

    /// Data, and whose weights.
    pub fn describe(&self) -> Result<Json> {
        let tokenizer = match &self.codes {
            CodesOf::Images(tokenizer, _) => Some(tokenizer.fingerprint()?),
            CodesOf::Stored(codes) => codes.tokenizer().map(|id| id.fingerprint.clone()),
        };
        let model = self.transformer.fingerprint()?;
        Ok(json!({"path": self.path, "images": self.len(), "model": model, "tokenizer": tokenizer}))
    }

    /// The transformer's file, for messages.
    pub fn name(&self) -> String {
        self.transformer.source.origin().to_string()
    }

    /// What is predicted, by content.
    pub fn identity(&self) -> Result<String> {
        match &self.codes {
            CodesOf::Images(_, set) => Ok(set.identity()),
            CodesOf::Stored(codes) => Ok(data::codes::fingerprint(codes.as_ref())?),
        }
    }

    /// Nats of each image's codes (B), and how many codes an image has.
    pub fn of_images(&self, images: &ImagesU8, classes: &[i64]) -> Result<(Tensor, u64)> {
        match &self.codes {
            CodesOf::Images(tokenizer, _) => self.nats(&tokenizer.encode(&images.to_float())?, classes),
            CodesOf::Stored(_) => Err(Failure::new("internal error: these codes are stored").into()),
        }
    }

    /// Nats of stored codes (B), how many an image has, and the images' classes.
    pub fn of_stored(&self, indices: &[u64]) -> Result<(Tensor, u64, Vec<i64>)> {
        let CodesOf::Stored(stored) = &self.codes else {
            return Err(Failure::new("internal error: no codes are stored").into());
        };
        let (mut codes, mut classes) = (vec![], vec![]);
        for &index in indices {
            let (record, view) = (index as usize / stored.views(), index as usize % stored.views());
            let record = stored.read(record, view)?;
            codes.extend(record.codes);
            classes.push(record.label);
        }
        let codes = Codes::new(Tensor::from_slice(&codes).view([indices.len() as i64, -1]))?;
        let (nats, num_tokens) = self.nats(&codes, &classes)?;
        Ok((nats, num_tokens, classes))
    }

    fn nats(&self, codes: &Codes, classes: &[i64]) -> Result<(Tensor, u64)> {
        let model = &self.transformer.model;
        let spec = model.spec();
        check_codes(codes, spec.num_tokens, spec.vocab_size)?;
        let condition = Conditioning::Class(Tensor::from_slice(classes).to_device(self.device));
        model.check_conditioning(&condition)?;
        let on_device = codes.tensor().to_device(self.device);
        let logits = tch::no_grad(|| model.logits(&condition, &on_device));
        let nats = eval::code_nats(&logits, codes)?.to_device(Device::Cpu);
        Ok((nats, spec.num_tokens as u64))
    }
}
