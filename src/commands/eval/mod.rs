//! `gen eval`: images → scores, with all that decides what they may be compared with.

mod agreement;
mod clip_score;
mod digest;
mod evaluation;
mod feature_files;
mod finish;
mod html;
mod images;
mod live;
mod metrics;
mod networks;
mod parts;
mod plots;
mod predict;
mod prompts;
mod reference;
mod report;
mod scores;
mod sets;
mod source;
mod state;
mod stats;
mod tally;
mod texts;
mod thumbs;
mod titles;
mod values;
mod work;

use anyhow::Result;
use cli::eval::{EvalArgs, EvalCommand, RunArgs};

use self::evaluation::{Evaluation, open_reference};
use self::images::OneSize;
use self::metrics::Plan;
use self::networks::Networks;
use self::parts::{Shard, merge_files};
use self::source::{Source, SourceKind};
use self::work::{Keeping, Walk};
use super::recipe;
use crate::context::{Context, Outcome, report_skipped};
use crate::settings::device;

/// Scores, or one of the jobs beside it.
pub fn run(args: &EvalArgs, context: &Context) -> Result<Outcome> {
    if let Some(name) = &args.recipe.recipe {
        let (device, json) = (args.run.compute.device.device, args.run.json.json);
        return recipe::run(name, &args.recipe, device, json, context);
    }
    match (&args.command, &args.run) {
        (Some(EvalCommand::Stats(stats)), _) => stats::run(stats, context),
        (None, run) => match (&run.features, &run.reference_features) {
            (Some(samples), Some(reference)) => {
                device::resolve(&run.compute.device)?;
                feature_files::run(samples, reference, run, context)
            }
            _ => score(run, context),
        },
    }
}

fn score(args: &RunArgs, context: &Context) -> Result<Outcome> {
    let device = device::resolve(&args.compute.device)?;
    let network = networks::named(&args.networks)?;
    let plan = Plan::new(&args.metrics, SourceKind::of(args)?, args.interval, network)?;
    let source = Source::open(args, &plan, context)?;
    let reference = open_reference(args, &source, &plan, context)?;
    let classes = agreement::classes(args, &plan, &source)?;
    let networks = Networks::open(&plan, &args.networks, device, context)?;
    let evaluation = Evaluation { args, plan, source, reference, classes, networks };
    evaluation.must_have_enough()?;
    let phases = evaluation.phases()?;
    let run = evaluation.description()?;
    let wanted = evaluation.wanted()?;
    if !args.parts.merge.is_empty() {
        let lengths: Vec<(String, u64)> = phases.iter().map(|p| (p.name.to_owned(), p.len())).collect();
        let state = merge_files(&args.parts.merge, &run, &wanted, &lengths)?;
        drop(phases);
        return evaluation.finish(state, context);
    }
    let shard = Shard::parse(args.parts.shard.as_deref())?;
    let mut state = evaluation.begin(&run, &wanted, shard)?;
    let keeping = Keeping { file: args.parts.partial.as_deref(), run: &run, shard };
    let mut one_size = OneSize::default();
    evaluation.expect_size(&mut one_size)?;
    let batch_size = usize::try_from(args.batch.batch_size)?;
    let pixels = evaluation.plan.pixels();
    let mut walk = Walk { networks: &evaluation.networks, device, batch_size, keeping, one_size, pixels };
    let complete = walk.run(&phases, &mut state, context)?;
    drop(phases);
    if !complete {
        let going_on = if args.parts.partial.is_some() { "; the same command goes on" } else { "" };
        context.printer.warning(&format!("stopped before the end{going_on}"));
        return Ok(Outcome::Incomplete);
    }
    match (&args.parts.partial, shard.world) {
        (Some(file), 2..) => {
            context.printer.line(&file.display().to_string())?;
            report_skipped(context, &state.tally.skipped);
            Ok(if state.tally.skipped.is_empty() { Outcome::Done } else { Outcome::Incomplete })
        }
        _ => evaluation.finish(state, context),
    }
}
