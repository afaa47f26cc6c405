//! `gen extract`: images → stored codes, or captions → stored text features.

mod encode;
mod plan;
mod report;
mod sink;
mod skipped;
mod text;

use std::path::PathBuf;
use std::sync::Arc;

use cli::extract::ExtractArgs;
use data::{Dataset, Joined, sort_corrupt_list};
use tokenizer::Tokenizer as _;

use self::encode::Job;
use self::plan::{check_labels, codes_per_image, plan, views};
use self::sink::Sink;
use self::skipped::nothing_read;
use crate::context::{Context, ExitStatus, open_images};
use crate::resolve::{device, open_tokenizer};

/// Encodes the missing units; [`ExitStatus::Incomplete`] if images were left out or it was
/// interrupted.
pub fn run(args: &ExtractArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let world = &context.world;
    let images = open(&args.data, context)?;
    context.printer.note(&images.describe());
    if let Some(folder) = &args.text {
        return text::run(folder, args, images.as_ref(), context);
    }
    let device = device::resolve(&args.job.compute.device)?;
    check_labels(images.as_ref(), args.format, context)?;
    let tokenizer = open_tokenizer(&args.job, device, context)?;
    let codes = codes_per_image(args, tokenizer.model.spec())?;
    let size = args.image_size.unwrap_or(tokenizer.model.spec().image_size);
    let views = views(args, size)?;
    let plan = plan(args, &tokenizer, codes, &views, images.as_ref())?;
    // Rank 0 creates the folder, or rejects that of another run; the others then find it complete.
    let units =
        world.from_first(|| Ok::<_, anyhow::Error>(Sink::new(args, plan.clone(), size)?.units(args)))?;
    let sink = Sink::new(args, plan, size)?;
    let job = Job { args, images: &images, tokenizer: &tokenizer, views };
    let shares = world.gather_values(&job.encode(&sink, &units, context)?)?;
    if !world.is_first() {
        return Ok(ExitStatus::Done);
    }
    if shares.iter().any(|share| share.stopped) {
        let dir = args.output.display();
        context.printer.line(&format!("stopped; run again, it goes on with what `{dir}` has"))?;
        return Ok(ExitStatus::Incomplete);
    }
    sort_corrupt_list(&args.output.join("skipped.tsv"), images.as_ref())?;
    let encoded = shares.iter().map(|share| share.encoded).sum();
    if encoded == 0 && !sink.has_any()? {
        return Err(nothing_read(args, images.len()).into());
    }
    let report = sink.finish(args, images.as_ref(), encoded)?;
    if report.skipped > 0 {
        let list = args.output.join("skipped.tsv");
        let n = report.skipped;
        context.printer.warning(&format!("{n} images could not be decoded; `{}` names them", list.display()));
    }
    context.finish(&report, args.job.json.json, report.skipped == 0)
}

/// The sets of images, one after the other.
fn open(paths: &[PathBuf], context: &Context) -> anyhow::Result<Arc<dyn Dataset>> {
    let mut sets = paths.iter().map(|p| open_images(p, context)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(if sets.len() == 1 { sets.remove(0) } else { Arc::new(Joined::new(sets)?) })
}
