//! `gen reconstruct`: images → codes → images, side by side, with scores.

mod outputs;
mod report;

use base::{Images, ImagesU8, Progress};
use cli::reconstruct::ReconstructArgs;
use tch::Device;
use tokenizer::Tokenizer as _;

use self::outputs::{Outputs, score};
use self::report::Report;
use crate::context::{Context, ExitStatus, report_left_out, report_skipped};
use crate::files;
use crate::inputs::{Batch, Inputs};
use crate::resolve::{device, open_tokenizer};

/// Reconstructs all images; [`ExitStatus::Incomplete`] when some were skipped.
pub fn run(args: &ReconstructArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let device = device::resolve(&args.job.compute.device)?;
    let mut inputs = Inputs::open(&args.images)?;
    inputs.left_out().for_each(|(path, files)| report_left_out(context, path, files));
    let tokenizer = open_tokenizer(&args.job, device, context)?;
    let side = tokenizer.model.spec().image_size;
    let world = &context.world;
    world.from_first(|| files::make_folder(&args.output))?;
    let mut outputs = Outputs::new(&args.output);
    let mut progress = context.printer.clone();
    progress.start("reconstructing", Some(inputs.len() as u64));
    let reconstruct = |batch: &Batch| {
        let images = Images::new(batch.images.tensor().to_device(device))?;
        let codes = tokenizer.model.encode(&images);
        let decoded = codes.and_then(|codes| tokenizer.model.decode(&codes));
        let decoded = decoded.map_err(|e| e.of_images(|i| format!("`{}`", batch.names[i])))?;
        score(&batch.images, ImagesU8::new(decoded.to_u8().into_tensor().to_device(Device::Cpu))?)
    };
    inputs.for_each_batch((side, args.job.batch.batch_size), world, reconstruct, |batch| {
        progress.advance(batch.names.len() as u64);
        outputs.take(batch)
    })?;
    progress.finish();
    if !world.is_first() {
        return Ok(ExitStatus::Done);
    }
    let report = Report {
        tokenizer: tokenizer.source.origin().to_string(),
        sheet: outputs.write_sheet()?,
        mean: outputs.scores.means(),
        images: outputs.rows,
        skipped: inputs.skipped,
    };
    report_skipped(context, &report.skipped);
    context.finish(&report, args.job.json.json, report.skipped.is_empty())
}
