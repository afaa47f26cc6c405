//! `gen extract --text`: captions → stored text features.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::Result;
use backbones::text_encoder::{EncoderFiles, TextEncoder};
use base::hash::Sha256;
use base::{Precision, Progress as _, TensorKind};
use cli::extract::ExtractArgs;
use data::text_features::{EncoderId, TextIndex, TextPlan, TextWriter};
use data::{Dataset, Target};
use serde::Serialize;
use tch::Device;
use train::tasks::first_sentence;

use crate::context::{self, Context, ExitStatus, stop_on_signal};
use crate::error::UserError;
use crate::resolve::device;

#[derive(Debug, Serialize)]
struct Report {
    output: String,
    #[serde(flatten)]
    index: TextIndex,
    /// Captions encoded by this run; the others were there already.
    encoded: usize,
}

/// Encodes the captions that are not there yet, each once.
pub fn run(folder: &Path, args: &ExtractArgs, images: &dyn Dataset, context: &Context) -> Result<ExitStatus> {
    let captions = captions(images, args.first_sentence)?;
    let device = device::resolve(&args.job.compute.device)?;
    let clean = !args.raw_captions;
    let precision = args.job.compute.precision;
    let files = EncoderFiles::in_folder(folder);
    let encoder = TextEncoder::open(&files, args.text_length, clean, device, precision.kind())?;
    let (world, plan) = (&context.world, plan(args, &captions, &encoder, images));
    // Rank 0 creates the folder, or rejects that of another run; the others then find it complete.
    let open = || TextWriter::create(&args.output, plan.clone());
    let missing = world.from_first(|| Ok::<_, anyhow::Error>(open()?.missing()))?;
    let writer = open()?;
    let shares = world.gather_values(&encode(&captions, &encoder, &writer, &missing, context)?)?;
    if !world.is_first() {
        return Ok(ExitStatus::Done);
    }
    let Some(encoded) = shares.into_iter().sum::<Option<usize>>() else {
        let dir = args.output.display();
        context.printer.line(&format!("stopped; run again, it goes on with what `{dir}` has"))?;
        return Ok(ExitStatus::Incomplete);
    };
    let report = Report { output: args.output.display().to_string(), index: writer.finish()?, encoded };
    context.finish(&report, args.job.json.json, true)
}

impl context::Report for Report {
    fn text(&self) -> String {
        let (n, encoder) = (self.index.captions, &self.index.encoder.fingerprint);
        format!("{}: features of {n} captions, text encoder {encoder}", self.output)
    }
}

/// All different captions in their order, and where asked for the first sentences of them.
fn captions(images: &dyn Dataset, first_sentences: bool) -> Result<Vec<String>> {
    let mut seen = HashSet::new();
    let mut all = vec![];
    for i in 0..images.len() {
        let Target::Caption(caption) = images.target(i) else {
            return Err(UserError::new(format!("`{}` has no caption", images.key(i)))
                .hint("captions are .txt files beside the images or in the shards, or a column of a JSONL or TSV list")
                .into());
        };
        let caption = caption.trim().to_owned();
        let short = first_sentences.then(|| first_sentence(&caption));
        all.extend([Some(caption), short].into_iter().flatten().filter(|c| seen.insert(c.clone())));
    }
    Ok(all)
}

fn plan(args: &ExtractArgs, captions: &[String], encoder: &TextEncoder, images: &dyn Dataset) -> TextPlan {
    let mut hash = Sha256::default();
    for caption in captions {
        hash.update((caption.len() as u64).to_le_bytes());
        hash.update(caption);
    }
    let captions_fingerprint = hash.fingerprint();
    let id = EncoderId {
        fingerprint: encoder.fingerprint().to_owned(),
        width: encoder.width(),
        length: encoder.length(),
        clean: encoder.cleans(),
        precision: match args.job.compute.precision {
            Precision::Bf16 => "bf16".into(),
            _ => "fp32".into(),
        },
    };
    TextPlan {
        encoder: id,
        captions: captions.len(),
        shard_size: args.shard_size as usize,
        captions_fingerprint,
        data: images.describe(),
    }
}

/// Encodes shards that no process has taken yet. Returns the number of captions, or `None` if
/// interrupted.
fn encode(
    captions: &[String],
    encoder: &TextEncoder,
    writer: &TextWriter,
    missing: &[usize],
    context: &Context,
) -> Result<Option<usize>> {
    let stop = stop_on_signal()?;
    let total: usize = missing.iter().map(|&shard| writer.range(shard).len()).sum();
    let mut progress = context.printer.clone();
    progress.start("encoding", Some(total as u64));
    let mut encoded = 0;
    while let Some(&shard) = context.world.take("extract/units", missing)? {
        context.world.note(&format!("shard {shard}"));
        let part = &captions[writer.range(shard)];
        let mut features = Vec::with_capacity(part.len());
        for caption in part {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            features.push(encoder.encode(&[caption])?.texts().remove(0).to_device(Device::Cpu));
            progress.advance(1);
        }
        writer.write(shard, part, &features)?;
        encoded += part.len();
    }
    progress.finish();
    Ok(Some(encoded))
}
