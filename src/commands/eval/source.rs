//! Sources of the images judged.

use std::collections::BTreeMap;

use anyhow::Result;
use cli::eval::RunArgs;
use eval::{EvalSource, ImageSet, ImageSource, Plan, SourceFacts, SourceKind};
use serde_json::{Value as Json, json};
use settings::{Metric, ReferenceKind};

use super::live::{Generator, Originals, Reconstructions, Reconstructor};
use super::predict::Predictor;
use super::{agreement, images, prompts};
use crate::context::Context;
use crate::failure::Failure;

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

/// The kind of source that was typed.
pub fn kind(args: &RunArgs) -> Result<SourceKind> {
    let kind = match (&args.images, &args.reconstruct, &args.likelihood, args.draw.num_images) {
        (Some(_), ..) => SourceKind::Files,
        (_, Some(_), ..) => SourceKind::Reconstruct,
        (_, _, Some(_), _) => SourceKind::Predict,
        (.., Some(_)) => SourceKind::Generate,
        _ => return Err(nothing_to_score().into()),
    };
    // The parser does not miss what another source excludes.
    let needs = [
        (args.score_size.is_some(), SourceKind::Reconstruct, "--score-size", "--reconstruct IMAGES"),
        (args.draw.balanced, SourceKind::Generate, "--balanced", "--num-images N"),
    ];
    match needs.into_iter().find(|(given, needed, ..)| *given && *needed != kind) {
        Some((_, _, flag, source)) => {
            Err(Failure::new(format!("`{flag}` belongs to `{source}`, which is not given")).into())
        }
        None => Ok(kind),
    }
}

fn nothing_to_score() -> Failure {
    Failure::new("there is nothing to score")
        .hint("`gen eval IMAGES --reference PATH` scores images")
        .hint("`--num-images N` scores what a model makes, `--reconstruct IMAGES` a tokenizer, `--likelihood DATA` a transformer's predictions")
        .hint("`gen eval --features A.npz --reference-features B.npz` scores features")
}

impl Source {
    /// Opens what was typed.
    pub fn open(args: &RunArgs, plan: &Plan, context: &Context) -> Result<Self> {
        let with_meaning = |set: ImageSet| -> Result<ImageSet> {
            let set = match plan.needs(|needs| needs.prompts) {
                true => prompts::attach(set, args.captions.as_deref(), context)?,
                false => set,
            };
            if plan.has(Metric::ClassAgreement) { agreement::label(set) } else { Ok(set) }
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

    /// Facts for reports and saved states; `content` of the images only where it is compared.
    pub fn facts(&self, args: &RunArgs, content: bool) -> Result<SourceFacts> {
        let live = !matches!(self, Source::Files(_));
        Ok(SourceFacts {
            description: self.describe()?,
            content: if content { self.identity()? } else { None },
            precision: live.then(|| args.compute.precision.to_string()),
            resize: self.resize(args),
            image_conversion: self.conversion(),
            codebook_size: match self {
                Source::Reconstruct(tokenizer, _) => Some(tokenizer.codebook_size()),
                Source::Files(_) | Source::Generate(_) | Source::Predict(_) => None,
            },
            has_originals: matches!(self, Source::Reconstruct(..)),
        })
    }

    /// Class → name.
    pub fn class_names(&self) -> BTreeMap<i64, String> {
        match self {
            Source::Files(set) | Source::Reconstruct(_, set) => set.class_names().into_iter().collect(),
            Source::Generate(generator) => generator.classes().map(|c| (c.index, c.name.clone())).collect(),
            Source::Predict(predictor) => predictor.class_names().into_iter().collect(),
        }
    }

    /// Paths, settings and weights, for reports and saved states.
    pub fn describe(&self) -> Result<Json> {
        Ok(match self {
            Source::Files(set) => json!({"path": set.path, "images": set.len()}),
            Source::Reconstruct(tokenizer, set) => {
                json!({"path": set.path, "images": set.len(), "tokenizer": tokenizer.fingerprint()?})
            }
            Source::Generate(generator) => {
                let settings = serde_json::to_value(generator.settings())?;
                json!({"images": generator.num_images(), "classes": generator.draws(), "settings": settings})
            }
            Source::Predict(predictor) => predictor.describe()?,
        })
    }

    /// Content of the images, if they are in files: see [`ImageSet::identity`].
    fn identity(&self) -> Result<Option<String>> {
        match self {
            Source::Files(set) | Source::Reconstruct(_, set) => Ok(Some(set.identity())),
            Source::Generate(_) => Ok(None),
            Source::Predict(predictor) => predictor.identity().map(Some),
        }
    }

    /// The number that the scores stand beside, where the source tells it.
    pub fn protocol(&self, args: &RunArgs) -> Option<ReferenceKind> {
        args.protocol.or(match self {
            Source::Files(_) | Source::Predict(_) => None,
            Source::Reconstruct(..) => Some(ReferenceKind::Rfid),
            Source::Generate(_) => Some(ReferenceKind::Gfid),
        })
    }

    /// How images became 8-bit RGB.
    fn conversion(&self) -> &'static str {
        match self {
            Source::Files(_) | Source::Predict(_) => "8-bit RGB as stored",
            _ => "trunc(clamp(127.5 x + 128, 0, 255))",
        }
    }

    /// How images were brought to their size.
    fn resize(&self, args: &RunArgs) -> String {
        let crop = |side: Option<u32>| side.map_or("none".into(), |s| format!("ADM centre crop to {s}x{s}"));
        match (self, args.score_size) {
            (Source::Reconstruct(_, set), Some(side)) if set.side() != Some(side) => format!(
                "{}, then both to {side}x{side} by PyTorch's bicubic without antialias",
                crop(set.side())
            ),
            (Source::Reconstruct(_, set), _) => crop(set.side()),
            (Source::Predict(predictor), _) => crop(predictor.images().and_then(ImageSet::side)),
            _ => crop(args.resize),
        }
    }
}
