//! `gen probe`: linear-probe accuracy of a transformer or a tokenizer.

use std::path::Path;
use std::sync::Arc;

use cli::probe::{FeatureArgs, FeatureNormArg, OptimizerArg, ProbeArgs, Switch};
use data::{Class, Dataset, Subset};
use generate::locate;
use serde::Serialize;
use tch::Device;
use train::probe::{
    FeatureNorm, GIGATOK_ACC, ProbeConfig, ProbeJob, ProbeOptimizer, ProbeResult, Subject, SubjectId,
    TokenizerPlace, probe,
};

use crate::context::{Context, Outcome, open_images, stop_on_signal};
use crate::failure::Failure;
use crate::files;
use crate::resolve::device;

#[derive(Debug, Serialize)]
struct Report {
    /// What `top1` may be called.
    metric: &'static str,
    top1: f64,
    top5: Option<f64>,
    validation_loss: f64,
    train_loss: f64,
    train_images: usize,
    validation_images: usize,
    /// Images that could not be decoded.
    skipped: Skipped,
    /// What differs from GigaTok's protocol.
    differences: Vec<String>,
    subject: SubjectId,
    head: ProbeConfig,
    steps: u64,
    width: i64,
    /// The class of each output of the head.
    classes: Vec<ClassName>,
}

#[derive(Debug, Serialize)]
struct Skipped {
    train: usize,
    validation: usize,
}

#[derive(Debug, Serialize)]
struct ClassName {
    index: i64,
    name: String,
}

/// Probes; [`Outcome::Incomplete`] when images were left out or it was interrupted.
pub fn run(args: &ProbeArgs, context: &Context) -> anyhow::Result<Outcome> {
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
    let Some(result) = probe(&job, &stop, &mut context.printer.clone())? else {
        let dir = args.output.display();
        context.printer.line(&format!("stopped; run again, it goes on with what `{dir}` has"))?;
        return Ok(Outcome::Incomplete);
    };
    let report = report(&job, result)?;
    files::write(&args.output.join("result.json"), &serde_json::to_vec_pretty(&report)?)?;
    match args.json.json {
        true => context.printer.json(&report)?,
        false => context.printer.line(&summary(&report))?,
    }
    let skipped = report.skipped.train + report.skipped.validation;
    if skipped > 0 {
        context.printer.warning(&format!("{skipped} images could not be decoded and were left out"));
    }
    Ok(if skipped == 0 { Outcome::Done } else { Outcome::Incomplete })
}

/// Opens images; of more than `limit`, so many at equal distances.
fn limited(path: &Path, limit: Option<u32>, context: &Context) -> anyhow::Result<Arc<dyn Dataset>> {
    let all = open_images(path, context)?;
    let (n, limit) = (all.len(), limit.map_or(usize::MAX, |l| l as usize));
    if n <= limit {
        return Ok(all);
    }
    Ok(Arc::new(Subset::new(all, (0..limit).map(|i| i * n / limit).collect())))
}

/// The tokenizer, if one is named without a transformer; else the transformer.
fn subject(args: &ProbeArgs, device: Device, context: &Context) -> anyhow::Result<Subject> {
    let FeatureArgs { layer, probe_dropout, fix_dim, from_decoder, .. } = args.features;
    let (precision, mut progress) = (args.compute.precision, context.printer.clone());
    let norm = match args.features.feature_norm {
        FeatureNormArg::None => FeatureNorm::None,
        FeatureNormArg::Ln => FeatureNorm::Ln,
    };
    let alone = args.tokenizer.tokenizer.is_some() && args.model.model.is_none();
    if alone {
        if layer.is_some() || probe_dropout.is_some() {
            return Err(Failure::new(
                "`--layer` and `--probe-dropout` are for transformers, but a tokenizer is probed",
            )
            .hint("to probe a transformer, name it with `--model`")
            .into());
        }
        let place = match (fix_dim, from_decoder) {
            (true, _) => TokenizerPlace::Projection,
            (_, true) => TokenizerPlace::Decoder,
            _ => TokenizerPlace::Encoder,
        };
        let location = locate::tokenizer(&args.tokenizer.choice())?;
        let tokenizer = location.open_tokenizer(device, precision, &mut progress)?;
        return Ok(Subject::tokenizer(tokenizer, place, norm)?);
    }
    if fix_dim || from_decoder {
        return Err(Failure::new(
            "`--fix-dim` and `--from-decoder` are for tokenizers, but a transformer is probed",
        )
        .hint("to probe a tokenizer, name it with `--tokenizer`, without `--model`")
        .into());
    }
    let location = locate::transformer(&args.model.choice())?;
    let tokenizer = locate::tokenizer_of(&location, &args.tokenizer.choice())?;
    let model = location.open_transformer(device, precision, &mut progress)?;
    let tokenizer = tokenizer.open_tokenizer(device, precision, &mut progress)?;
    let dropout = probe_dropout != Some(Switch::Off);
    Ok(Subject::transformer(model, tokenizer, layer, dropout, norm)?)
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

fn report(job: &ProbeJob, result: ProbeResult) -> anyhow::Result<Report> {
    let name = |c: Class| ClassName { index: c.index, name: c.name };
    let [train, validation] = result.skipped;
    Ok(Report {
        metric: if result.differences.is_empty() { GIGATOK_ACC } else { "linear-probe accuracy" },
        top1: result.validation.top1,
        top5: result.validation.top5,
        validation_loss: result.validation.loss,
        train_loss: result.train_loss,
        train_images: result.train_images,
        validation_images: result.validation.images,
        skipped: Skipped { train, validation },
        differences: result.differences,
        subject: job.subject.id()?,
        head: job.config.clone(),
        steps: result.steps,
        width: result.width,
        classes: result.classes.into_iter().map(name).collect(),
    })
}

fn summary(report: &Report) -> String {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    // Of a share p of n images: sqrt(p (1 - p) / n).
    let spread = (report.top1 * (1.0 - report.top1) / report.validation_images as f64).sqrt();
    let mut lines = vec![
        format!("{}: top-1 {} (± {:.2})", report.metric, percent(report.top1), 100.0 * spread),
        format!("{} validation images of {} classes", report.validation_images, report.classes.len()),
        format!("cross-entropy {:.3}, in training {:.3} nats", report.validation_loss, report.train_loss),
        format!("features: {}, {} wide", report.subject.place, report.width),
    ];
    if let Some(top5) = report.top5 {
        lines[0].push_str(&format!(", top-5 {}", percent(top5)));
    }
    if !report.differences.is_empty() {
        lines.push("not comparable with published figures:".into());
        lines.extend(report.differences.iter().map(|d| format!("  {d}")));
    }
    lines.join("\n")
}
