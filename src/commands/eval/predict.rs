//! A transformer's predictions of the codes of labelled images, or of stored codes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use ar_model::{AutoregressiveModel as _, Conditioning};
use base::{Codes, ImagesU8};
use cli::eval::RunArgs;
use data::codes::CodeSource;
use eval::{CodeLikelihoods, EvalBatch, ImageSet, ImageSource, Input, Item, Side};
use generate::{Location, locate};
use serde_json::{Value as Json, json};
use tch::{Device, Tensor};

use super::images;
use super::live::{Reconstructor, failed, named};
use crate::code_files::{check_codes, same_classes, same_tokenizer};
use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::device;

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
                CodesOf::Images(Box::new(tokenizer), images::open(path, Some(side), context)?)
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
        Ok(json!({"path": self.path, "images": self.num_images(), "model": model, "tokenizer": tokenizer}))
    }

    /// Content of the images or codes.
    pub fn identity(&self) -> Result<String> {
        match &self.codes {
            CodesOf::Images(_, set) => Ok(set.identity()),
            CodesOf::Stored(codes) => Ok(data::codes::fingerprint(codes.as_ref())?),
        }
    }

    /// Codes and classes of stored images.
    fn stored(stored: &dyn CodeSource, items: &mut [Item]) -> Result<(Codes, Vec<i64>)> {
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

    fn predict(&self, mut items: Vec<Item>, images: Vec<ImagesU8>) -> Result<EvalBatch> {
        let (codes, classes) = match (&self.codes, &images[..]) {
            (CodesOf::Stored(stored), _) => Self::stored(stored.as_ref(), &mut items)?,
            (CodesOf::Images(tokenizer, _), [images]) => {
                let classes = classes(&items)?;
                (tokenizer.encode(&images.to_float()).map_err(|e| named(e, &items))?, classes)
            }
            _ => return Err(Failure::new("internal error: a set is missing").into()),
        };
        let (nats, num_tokens) = self.nats(&codes, &classes).map_err(|e| named(e, &items))?;
        let name = self.transformer.source.origin().to_string();
        base::finite::check(
            &nats,
            items.iter().map(|i| i.name.as_str()),
            "the likelihood of its codes",
            &name,
        )?;
        let likelihood = Some(CodeLikelihoods { nats, num_tokens });
        Ok(EvalBatch { items, likelihood, ..EvalBatch::default() })
    }

    /// Nats of each image's codes (B), and the codes of an image.
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

impl ImageSource for Predictor {
    fn phase(&self) -> &'static str {
        "codes"
    }

    fn num_images(&self) -> u64 {
        match &self.codes {
            CodesOf::Images(_, set) => set.len() as u64,
            CodesOf::Stored(codes) => (codes.len() * codes.views()) as u64,
        }
    }

    fn inputs(&self) -> Vec<Input> {
        self.images().map(|set| Input::new(set, Side::Samples)).into_iter().collect()
    }

    fn batch(&self, items: Vec<Item>, images: Vec<ImagesU8>) -> eval::Result<EvalBatch> {
        self.predict(items, images).map_err(failed)
    }
}

/// Classes of images, which all must have one.
fn classes(items: &[Item]) -> Result<Vec<i64>, Failure> {
    let class = |item: &Item| {
        let message = format!("`{}` has no class, and the model predicts codes of a class", item.name);
        item.class.ok_or_else(|| Failure::new(message))
    };
    items.iter().map(class).collect()
}
