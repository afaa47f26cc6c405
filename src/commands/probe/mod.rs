//! `gen probe`: linear-probe accuracy of a transformer or a tokenizer.

mod report;
mod subject;

use std::path::Path;
use std::sync::Arc;

use cli::probe::{OptimizerArg, ProbeArgs, Switch};
use data::{Dataset, Subset};
use train::probe::{ProbeConfig, ProbeJob, ProbeOptimizer, probe};

use self::report::Report;
use self::subject::subject;
use crate::context::{Context, ExitStatus, open_images, stop_on_signal};
use crate::files;
use crate::resolve::device;

/// Probes; [`ExitStatus::Incomplete`] when images were left out or it was interrupted.
pub fn run(args: &ProbeArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let device = device::resolve(&args.compute.device)?;
    let (train, validation) =
        (limited(&args.data, args.limit, context)?, limited(&args.validation, args.limit, context)?);
    context.printer.note(&format!("training images: {}", train.describe()));
    context.printer.note(&format!("validation images: {}", validation.describe()));
    let job = ProbeJob {
        subject: subject(args, device, context)?,
        train,
        validation,
        config: config(args),
        cached_views: args.cache_views.map(usize::from),
        cache: args.cache.clone().unwrap_or_else(|| args.output.join("features")),
        output: args.output.clone(),
        max_corrupt: args.max_corrupt,
        device,
    };
    context.printer.note(&format!("features: {}", job.subject.place()));
    let stop = stop_on_signal()?;
    let result = probe(&job, &context.world, &stop, &mut context.printer.clone())?;
    if !context.world.is_first() {
        return Ok(ExitStatus::Done);
    }
    let Some(result) = result else {
        let dir = args.output.display();
        context.printer.line(&format!("stopped; run again, it goes on with what `{dir}` has"))?;
        return Ok(ExitStatus::Incomplete);
    };
    let report = Report::new(&job, result)?;
    files::write(&args.output.join("result.json"), &serde_json::to_vec_pretty(&report)?)?;
    let skipped = report.skipped.train + report.skipped.validation;
    if skipped > 0 {
        context.printer.warning(&format!("{skipped} images could not be decoded and were left out"));
    }
    context.finish(&report, args.json.json, skipped == 0)
}

/// Opens images; of more than `limit`, that many at equal distances.
fn limited(path: &Path, limit: Option<u32>, context: &Context) -> anyhow::Result<Arc<dyn Dataset>> {
    let all = open_images(path, context)?;
    let (n, limit) = (all.len(), limit.map_or(usize::MAX, |l| l as usize));
    if n <= limit {
        return Ok(all);
    }
    Ok(Arc::new(Subset::new(all, (0..limit).map(|i| i * n / limit).collect())))
}

fn config(args: &ProbeArgs) -> ProbeConfig {
    let head = &args.head;
    ProbeConfig {
        optimizer: match head.optimizer {
            OptimizerArg::Lars => ProbeOptimizer::Lars,
            OptimizerArg::Sgd => ProbeOptimizer::Sgd,
        },
        batch_norm: head.head_bn == Switch::On,
        base_lr: head.base_lr,
        epochs: head.epochs,
        warmup_epochs: head.warmup_epochs,
        batch_size: head.batch_size as usize,
        accumulate: head.accumulate,
        seed: args.seed.seed,
    }
}
