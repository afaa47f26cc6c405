//! `--reference`: images or statistics.

use std::path::Path;

use anyhow::Result;
use backbones::files::sha256;
use cli::eval::RunArgs;
use eval::{JobError, Plan, Reference, ReferenceFile, is_npz};
use settings::Metric;

use super::source::Source;
use super::{images, labels};
use crate::context::Context;
use crate::error::UserError;

/// Opens the reference, if the plan needs one that is not the images that a tokenizer is given.
pub fn open(args: &RunArgs, source: &Source, plan: &Plan, context: &Context) -> Result<Option<Reference>> {
    let Some(path) = &args.reference else {
        let metrics = plan.names(|needs| needs.reference);
        return match metrics.is_empty() || matches!(source, Source::Reconstruct(..)) {
            true => Ok(None),
            false => Err(eval::Error::from(JobError::NoReference { metrics }).into()),
        };
    };
    let resize = match source {
        Source::Reconstruct(_, set) => args.score_size.or(set.side()),
        _ => args.resize,
    };
    let sha256 = checked_sha256(path, args.reference_sha256.as_deref())?;
    let file = match is_npz(path) || is_torch_cache(path) {
        true => Some(ReferenceFile::open_checked(path)?),
        false => None,
    };
    let has_images = file.as_ref().is_none_or(|f| f.images.is_some());
    let images = if has_images { Some(images::open(path, resize, context)?) } else { None };
    let mut reference = Reference::new(path.clone(), file, images, sha256, source.protocol(args))?;
    plan.check_reference(&reference)?;
    if plan.has(Metric::ClassAgreement) {
        label(&mut reference, context);
    }
    note(&reference, context);
    Ok(Some(reference))
}

/// SHA-256 of a file; a folder has none.
fn checked_sha256(path: &Path, expected: Option<&str>) -> Result<Option<String>> {
    let found = if path.is_file() { Some(sha256(path)?) } else { None };
    if let (Some(expected), found) = (expected, found.as_deref().unwrap_or("none: it is no file"))
        && !found.eq_ignore_ascii_case(expected)
    {
        let message = format!("`{}` has the SHA-256 {found}, expected {expected}", path.display());
        return Err(UserError::new(message).hint("it is another file, or a damaged one").into());
    }
    Ok(found)
}

/// Adds the classes of ImageNet-1k to the images if all have one; gives the reason otherwise.
fn label(reference: &mut Reference, context: &Context) {
    let Some(images) = reference.images.take() else { return };
    reference.images = Some(match labels::label(images.clone()) {
        Ok(labelled) => labelled,
        Err(e) => {
            context.printer.note(&format!("the reference's own agreement is not computed: {e}"));
            images
        }
    });
}

/// Whether it is a `.pt` or safetensors file, by content.
fn is_torch_cache(path: &Path) -> bool {
    path.is_file() && data::open(path).is_err() && weights::Checkpoint::open(path).is_ok()
}

fn note(reference: &Reference, context: &Context) {
    let images = reference.images.as_ref().map(|i| format!("; {}", i.describe())).unwrap_or_default();
    context.printer.note(&format!("reference: `{}`, {}{images}", reference.path.display(), reference.kind));
}
