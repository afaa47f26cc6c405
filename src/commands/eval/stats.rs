//! `gen eval stats`: statistics of a reference set, in a file that says what it is for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use backbones::files::sha256;
use backbones::{FeatureId, Network};
use cli::eval::StatsArgs;
use eval::{AccumulateSpec, FeatureAccumulator, PixelMetrics, Tag, write_reference};
use serde::Serialize;
use serde_json::Value as Json;

use super::images::{ImageSet, OneSize};
use super::networks::{self, Networks, Role};
use super::parts::Shard;
use super::state::State;
use super::work::{Job, Keeping, Phase, Walk};
use crate::context::{Context, Outcome, report_skipped};
use crate::files;
use crate::inputs::Skipped;
use crate::settings::device;

#[derive(Debug, Serialize)]
struct Report {
    output: PathBuf,
    sha256: String,
    images: u64,
    features: FeatureId,
    skipped: Vec<Skipped>,
}

/// Computes and writes them.
pub fn run(args: &StatsArgs, context: &Context) -> Result<Outcome> {
    let device = device::resolve(&args.compute)?;
    let set = ImageSet::open(&args.images, args.resize, context)?;
    files::temporary_for(&args.output)?; // before hours of work: can it be written?
    let role = if args.fdd { Role::Dino } else { Role::Main };
    let named = networks::named(&args.networks)?.unwrap_or(Network::InceptionFid);
    let spatial = role == Role::Main && named.has_spatial();
    let network = networks::open(role, &args.networks, device)?;
    let id = network.id().clone();
    context.printer.note(&format!("network: {id}"));
    let gather = AccumulateSpec { groups: 1, spatial, ..AccumulateSpec::default() };
    let collectors = BTreeMap::from([(role, FeatureAccumulator::new(id.clone(), gather))]);
    let mut state = State::new(BTreeMap::new(), collectors);
    let features = BTreeMap::from([(role, network)]);
    let networks = Networks { features, lpips: None, perceptual: None, clip_score: None, classifier: None };
    let keeping = Keeping { file: None, run: &Json::Null, shard: Shard::WHOLE };
    let batch_size = usize::try_from(args.batch.batch_size)?;
    let one_size = OneSize::default();
    let pixels = PixelMetrics::ALL; // there are no pairs
    let mut walk = Walk { networks: &networks, device, batch_size, keeping, one_size, pixels };
    let phase = Phase { name: "reference", job: Job::Reference(set) };
    if !walk.run(&[phase], &mut state, context)? {
        context.printer.warning("stopped before the end; nothing was written");
        return Ok(Outcome::Incomplete);
    }
    let collector = state.reference.get(&role).context("internal error: nothing was gathered")?;
    write(args, collector, &state.tally.skipped, spatial, context)
}

fn write(
    args: &StatsArgs,
    collector: &FeatureAccumulator,
    skipped: &[Skipped],
    spatial: bool,
    context: &Context,
) -> Result<Outcome> {
    let (id, skipped) = (collector.id().clone(), skipped.to_vec());
    let note = match args.note.is_empty() {
        true => format!("{} images of `{}`", collector.count(), args.images.display()),
        false => args.note.clone(),
    };
    let resize = args.resize.map_or("none".into(), |s| format!("ADM centre crop to {s}x{s}"));
    let tag = Tag { kind: args.kind, note, images: collector.count(), resize, features: id.clone() };
    let spatial = if spatial { Some(collector.spatial()?) } else { None };
    write_reference(&args.output, &collector.moments()?, spatial, &tag)?;
    let report = Report {
        output: args.output.clone(),
        sha256: sha256(&args.output)?,
        images: collector.count(),
        features: id,
        skipped,
    };
    report_skipped(context, &report.skipped);
    match args.json.json {
        true => context.printer.json(&report)?,
        false => context.printer.line(&format!(
            "{}: {} images, SHA-256 {}",
            report.output.display(),
            report.images,
            report.sha256
        ))?,
    }
    Ok(if report.skipped.is_empty() { Outcome::Done } else { Outcome::Incomplete })
}
