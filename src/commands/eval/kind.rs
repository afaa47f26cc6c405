//! Kind of source on the command line.

use anyhow::Result;
use cli::eval::RunArgs;
use eval::SourceKind;

use crate::error::UserError;

/// Kind of source on the command line.
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
            Err(UserError::new(format!("`{flag}` belongs to `{source}`, which is not given")).into())
        }
        None => Ok(kind),
    }
}

/// The error if no source is given.
pub fn nothing_to_score() -> UserError {
    UserError::new("there is nothing to score")
        .hint("`gen eval IMAGES --reference PATH` scores images")
        .hint("`--num-images N` scores what a model makes, `--reconstruct IMAGES` a tokenizer, `--likelihood DATA` a transformer's predictions")
        .hint("`gen eval --features A.npz --reference-features B.npz` scores features")
}
