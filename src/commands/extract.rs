//! `gen extract`: images → stored codes, or captions → stored text features.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use base::files::{tsv_cell, write_atomic};
use base::{ImagesU8, Progress};
use cli::extract::{Augment, ExtractArgs, Format};
use data::codes::{CodePlan, CodeWriter, NpyWriter, PendingShard, TokenizerId};
use data::{Augment as _, Batch, Crops, Dataset, Joined, Loader, LoaderConfig, Subset, Target, Views};
use dist::World;
use serde::{Deserialize, Serialize};
use tch::Device;
use tokenizer::{Loaded, Tokenizer as _, TokenizerSpec};

use super::extract_text;
use crate::context::{Context, Outcome, open_images, stop_on_signal};
use crate::failure::Failure;
use crate::resolve::device;

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
    let world = &context.world;
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
    let plan = plan(args, &tokenizer, codes, &views, images.as_ref())?;
    // Rank 0 makes the folder, or refuses that of another run; the others then find it as it should be.
    let units =
        world.from_first(|| Ok::<_, anyhow::Error>(Sink::new(args, plan.clone(), size)?.units(args)))?;
    let sink = Sink::new(args, plan, size)?;
    let job = Job { args, images: &images, tokenizer: &tokenizer, views };
    let shares = world.gather_values(&job.encode(&sink, &units, context)?)?;
    if !world.is_first() {
        return Ok(Outcome::Done);
    }
    if shares.iter().any(|share| share.stopped) {
        let dir = args.output.display();
        context.printer.line(&format!("stopped; run again, it goes on with what `{dir}` has"))?;
        return Ok(Outcome::Incomplete);
    }
    sort_skipped(args, images.as_ref())?;
    let encoded = shares.iter().map(|share| share.encoded).sum();
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

/// One process's part of the work.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Share {
    /// Images encoded.
    encoded: usize,
    /// Whether a signal stopped it.
    stopped: bool,
}

struct Job<'a> {
    args: &'a ExtractArgs,
    images: &'a Arc<dyn Dataset>,
    tokenizer: &'a Loaded,
    views: Views,
}

impl Job<'_> {
    /// Takes units that no process has taken yet, and encodes them.
    fn encode(&self, sink: &Sink, units: &[Unit], context: &Context) -> anyhow::Result<Share> {
        let stop = stop_on_signal()?;
        let mut progress = context.printer.clone();
        progress.start("encoding", Some(units.iter().map(|unit| unit.images.len() as u64).sum()));
        let (mut share, mut corrupt) = (Share::default(), Corrupt::new(sink.max_corrupt(self.args), context));
        while let Some(unit) = context.world.take("extract/units", units)? {
            context.world.note(&format!("shard {}", unit.number));
            let Some(encoded) = self.encode_unit(sink, unit, &mut corrupt, &stop, &mut progress)? else {
                share.stopped = true;
                break;
            };
            share.encoded += encoded;
        }
        progress.finish();
        Ok(share)
    }

    /// Encodes a unit, whose batches depend on nothing else. Returns the number of images, or `None` if interrupted.
    fn encode_unit(
        &self,
        sink: &Sink,
        unit: &Unit,
        corrupt: &mut Corrupt<'_>,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> anyhow::Result<Option<usize>> {
        let (args, todo) = (self.args, &unit.images);
        let per_image = self.views.views();
        let mut config = LoaderConfig::once((args.batch.batch_size as usize / per_image).max(1));
        config.max_corrupt = corrupt.left();
        config.corrupt_list = Some(args.output.join("skipped.tsv"));
        let subset = Arc::new(Subset::new(self.images.clone(), todo.clone()));
        let mut loader = Loader::new(subset, self.views.clone(), config)?;
        let (mut writer, mut encoded) = (sink.begin(unit), 0);
        while let Some(batch) = loader.next().map_err(|e| sink.explain(corrupt.explain(e)))? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let name = |view: usize| format!("`{}`", self.images.key(todo[batch.indices[view / per_image]]));
            let codes = codes_of(&batch, self.tokenizer, args.batch.batch_size, name)?;
            let width = codes.len() / batch.valid.max(1);
            for (i, codes) in codes.chunks_exact(width.max(1)).enumerate() {
                writer.push(todo[batch.indices[i]], codes, batch.labels[i], &batch.captions[i])?;
            }
            encoded += batch.valid;
            progress.advance(batch.valid as u64);
        }
        corrupt.add(loader.corrupt().len())?;
        writer.finish()?;
        Ok(Some(encoded))
    }
}

/// Counts damaged images of all processes against the limit.
struct Corrupt<'a> {
    limit: usize,
    /// Of all processes, as far as this one knows.
    seen: usize,
    world: &'a World,
}

impl<'a> Corrupt<'a> {
    fn new(limit: usize, context: &'a Context) -> Self {
        Corrupt { limit, seen: 0, world: &context.world }
    }

    /// The number that the next unit may have.
    fn left(&self) -> usize {
        self.limit.saturating_sub(self.seen)
    }

