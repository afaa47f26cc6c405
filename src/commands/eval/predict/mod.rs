//! A transformer's predictions of the codes of labelled images, or of stored codes.

mod codes;

use std::path::{Path, PathBuf};

use anyhow::Result;
use ar_model::{AutoregressiveModel as _, Conditioning};
use base::{Codes, ImagesU8};
use cli::eval::RunArgs;
use eval::{CodeLikelihoods, EvalBatch, ImageSet, ImageSource, Input, Item, Side};
use generate::{Location, locate};
use serde_json::{Value as Json, json};
use tch::{Device, Tensor};

use self::codes::{CodesOf, stored};
use super::live::error::{failed, named};
use crate::code_files::{check_codes, same_classes};
use crate::context::Context;
use crate::error::UserError;
use crate::resolve::device;

/// A transformer, and what it predicts.
pub struct Predictor {
    transformer: ar_model::Loaded,
    codes: CodesOf,
    path: PathBuf,
    device: Device,
}

impl Predictor {
    /// Opens the transformer, and a folder of code shards or labelled images with the tokenizer.
    pub fn open(path: &Path, args: &RunArgs, context: &Context) -> Result<Self> {
        let device = device::resolve(&args.compute.device)?;
        let location = locate::transformer(&args.model.choice())?;
        let codes = CodesOf::open(path, args, (&location, device), context)?;
        let mut progress = context.printer.clone();
        let transformer = location.open_transformer(device, args.compute.precision, &mut progress)?;
        let predictor = Predictor { transformer, codes, path: path.to_owned(), device };
        predictor.check()?;
        predictor.check_classes(&location)?;
        Ok(predictor)
    }

    fn check(&self) -> Result<()> {
        if self.transformer.model.spec().num_classes.is_none() {
            let error = UserError::new("the model is conditioned on text, not on classes");
            return Err(error.hint("`--likelihood` needs a class-conditional model").into());
        }
        self.codes.check()
    }

    fn check_classes(&self, model: &Location) -> Result<()> {
        let (described, classes) = self.codes.classes();
        same_classes((&described, classes), model, self.transformer.model.spec().num_classes)
    }

    /// The images, if they are not encoded yet.
    pub fn images(&self) -> Option<&ImageSet> {
        self.codes.images()
    }

    /// The classes by number.
    pub fn class_names(&self) -> Vec<(i64, String)> {
        self.codes.class_names()
    }

    /// Content of the images or codes.
    pub fn identity(&self) -> Result<String> {
        self.codes.identity()
    }

    /// The data and the weights.
    pub fn describe(&self) -> Result<Json> {
        let tokenizer = self.codes.tokenizer()?;
        let model = self.transformer.fingerprint()?;
        Ok(json!({"path": self.path, "images": self.num_images(), "model": model, "tokenizer": tokenizer}))
    }

    fn predict(&self, mut items: Vec<Item>, images: Vec<ImagesU8>) -> Result<EvalBatch> {
        let (codes, classes) = match (&self.codes, &images[..]) {
            (CodesOf::Stored(codes), _) => stored(codes.as_ref(), &mut items)?,
            (CodesOf::Images(tokenizer, _), [images]) => {
                let classes = classes(&items)?;
                (tokenizer.encode(&images.to_float()).map_err(|e| named(e, &items))?, classes)
            }
            _ => return Err(UserError::new("internal error: a set is missing").into()),
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
        self.codes.num_images()
    }

    fn inputs(&self) -> Vec<Input> {
        self.images().map(|set| Input::new(set, Side::Samples)).into_iter().collect()
    }

    fn batch(&self, items: Vec<Item>, images: Vec<ImagesU8>) -> eval::Result<EvalBatch> {
        self.predict(items, images).map_err(failed)
    }
}

/// Classes of images, which all must have one.
fn classes(items: &[Item]) -> Result<Vec<i64>, UserError> {
    let class = |item: &Item| {
        let message = format!("`{}` has no class, and the model predicts codes of a class", item.name);
        item.class.ok_or_else(|| UserError::new(message))
    };
    items.iter().map(class).collect()
}
