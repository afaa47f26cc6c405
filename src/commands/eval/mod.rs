//! `gen eval`: arguments → an [`EvalJob`] → a report.

mod agreement;
mod benchmark;
mod facts;
mod html;
mod images;
mod kind;
mod labels;
mod live;
mod networks;
mod output;
mod plots;
mod predict;
mod prompts;
mod reference;
mod report;
mod source;
mod stats;
mod texts;

use std::path::Path;

use anyhow::Result;
use cli::eval::{EvalArgs, EvalCommand, RunArgs};
use eval::{Ending, EvalJob, FeatureFilesJob, KidSettings, MetricOptions, Parts, Plan, Shard};

use self::report::Report;
use self::source::Source;
use crate::context::{Context, ExitStatus, report_skipped, stop_on_signal};
use crate::error::UserError;
use crate::resolve::device;

/// Scores, or does one of the jobs beside it.
pub fn run(args: &EvalArgs, context: &Context) -> Result<ExitStatus> {
    if let Some(name) = &args.benchmark.benchmark {
        let (device, json) = (args.run.compute.device.device, args.run.json.json);
        return benchmark::run(name, &args.benchmark, device, json, context);
    }
    match (&args.command, &args.run) {
        (Some(EvalCommand::Stats(stats)), _) => stats::run(stats, context),
        (None, run) => match (&run.features, &run.reference_features) {
            (Some(samples), Some(reference)) => {
                device::resolve(&run.compute.device)?;
                score_features(samples, reference, run, context)
            }
            _ => score(run, context),
        },
    }
}

fn options(args: &RunArgs) -> MetricOptions {
    let kid = KidSettings { subsets: args.kid_subsets, size: args.kid_subset_size, ..KidSettings::default() };
    MetricOptions { interval: args.interval, neighbours: args.neighbours, kid }
}

fn parts(args: &RunArgs) -> Result<Parts> {
    let shard = match args.parts.shard.as_deref() {
        None => Shard::WHOLE,
        Some(text) => Shard::parse(text).ok_or_else(|| {
            UserError::new(format!("`--shard {text}`: expected K/N with K from 0 to N - 1, such as 0/4"))
        })?,
    };
    Ok(Parts { partial: args.parts.partial.clone(), shard, merge: args.parts.merge.clone() })
}

fn score(args: &RunArgs, context: &Context) -> Result<ExitStatus> {
    let device = device::resolve(&args.compute.device)?;
    let networks = networks::options(&args.networks)?;
    let parts = parts(args)?;
    let plan = Plan::new(&args.metrics, kind::kind(args)?, options(args), networks.network)?;
    let source = Source::open(args, &plan, context)?;
    let reference = reference::open(args, &source, &plan, context)?;
    let job = EvalJob {
        classes: agreement::classes(args, &plan, &source)?,
        facts: source.facts(args, parts.are_saved() && context.world.is_first())?,
        source: source.judged(args, reference.is_some()),
        plan,
        reference,
        networks,
        device,
        batch_size: usize::try_from(args.batch.batch_size)?,
        program: device::program(),
        parts,
        world: &context.world,
    };
    match job.run(stop_on_signal, &mut context.printer.clone())? {
        Ending::Stopped => {
            let going_on = if job.parts.partial.is_some() { "; the same command goes on" } else { "" };
            context.printer.warning(&format!("stopped before the end{going_on}"));
            Ok(ExitStatus::Incomplete)
        }
        Ending::Elsewhere => Ok(ExitStatus::Done),
        Ending::Part(skipped) => {
            if let Some(file) = &job.parts.partial {
                context.printer.line(&file.display().to_string())?;
            }
            report_skipped(context, &skipped);
            Ok(ExitStatus::of(skipped.is_empty()))
        }
        Ending::Scored(result) => {
            let report = Report::new(*result, &source, job.reference.as_ref())?;
            report_skipped(context, &report.skipped);
            let complete = report.skipped.is_empty() && report.failed.is_empty();
            output::finish(&report, args, complete, context)
        }
    }
}

fn score_features(samples: &Path, reference: &Path, args: &RunArgs, context: &Context) -> Result<ExitStatus> {
    let job = FeatureFilesJob {
        samples: samples.to_owned(),
        reference: reference.to_owned(),
        metrics: args.metrics.clone(),
        options: options(args),
    };
    output::finish(&Report::of_features(samples, reference, job.run()?), args, true, context)
}