    fn add(&mut self, more: usize) -> anyhow::Result<()> {
        let all = self.world.add("extract/corrupt", i64::try_from(more)?)?;
        self.seen = usize::try_from(all)?;
        Ok(())
    }

    /// The error of a unit with too many, with the limit that the user gave.
    fn explain(&self, error: data::Error) -> data::Error {
        match error {
            data::Error::TooManyCorrupt { count, key, message, list, .. } => {
                let (count, ceiling) = (count + self.seen, self.limit);
                data::Error::TooManyCorrupt { count, ceiling, key, message, list }
            }
            error => error,
        }
    }
}

/// Puts the list of damaged images, to which processes append as they meet them, in the order of the images.
fn sort_skipped(args: &ExtractArgs, images: &dyn Dataset) -> anyhow::Result<()> {
    let path = args.output.join("skipped.tsv");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let places: HashMap<String, usize> = (0..images.len()).map(|i| (tsv_cell(&images.key(i)), i)).collect();
    let place = |line: &&str| line.split('\t').next().and_then(|key| places.get(key)).copied();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(place);
    lines.dedup();
    write_atomic(&path, |file| lines.iter().try_for_each(|line| writeln!(file, "{line}")))?;
    Ok(())
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

/// Images that one process encodes in one go.
#[derive(Debug, Serialize, Deserialize)]
struct Unit {
    /// Number of the shard, or of the part.
    number: usize,
    /// Images still to be encoded, ascending.
    images: Vec<usize>,
}

/// Where codes go.
enum Sink {
    Shards(CodeWriter),
    Npy { writer: NpyWriter, plan: CodePlan },
}

impl Sink {
    fn new(args: &ExtractArgs, plan: CodePlan, image_size: i64) -> anyhow::Result<Self> {
        Ok(match args.format {
            Format::Shards => Sink::Shards(CodeWriter::create(&args.output, plan)?),
            Format::Npy => {
                let writer = NpyWriter::create(&args.output, plan.clone(), image_size)?;
                Sink::Npy { writer, plan }
            }
        })
    }

    /// The work still to be done: missing shards, or parts of as many missing images.
    fn units(&self, args: &ExtractArgs) -> Vec<Unit> {
        match self {
            Sink::Shards(writer) => {
                let shard = |number| Unit { number, images: writer.range(number).collect() };
                writer.missing().into_iter().map(shard).collect()
            }
            Sink::Npy { writer, .. } => {
                let missing = writer.missing();
                let parts = missing.chunks(args.shard_size as usize).enumerate();
                parts.map(|(number, images)| Unit { number, images: images.to_vec() }).collect()
            }
        }
    }

    /// The official layout numbers images without gaps.
    fn max_corrupt(&self, args: &ExtractArgs) -> usize {
        match self {
            Sink::Shards(_) => args.max_corrupt,
            Sink::Npy { .. } => 0,
        }
    }

    /// True if codes were stored, now or before.
    fn has_any(&self) -> anyhow::Result<bool> {
        Ok(match self {
            Sink::Npy { .. } => true, // it leaves no image out
            Sink::Shards(writer) => writer.has_records()?,
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

    fn begin(&self, unit: &Unit) -> UnitWriter<'_> {
        match self {
            Sink::Shards(writer) => UnitWriter::Shard(writer, writer.begin(unit.number)),
            Sink::Npy { writer, .. } => UnitWriter::Npy(writer),
        }
    }

    fn finish(&self, args: &ExtractArgs, images: &dyn Dataset, encoded: usize) -> anyhow::Result<Report> {
        let (output, left_out) = (args.output.display().to_string(), images.left_out().len());
        Ok(match self {
            Sink::Npy { writer, plan } => {
                writer.finish(images.classes())?;
                let (tokenizer, views, records) = (plan.tokenizer.clone(), plan.views.clone(), plan.records);
                Report { output, tokenizer, views, records, skipped: 0, left_out, encoded }
            }
            Sink::Shards(writer) => {
                let index = writer.finish(images.classes())?;
                let (records, skipped) = (index.records, index.skipped);
                let (tokenizer, views) = (index.tokenizer, index.views);
                Report { output, tokenizer, views, records, skipped, left_out, encoded }
            }
        })
    }
}

/// Takes the codes of a unit's images.
enum UnitWriter<'a> {
    Shard(&'a CodeWriter, PendingShard),
    Npy(&'a NpyWriter),
}

impl UnitWriter<'_> {
    fn push(&mut self, index: usize, codes: &[i64], label: i64, caption: &str) -> anyhow::Result<()> {
        match self {
            UnitWriter::Shard(writer, shard) => writer.push(shard, codes, label, caption)?,
            UnitWriter::Npy(writer) => writer.write(index, codes, label)?,
        }
        Ok(())
    }

    /// Writes the shard, also an empty one; the official layout has its files already.
    fn finish(self) -> anyhow::Result<()> {
        match self {
            UnitWriter::Shard(writer, shard) => Ok(writer.write(shard)?),
            UnitWriter::Npy(_) => Ok(()),
        }
    }
}
