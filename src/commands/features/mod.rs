//! `gen features`: images → features of a frozen network.

mod file;

use std::collections::BTreeMap;

use backbones::files::weights_folder;
use backbones::{FeatureId, InputPath, LpipsNet, Network, WeightSource};
use base::Progress;
use cli::features::FeaturesArgs;
use serde::Serialize;

use self::file::FeatureFile;
use crate::context::{self, Context, ExitStatus, report_left_out, report_skipped};
use crate::error::UserError;
use crate::inputs::{Batch, Inputs, Skipped};
use crate::resolve::device;

#[derive(Debug, Serialize)]
struct Report {
    output: String,
    images: usize,
    /// Name → shape.
    arrays: BTreeMap<&'static str, [u64; 2]>,
    features: FeatureId,
    skipped: Vec<Skipped>,
}

/// Extracts all features; [`ExitStatus::Incomplete`] when images were skipped.
pub fn run(args: &FeaturesArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let device = device::resolve(&args.device)?;
    let network = network(&args.network)?;
    let path = args.input_path.as_deref().map(str::parse::<InputPath>).transpose()?;
    if let Some(path) = path {
        path.among(network.input_paths())?;
    }
    let mut inputs = Inputs::open(&args.images)?;
    inputs.left_out().for_each(|(path, files)| report_left_out(context, path, files));
    let asked: Option<WeightSource> = args.weights.as_deref().map(|w| w.parse()).transpose()?;
    let weights =
        network.weights(asked.as_ref(), &weights_folder(args.weights_folder.weights_dir.as_deref()))?;
    let world = &context.world;
    let mut file = world.is_first().then(|| FeatureFile::create(&args.output)).transpose()?;
    let extractor = network.open(&weights, path, device)?;
    context.printer.note(&format!("features: {}", extractor.id()));
    if !extractor.id().comparable {
        let note = "these weights are not the public ones: the features compare with nothing published";
        context.printer.warning(note);
    }

    let mut progress = context.printer.clone();
    progress.start("extracting", Some(inputs.len() as u64));
    let extract = |batch: &Batch| {
        let features = extractor.extract(&batch.images.to_u8())?;
        let names = || batch.names.iter().map(String::as_str);
        for values in
            [Some(&features.pool), features.spatial.as_ref(), features.logits.as_ref()].into_iter().flatten()
        {
            base::finite::check(values, names(), "the features", &extractor.id().to_string())?;
        }
        Ok(file::arrays(features))
    };
    inputs.for_each_stored(args.batch.batch_size, world, extract, |batch| {
        progress.advance(batch.names.len() as u64);
        file.iter_mut().try_for_each(|file| file.append(&batch))
    })?;
    progress.finish();
    let Some(file) = file else { return Ok(ExitStatus::Done) };

    let arrays: BTreeMap<_, _> = file.finish(extractor.id())?.into_iter().collect();
    let report = Report {
        output: args.output.display().to_string(),
        images: arrays.get("pool").map_or(0, |shape| shape[0] as usize),
        arrays,
        features: extractor.id().clone(),
        skipped: inputs.skipped,
    };
    report_skipped(context, &report.skipped);
    context.finish(&report, args.json.json, report.skipped.is_empty())
}

fn network(name: &str) -> anyhow::Result<Network> {
    if LpipsNet::ALL.iter().any(|net| net.name() == name) {
        let message = format!("`{name}` is a distance of two images; it has no features of one");
        return Err(UserError::new(message).into());
    }
    Ok(name.parse()?)
}

impl context::Report for Report {
    fn text(&self) -> String {
        let shape = |(name, [n, d]): (&&str, &[u64; 2])| format!("{name} {n} x {d}");
        let arrays: Vec<String> = self.arrays.iter().map(shape).collect();
        format!("{}: {} ({})", self.output, arrays.join(", "), self.features)
    }
}
