//! `gen encode`: images → codes in a safetensors file.

use std::collections::BTreeMap;

use base::Progress;
use cli::encode::EncodeArgs;
use serde::Serialize;
use tch::{Device, Tensor};
use tokenizer::Tokenizer as _;

use crate::code_files::TOKENIZER;
use crate::context::{self, Context, ExitStatus, report_left_out, report_skipped};
use crate::inputs::{Batch, Inputs, Skipped, Tensors};
use crate::resolve::{device, open_tokenizer};

/// Tensors of the file.
const CODES: &str = "codes";
const FEATURES: &str = "features";

#[derive(Debug, Serialize)]
struct Report {
    output: String,
    images: Vec<String>,
    num_tokens: i64,
    codebook_size: i64,
    /// Number of distinct codes.
    distinct_codes: i64,
    tokenizer: String,
    skipped: Vec<Skipped>,
}

/// Encodes all images; [`ExitStatus::Incomplete`] when some were skipped.
pub fn run(args: &EncodeArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let device = device::resolve(&args.job.compute.device)?;
    let mut inputs = Inputs::open(&args.images)?;
    inputs.left_out().for_each(|(path, files)| report_left_out(context, path, files));
    let tokenizer = open_tokenizer(&args.job, device, context)?;
    let spec = tokenizer.model.spec().clone();
    let (mut names, mut codes, mut features) = (vec![], vec![], vec![]);
    let mut progress = context.printer.clone();
    progress.start("encoding", Some(inputs.len() as u64));
    let encode = |batch: &Batch| {
        let images = base::Images::new(batch.images.tensor().to_device(device))?;
        let found =
            tokenizer.model.encode(&images).map_err(|e| e.of_images(|i| format!("`{}`", batch.names[i])))?;
        let mut made = Tensors::from([(CODES.to_owned(), found.into_tensor().to_device(Device::Cpu))]);
        if args.features {
            let found = tokenizer.model.features(&images)?.to_device(Device::Cpu);
            made.insert(FEATURES.to_owned(), found);
        }
        Ok(made)
    };
    let framing = (spec.image_size, args.job.batch.batch_size);
    inputs.for_each_batch(framing, &context.world, encode, |mut batch| {
        progress.advance(batch.names.len() as u64);
        codes.push(batch.take(CODES)?);
        if args.features {
            features.push(batch.take(FEATURES)?);
        }
        names.extend(batch.names);
        Ok(())
    })?;
    progress.finish();
    if !context.world.is_first() {
        return Ok(ExitStatus::Done);
    }

    let codes = Tensor::cat(&codes, 0);
    let distinct = codes.view(-1).unique_dim(0, true, false, false);
    let report = Report {
        output: args.output.display().to_string(),
        images: names,
        num_tokens: codes.size()[1],
        codebook_size: spec.codebook_size,
        distinct_codes: distinct.0.size()[0],
        tokenizer: tokenizer.fingerprint()?,
        skipped: inputs.skipped,
    };
    let mut tensors = vec![(CODES.to_owned(), codes)];
    if args.features {
        tensors.push((FEATURES.to_owned(), Tensor::cat(&features, 0)));
    }
    let metadata = BTreeMap::from([
        (TOKENIZER.to_owned(), report.tokenizer.clone()),
        ("codebook_size".to_owned(), spec.codebook_size.to_string()),
        ("images".to_owned(), serde_json::to_string(&report.images)?),
    ]);
    weights::save_safetensors(&args.output, &tensors, &metadata)?;
    report_skipped(context, &report.skipped);
    context.finish(&report, args.job.json.json, report.skipped.is_empty())
}

impl context::Report for Report {
    fn text(&self) -> String {
        let (n, c) = (self.images.len(), self.num_tokens);
        let (used, all) = (self.distinct_codes, self.codebook_size);
        format!("{}: {n} x {c} codes, {used} of {all} different", self.output)
    }
}
