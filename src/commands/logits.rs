//! `gen logits`: what a transformer predicts at every position when it is given the true codes.

use std::collections::BTreeMap;

use anyhow::Context as _;
use ar_model::{AutoregressiveModel as _, Conditioning};
use base::Progress;
use cli::logits::LogitsArgs;
use eval::Likelihood;
use serde::Serialize;
use tch::{Device, Tensor};
use weights::Parcel;

use crate::code_files::{CodeFile, check_codes, same_classes, same_tokenizer};
use crate::context::{self, Context, ExitStatus};
use crate::error::UserError;
use crate::resolve::device;
use crate::share::in_turn;

/// Tensors of a batch: (B, N, V), and the nats (B) of each row.
const LOGITS: &str = "logits";
const NATS: &str = "nats";

#[derive(Debug, Serialize)]
struct Report {
    output: String,
    rows: i64,
    num_tokens: i64,
    vocab_size: i64,
    /// Mean negative log-likelihood of the codes, in nats.
    loss: f64,
}

/// Teacher-forced logits of all rows.
pub fn run(args: &LogitsArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let device = device::resolve(&args.compute.device)?;
    let file = CodeFile::read(&args.codes)?;
    let location = generate::locate::transformer(&args.model.choice())?;
    same_tokenizer((&args.codes, file.tokenizer.as_deref()), &location, None, context)?;
    let transformer =
        location.open_transformer(device, args.compute.precision, &mut context.printer.clone())?;
    let model = &transformer.model;
    let spec = model.spec().clone();
    let classes = classes(args, &file)?;
    if args.class.is_empty() {
        let described = format!("`{}`", args.codes.display());
        same_classes((&described, &file.numbering), &location, spec.num_classes)?;
    }
    if file.len() == 0 {
        return Err(UserError::new("there are no codes in the file").into());
    }
    let mut parts = vec![];
    let mut likelihood = Likelihood::default();
    let mut progress = context.printer.clone();
    progress.start("rows", Some(file.len() as u64));
    let predict = |&(from, count): &(i64, i64)| {
        let codes = file.rows(from, count)?;
        check_codes(&codes, spec.num_tokens, spec.vocab_size)?;
        let condition = Conditioning::Class(classes.narrow(0, from, count).to_device(device));
        model.check_conditioning(&condition)?;
        let on_device = codes.tensor().to_device(device);
        let logits = tch::no_grad(|| model.logits(&condition, &on_device)); // (B, N, V)
        let names: Vec<String> = (from..from + count).map(|row| row.to_string()).collect();
        let network = transformer.source.origin().to_string();
        base::finite::check(&logits, names.iter().map(String::as_str), "what is predicted", &network)?;
        let nats = eval::code_nats(&logits, &codes)?;
        let tensors = [(LOGITS, logits), (NATS, nats)];
        let tensors = tensors.map(|(name, t)| (name.to_owned(), t.to_device(Device::Cpu))).into();
        Ok(Parcel { tensors, text: String::new() })
    };
    let spans: Vec<(i64, i64)> = base::spans(file.len(), args.batch.batch_size).collect();
    in_turn(&context.world, &spans, predict, |mut parcel| {
        let mut take =
            |name| parcel.tensors.remove(name).context("internal error: a batch without its logits");
        likelihood.update(&take(NATS)?, spec.num_tokens as u64)?;
        let logits = take(LOGITS)?;
        progress.advance(logits.size()[0] as u64);
        parts.push(logits);
        Ok(())
    })?;
    progress.finish();
    if !context.world.is_first() {
        return Ok(ExitStatus::Done);
    }
    let tensors = vec![(LOGITS.to_owned(), Tensor::cat(&parts, 0))];
    weights::save_safetensors(&args.output, &tensors, &BTreeMap::new())?;
    let report = Report {
        output: args.output.display().to_string(),
        rows: file.len(),
        num_tokens: spec.num_tokens,
        vocab_size: spec.vocab_size,
        loss: likelihood.scores().context("there are no codes in the file")?.nats_per_code,
    };
    context.finish(&report, args.json.json, true)
}

impl context::Report for Report {
    fn text(&self) -> String {
        let Report { output, rows, num_tokens, vocab_size, loss } = self;
        format!("{output}: {rows} x {num_tokens} x {vocab_size} logits; loss {loss:.4}")
    }
}

/// (B) int64: the value of `--class`, else the file's classes.
fn classes(args: &LogitsArgs, file: &CodeFile) -> anyhow::Result<Tensor> {
    let rows = file.len();
    let given = Tensor::from_slice(&args.class);
    let classes = match (args.class.len() as i64, &file.classes) {
        (0, Some(classes)) => classes.shallow_clone(),
        (0, None) => {
            let message = format!("`{}` does not say which classes its codes have", args.codes.display());
            return Err(UserError::new(message).hint("give them with `--class`").into());
        }
        (1, _) => given.repeat([rows]),
        _ => given,
    };
    if classes.size() != [rows] {
        return Err(UserError::new(format!(
            "there are {rows} rows of codes and {:?} classes",
            classes.size()
        ))
        .into());
    }
    Ok(classes)
}
