//! `gen extract`: images → stored codes, or captions → stored text features.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use base::{ImagesU8, Progress};
use cli::extract::{Augment, ExtractArgs, Format};
use data::codes::{CodePlan, CodeWriter, NpyWriter, PendingShard, TokenizerId};
use data::{Augment as _, Batch, Crops, Dataset, Joined, Loader, LoaderConfig, Subset, Target, Views};
use serde::Serialize;
use tch::Device;
use tokenizer::{Loaded, Tokenizer as _, TokenizerSpec};

use super::extract_text;
use crate::context::{Context, Outcome, open_images, stop_on_signal};
use crate::failure::Failure;
use crate::settings::device;

#[derive(Debug, Serialize)]
struct Report {
    output: String,
    tokenizer: TokenizerId,
    views: Vec<String>,
    /// Records in the folder.
    records: usize,
    /// Images that could not be decoded.
    skipped: usize,
    /// Files beside the images that are none.
    left_out: usize,
    /// Images encoded by this run; the others were there already.
    encoded: usize,
}

/// Encodes what is not there yet; [`Outcome::Incomplete`] when images were left out or it was interrupted.
pub fn run(args: &ExtractArgs, context: &Context) -> anyhow::Result<Outcome> {
    let images = open(&args.data, context)?;
    context.printer.note(&images.describe());
    if let Some(folder) = &args.text {
        return extract_text::run(folder, args, images.as_ref(), context);
    }
    let device = device::resolve(&args.compute.device)?;
    check_labels(images.as_ref(), args.format, context)?;
    let location = generate::locate::tokenizer(&args.tokenizer.choice())?;
    let tokenizer = location.open_tokenizer(device, args.compute.precision, &mut context.printer.clone())?;
    let codes = codes_per_image(args, tokenizer.model.spec())?;
    let size = args.image_size.unwrap_or(tokenizer.model.spec().image_size);
    let views = views(args, size)?;
    let mut sink = Sink::new(args, plan(args, &tokenizer, codes, &views, images.as_ref())?, size)?;
    let Some(encoded) = encode(args, &images, &tokenizer, views, &mut sink, context)? else {
        let dir = args.output.display();
        context.printer.line(&format!("stopped; run again, it goes on with what `{dir}` has"))?;
        return Ok(Outcome::Incomplete);
    };
    if encoded == 0 && !sink.has_any()? {
        return Err(nothing_read(args, images.len()).into());
    }
    let report = sink.finish(args, images.as_ref(), encoded)?;
    if report.skipped > 0 {
        let list = args.output.join("skipped.tsv");
        let n = report.skipped;
        context.printer.warning(&format!("{n} images could not be decoded; `{}` names them", list.display()));
    }
    match args.json.json {
        true => context.printer.json(&report)?,
        false => context.printer.line(&summary(&report))?,
    }
    Ok(if report.skipped == 0 { Outcome::Done } else { Outcome::Incomplete })
}

/// No codes are worse than none: training would find an empty set.
fn nothing_read(args: &ExtractArgs, records: usize) -> Failure {
    let list = args.output.join("skipped.tsv");
    let first = std::fs::read_to_string(&list).ok().and_then(|text| text.lines().next().map(str::to_owned));
    let first = first.map(|line| format!("; the first: {}", line.replace('\t', ": "))).unwrap_or_default();
    Failure::new(format!("none of the {records} images can be read{first}")).hint(format!(
        "`{}` names them all; remove `{}` before the next try",
        list.display(),
        args.output.display()
    ))
}

