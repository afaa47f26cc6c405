//! `gen sample --from image.png`: the same image once more, from its provenance.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cli::sample::{DEFAULT_OUTPUT, SampleArgs};
use generate::output::Folder;
use generate::rerender::{self, Overrides};
use generate::{GenerateConfig, Generator, GpuSettings, Picture, Provenance, Run, Targets};
use serde::Serialize;

use crate::context::{self, Context, ExitStatus};
use crate::resolve::device;

#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    from: PathBuf,
    /// Largest difference of the 255 levels of a pixel; absent if the images have different sizes.
    largest_difference: Option<u8>,
    /// Differences from the run that first made the image.
    differences: Vec<String>,
}

/// Ends with [`ExitStatus::Incomplete`] if the new image is not the old one, or not from the same
/// weights.
pub fn run(png: &Path, args: &SampleArgs, context: &Context) -> Result<ExitStatus> {
    let (then, before) = Provenance::read(png)?;
    let GenerateConfig { models, draw } = config(png, &then, args)?;
    let generator = Generator::load(models, &mut context.printer.clone())?;
    let targets = rerender::targets(&then, &generator)?;
    let mut run = generator.run(&draw)?;
    let mut folder = Folder::open(&args.output.clone().unwrap_or(Path::new(DEFAULT_OUTPUT).join("again")))?;
    let path = folder.path_of(then.index);
    rerender::check_output(png, &path)?;
    let picture = draw_one(&mut run, &targets, &mut folder)?;
    let largest_difference = rerender::largest_difference(&before, &picture);
    let differences = rerender::differences(&then.run, run.settings());
    report(args, context, Report { path, from: png.to_owned(), largest_difference, differences })
}

/// The stored settings, with the models and GPU options of the command line.
fn config(png: &Path, then: &Provenance, args: &SampleArgs) -> Result<GenerateConfig> {
    let typed = &args.compute;
    let device = device::resolve(&typed.device)?;
    let more = GpuSettings {
        kernels: typed.gpu.gpu_kernels,
        int8_cache: typed.gpu.int8_cache,
        cuda_graph: typed.cuda_graph,
        tf32: typed.device.tf32,
    };
    let gpu = rerender::gpu_settings(then, more, device);
    libtorch_ext::tf32::set(gpu.tf32)?;
    let overrides = Overrides {
        model: args.model.choice(),
        tokenizer: args.tokenizer.choice(),
        text_encoder: args.text_encoder.clone(),
    };
    Ok(rerender::config(png, then, &overrides, gpu, device)?)
}

/// Makes and writes the one image of `targets`.
fn draw_one(run: &mut Run, targets: &Targets, folder: &mut Folder) -> Result<Picture> {
    let (settings, mut made) = (run.settings().clone(), vec![]);
    run.batches(targets, targets.images.start, 1, &mut |batch| {
        made.extend(batch);
        ControlFlow::Continue(())
    })?;
    folder.write(&settings, &made)?;
    let image = made.pop().ok_or_else(|| anyhow::anyhow!("internal error: the model made no image"))?;
    Ok(image.picture)
}

/// Convolutions round differently on other machines and with another number of threads, which the
/// rounding to 8 bits shows in a few pixels.
const ROUNDING: u8 = 1;

fn report(args: &SampleArgs, context: &Context, report: Report) -> Result<ExitStatus> {
    for difference in &report.differences {
        context.printer.warning(&format!("not as it was: {difference}"));
    }
    match report.largest_difference {
        Some(0) => context.printer.note("pixel for pixel the same image"),
        Some(ROUNDING) => context.printer.note("the same image, up to the rounding of pixels"),
        Some(n) => {
            let from = report.from.display();
            context.printer.warning(&format!("its pixels differ from `{from}`'s by up to {n} of 255"));
        }
        None => context.printer.warning(&format!("`{}` has another size", report.from.display())),
    }
    let same_weights = !report.differences.iter().any(|d| d.contains("weights"));
    let same_image = report.largest_difference.is_some_and(|n| n <= ROUNDING);
    context.finish(&report, args.json.json, same_image && same_weights)
}

impl context::Report for Report {
    fn text(&self) -> String {
        self.path.display().to_string()
    }
}
