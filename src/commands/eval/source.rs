//! Sources of the images judged.

use std::collections::BTreeMap;

use anyhow::Result;
use cli::eval::RunArgs;
use eval::{EvalSource, ImageSet, Plan};
use settings::Metric;

use super::kind::nothing_to_score;
use super::live::generator::Generator;
use super::live::reconstructions::{Originals, Reconstructions};
use super::live::reconstructor::Reconstructor;
use super::predict::Predictor;
use super::{images, labels, prompts};
use crate::context::Context;

/// Images judged.
pub enum Source {
    /// Images in files.
    Files(ImageSet),
    /// A tokenizer's rendering of images.
    Reconstruct(Box<Reconstructor>, ImageSet),
    /// A model's images.
    Generate(Box<Generator>),
    /// A model's predictions of codes.
    Predict(Box<Predictor>),
}

impl Source {
    /// Opens the given source.
    pub fn open(args: &RunArgs, plan: &Plan, context: &Context) -> Result<Self> {
        let with_meaning = |set: ImageSet| -> Result<ImageSet> {
            let set = match plan.needs(|needs| needs.prompts) {
                true => prompts::attach(set, args.captions.as_deref(), context)?,
                false => set,
            };
            if plan.has(Metric::ClassAgreement) { labels::label(set) } else { Ok(set) }
        };
        if let Some(path) = &args.images {
            return Ok(Source::Files(with_meaning(images::open(path, args.resize, context)?)?));
        }
        if let Some(path) = &args.reconstruct {
            let tokenizer = Reconstructor::open(args, context)?;
            let side = args.resize.unwrap_or(tokenizer.side());
            return Ok(Source::Reconstruct(
                Box::new(tokenizer),
                with_meaning(images::open(path, Some(side), context)?)?,
            ));
        }
        if let Some(path) = &args.likelihood {
            return Ok(Source::Predict(Box::new(Predictor::open(path, args, context)?)));
        }
        match args.draw.num_images {
            Some(n) => Ok(Source::Generate(Box::new(Generator::open(args, n, context)?))),
            None => Err(nothing_to_score().into()),
        }
    }

    /// The images as the evaluation reads them.
    pub fn judged(&self, args: &RunArgs, has_reference: bool) -> EvalSource<'_> {
        match self {
            Source::Files(set) => EvalSource::Files(set.clone()),
            Source::Reconstruct(tokenizer, images) => {
                let side = args.score_size.filter(|&side| Some(side) != images.side());
                let reference = match (has_reference, side) {
                    (true, _) => Originals::Elsewhere,
                    (false, None) => Originals::AsGiven,
                    (false, Some(side)) => Originals::Cropped(images.cropped(side)),
                };
                EvalSource::Live(Box::new(Reconstructions { tokenizer, images, side, reference }))
            }
            Source::Generate(generator) => EvalSource::Live(Box::new(&**generator)),
            Source::Predict(predictor) => EvalSource::Live(Box::new(&**predictor)),
        }
    }

    /// Class → name.
    pub fn class_names(&self) -> BTreeMap<i64, String> {
        match self {
            Source::Files(set) | Source::Reconstruct(_, set) => set.class_names().into_iter().collect(),
            Source::Generate(generator) => generator.classes().map(|c| (c.index, c.name.clone())).collect(),
            Source::Predict(predictor) => predictor.class_names().into_iter().collect(),
        }
    }
}
