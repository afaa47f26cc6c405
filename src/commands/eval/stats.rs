//! `gen eval stats`: statistics of a reference set, in a file that records its use.

use std::path::PathBuf;

use anyhow::Result;
use backbones::files::sha256;
use backbones::{FeatureId, Network};
use base::Skipped;
use cli::eval::StatsArgs;
use eval::{AccumulateSpec, FeatureAccumulator, Role, Tag, reference_features, write_reference};
use serde::Serialize;

use super::{images, networks};
use crate::context::{self, Context, ExitStatus, report_skipped, stop_on_signal};
use crate::files;
use crate::resolve::device;

#[derive(Debug, Serialize)]
struct Report {
    output: PathBuf,
    sha256: String,
    images: u64,
    features: FeatureId,
    skipped: Vec<Skipped>,
}

/// Computes and writes them.
pub fn run(args: &StatsArgs, context: &Context) -> Result<ExitStatus> {
    let device = device::resolve(&args.compute)?;
    let set = images::open(&args.images, args.resize, context)?;
    let world = &context.world;
    // Before hours of work: can it be written?
    world.from_first(|| files::temporary_for(&args.output).map(drop))?;
    let options = networks::options(&args.networks)?;
    let role = if args.fdd { Role::Dino } else { Role::Main };
    let spatial = role == Role::Main && options.network.unwrap_or(Network::InceptionFid).has_spatial();
    let network = options.open(role, device)?;
    context.printer.note(&format!("network: {}", network.id()));
    let sums = AccumulateSpec { groups: 1, spatial, ..AccumulateSpec::default() };
    let batch_size = usize::try_from(args.batch.batch_size)?;
    let (stop, mut progress) = (stop_on_signal()?, context.printer.clone());
    let found = reference_features(&set, (role, network), sums, batch_size, (world, &stop), &mut progress)?;
    if !world.is_first() {
        return Ok(ExitStatus::Done);
    }
    let Some((features, skipped)) = found else {
        context.printer.warning("stopped before the end; nothing was written");
        return Ok(ExitStatus::Incomplete);
    };
    write(args, &features, skipped, spatial, context)
}

fn write(
    args: &StatsArgs,
    features: &FeatureAccumulator,
    skipped: Vec<Skipped>,
    spatial: bool,
    context: &Context,
) -> Result<ExitStatus> {
    let id = features.id().clone();
    let note = match args.note.is_empty() {
        true => format!("{} images of `{}`", features.count(), args.images.display()),
        false => args.note.clone(),
    };
    let resize = args.resize.map_or("none".into(), |s| format!("ADM centre crop to {s}x{s}"));
    let tag = Tag { kind: args.kind, note, images: features.count(), resize, features: id.clone() };
    let spatial = if spatial { Some(features.spatial()?) } else { None };
    write_reference(&args.output, &features.moments()?, spatial, &tag)?;
    let report = Report {
        output: args.output.clone(),
        sha256: sha256(&args.output)?,
        images: features.count(),
        features: id,
        skipped,
    };
    report_skipped(context, &report.skipped);
    context.finish(&report, args.json.json, report.skipped.is_empty())
}

impl context::Report for Report {
    fn text(&self) -> String {
        format!("{}: {} images, SHA-256 {}", self.output.display(), self.images, self.sha256)
    }
}
