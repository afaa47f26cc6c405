//! The codes that the arguments describe.

use anyhow::Context as _;
use cli::extract::{Augment, ExtractArgs, Format};
use data::codes::{CodePlan, TokenizerId};
use data::{Augment as _, Crops, Dataset, Target, Views};
use tokenizer::{Loaded, Tokenizer as _, TokenizerSpec};

use crate::context::Context;
use crate::error::UserError;

pub fn check_labels(images: &dyn Dataset, format: Format, context: &Context) -> anyhow::Result<()> {
    match images.target(0) {
        Target::Class(_) => Ok(()),
        Target::None => {
            context.printer.warning("the images have no class labels; their codes get label -1");
            Ok(())
        }
        Target::Caption(_) if format == Format::Npy => {
            Err(UserError::new("these images have captions, for which the official layout has no place")
                .hint("`--format shards` stores them")
                .into())
        }
        Target::Caption(_) => Ok(()),
    }
}

/// Number of codes of an image at the requested size.
pub fn codes_per_image(args: &ExtractArgs, spec: &TokenizerSpec) -> anyhow::Result<i64> {
    let Some(size) = args.image_size else { return Ok(spec.num_tokens) };
    let patch = (spec.image_size as f64 / (spec.num_tokens as f64).sqrt()).round() as i64;
    let codes = (size / patch).pow(2);
    if size % patch == 0 && spec.image_size_of(codes) == Some(size) {
        return Ok(codes);
    }
    let error = UserError::new(format!("the tokenizer does not take images of {size} pixels"));
    Err(match spec.any_size {
        true => error.hint(format!("the side must be a multiple of {patch}")),
        false => error.hint(format!("it was made for {} pixels; leave `--image-size` out", spec.image_size)),
    }
    .into())
}

pub fn views(args: &ExtractArgs, image_size: i64) -> anyhow::Result<Views> {
    let crops = match args.augment {
        Augment::None => Crops::Center,
        Augment::Flip => Crops::CenterAndFlip,
        Augment::TenCrop => Crops::Ten(args.crop_factor.clone()),
    };
    let views = Views { size: u32::try_from(image_size).context("the tokenizer's image size")?, crops };
    views.validate()?;
    if args.format == Format::Npy && views.views() > 10 {
        return Err(UserError::new("the official layout holds one crop factor in a folder")
            .hint("run once for each factor; `gen train-ar --codes DIR --codes DIR` trains on both")
            .into());
    }
    Ok(views)
}

pub fn plan(
    args: &ExtractArgs,
    tokenizer: &Loaded,
    num_tokens: i64,
    views: &Views,
    images: &dyn Dataset,
) -> anyhow::Result<CodePlan> {
    let spec = tokenizer.model.spec();
    let id =
        TokenizerId { fingerprint: tokenizer.fingerprint()?, codebook_size: spec.codebook_size, num_tokens };
    Ok(CodePlan {
        tokenizer: id,
        views: views.names(),
        precision: args.job.compute.precision.to_string(),
        records: images.len(),
        shard_size: args.shard_size as usize,
        data_fingerprint: data::fingerprint_for(&args.output, images),
        data: images.describe(),
    })
}