/// The sets of images, one after the other.
fn open(paths: &[PathBuf], context: &Context) -> anyhow::Result<Arc<dyn Dataset>> {
    let mut sets = paths.iter().map(|p| open_images(p, context)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(if sets.len() == 1 { sets.remove(0) } else { Arc::new(Joined::new(sets)?) })
}

fn summary(report: &Report) -> String {
    let Report { output, records, views, tokenizer, encoded, .. } = report;
    let (a, n) = (views.len(), tokenizer.num_tokens);
    let views = if a == 1 { "1 view".to_owned() } else { format!("{a} views") };
    let already = match records.saturating_sub(*encoded) {
        0 => String::new(),
        there => format!("; {there} were there already"),
    };
    format!("{output}: {records} images x {views} x {n} codes, tokenizer {}{already}", tokenizer.fingerprint)
}

fn check_labels(images: &dyn Dataset, format: Format, context: &Context) -> anyhow::Result<()> {
    match images.target(0) {
        Target::Class(_) => Ok(()),
        Target::None => {
            context.printer.warning("the images have no class labels; their codes get label -1");
            Ok(())
        }
        Target::Caption(_) if format == Format::Npy => {
            Err(Failure::new("these images have captions, for which the official layout has no place")
                .hint("`--format shards` stores them")
                .into())
        }
        Target::Caption(_) => Ok(()),
    }
}

/// How many codes an image of the wanted size has.
fn codes_per_image(args: &ExtractArgs, spec: &TokenizerSpec) -> anyhow::Result<i64> {
    let Some(size) = args.image_size else { return Ok(spec.num_tokens) };
    let patch = (spec.image_size as f64 / (spec.num_tokens as f64).sqrt()).round() as i64;
    let codes = (size / patch).pow(2);
    if size % patch == 0 && spec.image_size_of(codes) == Some(size) {
        return Ok(codes);
    }
    let failure = Failure::new(format!("the tokenizer does not take images of {size} pixels"));
    Err(match spec.any_size {
        true => failure.hint(format!("the side must be a multiple of {patch}")),
        false => {
            failure.hint(format!("it was made for {} pixels; leave `--image-size` out", spec.image_size))
        }
    }
    .into())
}

fn views(args: &ExtractArgs, image_size: i64) -> anyhow::Result<Views> {
    let crops = match args.augment {
        Augment::None => Crops::Center,
        Augment::Flip => Crops::CenterAndFlip,
        Augment::TenCrop => Crops::Ten(args.crop_factor.clone()),
    };
    let views = Views { size: u32::try_from(image_size).context("the tokenizer's image size")?, crops };
    views.validate()?;
    if args.format == Format::Npy && views.views() > 10 {
        return Err(Failure::new("the official layout holds one crop factor in a folder")
            .hint("run once for each factor; `gen train-ar --codes DIR --codes DIR` trains on both")
            .into());
    }
    Ok(views)
}

fn plan(
    args: &ExtractArgs,
    tokenizer: &Loaded,
    num_tokens: i64,
    views: &Views,
    images: &dyn Dataset,
) -> anyhow::Result<CodePlan> {
    let spec = tokenizer.model.spec();
    let id =
        TokenizerId { fingerprint: tokenizer.fingerprint()?, codebook_size: spec.codebook_size, num_tokens };
    Ok(CodePlan {
        tokenizer: id,
        views: views.names(),
        precision: args.compute.precision.to_string(),
        records: images.len(),
        shard_size: args.shard_size as usize,
        data_fingerprint: data::content_fingerprint(images),
        data: images.describe(),
    })
}

/// Encodes the missing images into `sink`. Returns how many, or `None` if interrupted.
fn encode(
    args: &ExtractArgs,
    images: &Arc<dyn Dataset>,
    tokenizer: &Loaded,
    views: Views,
    sink: &mut Sink,
    context: &Context,
) -> anyhow::Result<Option<usize>> {
    let todo = sink.missing();
    if todo.is_empty() {
        return Ok(Some(0));
    }
    let per_image = views.views();
    let mut config = LoaderConfig::once((args.batch.batch_size as usize / per_image).max(1));
    config.max_corrupt = sink.max_corrupt(args);
    config.corrupt_list = Some(args.output.join("skipped.tsv"));
    let mut loader = Loader::new(Arc::new(Subset::new(images.clone(), todo.clone())), views, config)?;
    let stop = stop_on_signal()?;
    let mut progress = context.printer.clone();
    progress.start("encoding", Some(todo.len() as u64));
    let mut encoded = 0;
    while let Some(batch) = loader.next().map_err(|e| sink.explain(e))? {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let name = |view: usize| format!("`{}`", images.key(todo[batch.indices[view / per_image]]));
        let codes = codes_of(&batch, tokenizer, args.batch.batch_size, name)?;
        let width = codes.len() / batch.valid.max(1);
        for (i, codes) in codes.chunks_exact(width.max(1)).enumerate() {
            sink.add(todo[batch.indices[i]], codes, batch.labels[i], &batch.captions[i])?;
        }
        encoded += batch.valid;
        progress.advance(batch.valid as u64);
    }
    progress.finish();
    Ok(Some(encoded))
}

/// The codes of all views in a batch, at most `most` images at a time; `name` names the image of a view.
fn codes_of(
    batch: &Batch,
    tokenizer: &Loaded,
    most: i64,
    name: impl Fn(usize) -> String,
) -> anyhow::Result<Vec<i64>> {
    let mut all = vec![];
    if batch.valid == 0 {
        return Ok(all);
    }
    for rows in batch.images.tensor().split(most, 0) {
        let images = ImagesU8::new(rows.to_device(tokenizer.vars.device()))?.to_float();
        let before = all.len() / tokenizer.model.spec().num_tokens as usize;
        let codes = tokenizer.model.encode(&images).map_err(|e| e.of_images(|i| name(before + i)))?;
        let codes = codes.into_tensor().to_device(Device::Cpu);
        all.extend(Vec::<i64>::try_from(codes.flatten(0, -1))?);
    }
    Ok(all)
}

/// Where codes go.
enum Sink {
    Shards { writer: CodeWriter, left: VecDeque<usize>, pending: Option<PendingShard> },
    Npy { writer: NpyWriter, plan: CodePlan },
}

impl Sink {
    fn new(args: &ExtractArgs, plan: CodePlan, image_size: i64) -> anyhow::Result<Self> {
        Ok(match args.format {
            Format::Shards => {
                let writer = CodeWriter::create(&args.output, plan)?;
                Sink::Shards { left: writer.missing().into(), writer, pending: None }
            }
            Format::Npy => {
                let writer = NpyWriter::create(&args.output, plan.clone(), image_size)?;
                Sink::Npy { writer, plan }
            }
        })
    }

    /// The images still to be encoded.
    fn missing(&self) -> Vec<usize> {
        match self {
            Sink::Shards { writer, left, .. } => left.iter().flat_map(|s| writer.range(*s)).collect(),
            Sink::Npy { writer, .. } => writer.missing(),
        }
    }

    /// The official layout numbers images without gaps.
    fn max_corrupt(&self, args: &ExtractArgs) -> usize {
        match self {
            Sink::Shards { .. } => args.max_corrupt,
            Sink::Npy { .. } => 0,
        }
    }

    /// True if codes were stored, now or before.
    fn has_any(&self) -> anyhow::Result<bool> {
        Ok(match self {
            Sink::Npy { .. } => true, // it leaves no image out
            Sink::Shards { writer, pending, .. } => pending.is_some() || writer.has_records()?,
        })
    }

    fn explain(&self, error: data::Error) -> anyhow::Error {
        let gaps = matches!((self, &error), (Sink::Npy { .. }, data::Error::TooManyCorrupt { .. }));
        let error = anyhow::Error::new(error);
        if gaps {
            error.context("the official layout leaves no room for images that cannot be decoded")
        } else {
            error
        }
    }

    /// Takes the codes of image `index`, in ascending order of images.
    fn add(&mut self, index: usize, codes: &[i64], label: i64, caption: &str) -> anyhow::Result<()> {
        match self {
            Sink::Npy { writer, .. } => writer.write(index, codes, label)?,
            Sink::Shards { writer, left, pending } => {
                let shard = index / writer.plan().shard_size;
                flush_before(writer, left, pending, shard)?;
                let open = pending.get_or_insert_with(|| writer.begin(shard));
                writer.push(open, codes, label, caption)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, args: &ExtractArgs, images: &dyn Dataset, encoded: usize) -> anyhow::Result<Report> {
        let (output, left_out) = (args.output.display().to_string(), images.left_out().len());
        Ok(match self {
            Sink::Npy { writer, plan } => {
                writer.finish(images.classes())?;
                let (tokenizer, views, records) = (plan.tokenizer.clone(), plan.views.clone(), plan.records);
                Report { output, tokenizer, views, records, skipped: 0, left_out, encoded }
            }
            Sink::Shards { writer, left, pending } => {
                flush_before(writer, left, pending, usize::MAX)?;
                let index = writer.finish(images.classes())?;
                let (records, skipped) = (index.records, index.skipped);
                let (tokenizer, views) = (index.tokenizer, index.views);
                Report { output, tokenizer, views, records, skipped, left_out, encoded }
            }
        })
    }
}

/// Writes the shards that come before `shard`; one of which no image could be decoded is empty.
fn flush_before(
    writer: &CodeWriter,
    left: &mut VecDeque<usize>,
    pending: &mut Option<PendingShard>,
    shard: usize,
) -> anyhow::Result<()> {
    while let Some(first) = left.front().copied().filter(|s| *s < shard) {
        left.pop_front();
        writer.write(pending.take().unwrap_or_else(|| writer.begin(first)))?;
    }
    Ok(())
}
