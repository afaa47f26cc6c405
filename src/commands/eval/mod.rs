//! `gen eval`: images → scores, with all that decides what they may be compared with.

mod digest;
mod feature_files;
mod html;
mod images;
mod live;
mod metrics;
mod networks;
mod plots;
mod reference;
mod report;
mod scores;
mod sets;
mod state;
mod stats;
mod thumbs;
mod values;
mod work;

use std::collections::BTreeMap;

use anyhow::Result;
use eval::{CodebookUsage, Collector, Gather, KidSettings};
use serde_json::{Value as Json, json};

use self::images::{ImageSet, OneSize};
use self::live::{Generator, Reconstructor};
use self::metrics::Plan;
use self::networks::{Networks, Role};
use self::reference::{Reference, ReferenceReport};
use self::report::{Report, SamplesReport};
use self::scores::{PUBLISHED_IMAGES, Scoring};
use self::state::{Shard, State, Wanted, merge_files};
use self::values::Setting;
use self::work::{Job, Keeping, Phase, Walk};
use super::{Context, Outcome, recipe, report_skipped};
use crate::cli::eval::{EvalArgs, EvalCommand, Metric, Protocol, RunArgs};
use crate::failure::Failure;
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

/// Where the images come from that are judged.
enum Source {
    Files(ImageSet),
    Reconstruct(Box<Reconstructor>, ImageSet),
    Generate(Box<Generator>),
}

impl Source {
    fn open(args: &RunArgs, context: &Context) -> Result<Self> {
        match (&args.images, &args.reconstruct, args.num) {
            (Some(path), ..) => Ok(Source::Files(ImageSet::open(path, args.resize)?)),
            (None, Some(path), _) => {
                let tokenizer = Reconstructor::open(args, context)?;
                let side = args.resize.unwrap_or(tokenizer.side());
                Ok(Source::Reconstruct(Box::new(tokenizer), ImageSet::open(path, Some(side))?))
            }
            (None, None, Some(n)) => Ok(Source::Generate(Box::new(Generator::open(args, n, context)?))),
            _ => Err(Failure::new("there is nothing to score")
                .hint("`gen eval IMAGES --reference PATH` scores images")
                .hint("`gen eval --num N --reference PATH` scores what a model makes, `--reconstruct IMAGES` a tokenizer")
                .hint("`gen eval --features A.npz --reference-features B.npz` scores features")
                .into()),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Source::Files(set) | Source::Reconstruct(_, set) => set.len() as u64,
            Source::Generate(generator) => generator.len(),
        }
    }

    fn class_names(&self) -> BTreeMap<i64, String> {
        match self {
            Source::Files(set) | Source::Reconstruct(_, set) => set.class_names().into_iter().collect(),
            Source::Generate(generator) => generator.class_names().into_iter().collect(),
        }
    }

    /// What a partial file must belong to, and a report tells.
    fn describe(&self) -> Result<Json> {
        Ok(match self {
            Source::Files(set) => json!({"path": set.path, "images": set.len()}),
            Source::Reconstruct(tokenizer, set) => {
                json!({"path": set.path, "images": set.len(), "tokenizer": tokenizer.fingerprint()?})
            }
            Source::Generate(generator) => {
                json!({"images": generator.len(), "settings": serde_json::to_value(generator.settings())?})
            }
        })
    }

    fn protocol(&self, args: &RunArgs) -> Option<Protocol> {
        args.protocol.or(match self {
            Source::Files(_) => None,
            Source::Reconstruct(..) => Some(Protocol::Rfid),
            Source::Generate(_) => Some(Protocol::Gfid),
        })
    }

    fn conversion(&self) -> &'static str {
        match self {
            Source::Files(_) => "8-bit RGB as stored",
            _ => "trunc(clamp(127.5 x + 128, 0, 255))",
        }
    }
}

fn score(args: &RunArgs, context: &Context) -> Result<Outcome> {
    let device = device::resolve(&args.compute.device)?;
    let plan = Plan::new(&args.metrics, args.reconstruct.is_some(), args.interval)?;
    let source = Source::open(args, context)?;
    let reference = open_reference(args, &source, &plan, context)?;
    let networks = Networks::open(&plan, &args.networks, device, context)?;
    let evaluation = Evaluation { args, plan, source, reference, networks };
    let phases = evaluation.phases()?;
    let run = evaluation.description()?;
    let wanted = evaluation.wanted()?;
    if !args.parts.merge.is_empty() {
        let lengths: Vec<(String, u64)> = phases.iter().map(|p| (p.name.to_owned(), p.len())).collect();
        let state = merge_files(&args.parts.merge, &run, &wanted, &lengths)?;
        drop(phases);
        return evaluation.finish(state, context);
    }
    let shard = shard(args)?;
    let mut state = evaluation.begin(&run, &wanted, shard)?;
    let keeping = Keeping { file: args.parts.partial.as_deref(), run: &run, shard };
    let mut one_size = OneSize::default();
    evaluation.expect_size(&mut one_size)?;
    let batch_size = usize::try_from(args.batch.batch_size)?;
    let mut walk = Walk { networks: &evaluation.networks, device, batch_size, keeping, one_size };
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

/// The reference, if the plan needs one: named, or the images that a tokenizer is given.
fn open_reference(
    args: &RunArgs,
    source: &Source,
    plan: &Plan,
    context: &Context,
) -> Result<Option<Reference>> {
    let Some(path) = &args.reference else {
        let lacking = plan.names(Metric::needs_reference);
        if lacking.is_empty() || matches!(source, Source::Reconstruct(..)) {
            return Ok(None);
        }
        let message = format!("{} need a reference to compare with", lacking.join(", "));
        return Err(Failure::new(message)
            .hint("name it: `--reference PATH`, images or statistics; `--metrics` chooses other scores")
            .into());
    };
    let resize = match source {
        Source::Reconstruct(_, set) => set.side(),
        _ => args.resize,
    };
    let reference = Reference::open(path, resize, source.protocol(args), args.reference_sha256.as_deref())?;
    reference.must_serve(plan)?;
    reference::note(&reference, context);
    Ok(Some(reference))
}

/// `K/N` of `--shard`.
fn shard(args: &RunArgs) -> Result<Shard> {
    let Some(text) = &args.parts.shard else { return Ok(Shard { rank: 0, world: 1 }) };
    let parts = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((rank, world)) if rank < world => Ok(Shard { rank, world }),
        _ => Err(Failure::new(format!("`--shard {text}`: expected K/N with K from 0 to N - 1, such as 0/4"))
            .into()),
    }
}

/// One run.
struct Evaluation<'a> {
    args: &'a RunArgs,
    plan: Plan,
    source: Source,
    reference: Option<Reference>,
    networks: Networks,
}

impl Evaluation<'_> {
    fn phases(&self) -> Result<Vec<Phase<'_>>> {
        let of_reference = |set: &ImageSet| Phase { name: "reference", job: Job::Reference(set.clone()) };
        let reference_images = self.reference.as_ref().and_then(|r| r.images.as_ref());
        let mut phases = match (&self.source, reference_images) {
            (Source::Files(set), Some(originals)) if self.plan.has_pairs() => {
                let originals = originals.clone().matched_with(set)?;
                return Ok(vec![Phase { name: "pairs", job: Job::Pairs(set.clone(), originals) }]);
            }
            (Source::Files(set), _) => vec![Phase { name: "images", job: Job::Samples(set.clone()) }],
            (Source::Reconstruct(tokenizer, set), _) => {
                let job = Job::Reconstruct(set.clone(), tokenizer, self.reference.is_none());
                vec![Phase { name: "reconstructions", job }]
            }
            (Source::Generate(_), _) if self.plan.has_pairs() => {
                let names = self.plan.names(Metric::is_pairwise).join(", ");
                return Err(Failure::new(format!(
                    "a model's images have no originals, which {names} compare with"
                ))
                .into());
            }
            (Source::Generate(generator), _) => vec![Phase { name: "images", job: Job::Generate(generator) }],
        };
        if self.reads_reference_images()?
            && let Some(set) = reference_images
        {
            phases.push(of_reference(set));
        }
        Ok(phases)
    }

    /// Whether stored statistics leave something to be computed from the reference's images.
    fn reads_reference_images(&self) -> Result<bool> {
        for role in self.plan.roles() {
            let gather = self.gather_reference(role)?;
            if gather.groups > 0 || gather.spatial || gather.rows {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn gather_reference(&self, role: Role) -> Result<Gather> {
        let id = self.networks.features[&role].id();
        let known = |spatial| match &self.reference {
            Some(reference) => reference.stored(id, role, spatial).map(|s| s.is_some()),
            None => Ok(false),
        };
        Ok(self.plan.gather_reference(role, known(false)?, known(true)?))
    }

    fn wanted(&self) -> Result<Wanted> {
        let roles = self.plan.roles();
        let samples = roles.iter().map(|&role| (role, self.plan.gather_samples(role, self.source.len())));
        let mut reference = BTreeMap::new();
        for &role in &roles {
            reference.insert(role, self.gather_reference(role)?);
        }
        Ok([samples.collect(), reference])
    }

    /// The run, for partial files.
    fn description(&self) -> Result<Json> {
        Ok(json!({
            "program": concat!("gen ", env!("CARGO_PKG_VERSION")),
            "source": self.source.describe()?,
            "reference": self.reference.as_ref().map(|r| json!({"path": r.path, "sha256": r.sha256})),
            "metrics": self.plan.names(|_| true),
            "networks": self.networks.ids(),
            "resize": self.resize(),
            "interval": self.plan.interval,
        }))
    }

    fn resize(&self) -> String {
        let side = match &self.source {
            Source::Reconstruct(_, set) => set.side(),
            _ => self.args.resize,
        };
        side.map_or("none".into(), |s| format!("ADM centre crop to {s}x{s}"))
    }

    /// A kept state, or a new one.
    fn begin(&self, run: &Json, wanted: &Wanted, shard: Shard) -> Result<State> {
        if let Some(file) = self.args.parts.partial.as_deref().filter(|f| f.exists()) {
            let (state, found) = State::load(file, run, wanted)?;
            if found != shard {
                let message = format!("`{}` is shard {}/{}", file.display(), found.rank, found.world);
                return Err(Failure::new(message).hint("each shard has its own `--partial` file").into());
            }
            return Ok(state);
        }
        let collectors = |gathers: &BTreeMap<Role, Gather>| {
            let of = |(role, gather): (&Role, &Gather)| {
                (*role, Collector::new(self.networks.features[role].id().clone(), gather.clone()))
            };
            gathers.iter().map(of).collect()
        };
        let mut state = State::new(collectors(&wanted[0]), collectors(&wanted[1]));
        if let Source::Reconstruct(tokenizer, _) = &self.source
            && self.plan.has(Metric::Codebook)
        {
            state.tally.codebook = Some(CodebookUsage::new(tokenizer.codebook_size()));
        }
        Ok(state)
    }

    /// Statistics that lie beside images are of images of their size.
    fn expect_size(&self, one_size: &mut OneSize) -> Result<()> {
        let stored = self.reference.as_ref().filter(|r| r.file.as_ref().is_some_and(|f| f.pool.is_some()));
        if let Some(set) = stored.and_then(|r| r.images.as_ref())
            && let Some(Ok(first)) = set.read(&[0]).pop()
        {
            one_size.check(&format!("{}[0]", set.path.display()), first.image.dimensions())?;
        }
        Ok(())
    }

    fn finish(&self, state: State, context: &Context) -> Result<Outcome> {
        let tally = state.tally.clone();
        if tally.samples.images == 0 {
            let first =
                tally.skipped.first().map(|s| format!("; the first: {}", s.error)).unwrap_or_default();
            return Err(Failure::new(format!("no image could be read{first}")).into());
        }
        let setting = Setting {
            samples: tally.samples.images,
            reference: (tally.reference.images > 0).then_some(tally.reference.images),
            reference_sha256: self.reference_digest(&tally),
            resize: self.resize(),
            image_conversion: self.source.conversion().into(),
            incomplete: !tally.skipped.is_empty(),
        };
        let scoring = Scoring {
            plan: &self.plan,
            state: &state,
            networks: &self.networks,
            reference: self.reference.as_ref(),
            setting: setting.clone(),
            neighbours: self.args.neighbours,
            kid: KidSettings {
                subsets: self.args.kid_subsets,
                size: self.args.kid_subset_size,
                ..KidSettings::default()
            },
        };
        let scores = scoring.all()?;
        let mut report = Report::new(setting, scores.values);
        report.series = scores.series;
        report.samples = self.samples(&tally)?;
        report.reference = self.reference_report(&tally);
        report.warnings = self.warnings(&tally);
        report.converted = tally.samples.converted.clone();
        for (what, n) in &tally.reference.converted {
            *report.converted.entry(what.clone()).or_default() += n;
        }
        report.class_names = self.source.class_names();
        report.skipped = tally.skipped.clone();
        let complete = tally.skipped.is_empty();
        report.tally = Some(tally);
        report_skipped(context, &report.skipped);
        report.print(self.args, context)?;
        Ok(if complete { Outcome::Done } else { Outcome::Incomplete })
    }

    /// The file's SHA-256, else the images' digest.
    fn reference_digest(&self, tally: &state::Tally) -> Option<String> {
        let of_file = self.reference.as_ref().and_then(|r| r.sha256.clone());
        of_file.or_else(|| (tally.reference.images > 0).then(|| tally.reference.digest.to_string()))
    }

    fn samples(&self, tally: &state::Tally) -> Result<SamplesReport> {
        let from_files = matches!(self.source, Source::Files(_));
        Ok(SamplesReport {
            path: match &self.source {
                Source::Files(set) => Some(set.path.clone()),
                _ => None,
            },
            images: tally.samples.images,
            digest: from_files.then(|| tally.samples.digest.to_string()),
            made_by: if from_files { Json::Null } else { self.source.describe()? },
        })
    }

    fn reference_report(&self, tally: &state::Tally) -> Option<ReferenceReport> {
        let images = tally.reference.images;
        let sha256 = self.reference_digest(tally);
        match (&self.reference, &self.source) {
            (Some(r), _) => Some(ReferenceReport {
                path: r.path.clone(),
                sha256,
                kind: r.kind.clone(),
                images,
                statistics_of: r.file.as_ref().and_then(|f| f.tag.as_ref()).map(|t| t.images),
            }),
            (None, Source::Reconstruct(_, set)) => Some(ReferenceReport {
                path: set.path.clone(),
                sha256,
                kind: "the originals themselves".into(),
                images,
                statistics_of: None,
            }),
            _ => None,
        }
    }

    fn warnings(&self, tally: &state::Tally) -> Vec<String> {
        let mut warnings = vec![];
        let n = tally.samples.images;
        let frechet = self.plan.names(|m| matches!(m, Metric::Fid | Metric::Sfid | Metric::Fdd));
        if !frechet.is_empty() && n < PUBLISHED_IMAGES {
            let images = if n == 1 { "image" } else { "images" };
            warnings.push(format!(
                "scored {} {images}; {} {} biased below 50,000 and never comparable between different numbers of images",
                report::grouped(n),
                frechet.join(", "),
                if frechet.len() == 1 { "is" } else { "are" }
            ));
        }
        for (what, n) in tally.samples.converted.iter().chain(&tally.reference.converted) {
            warnings
                .push(format!("{n} image{} not 8-bit RGB: {what}", if *n == 1 { " is" } else { "s are" }));
        }
        if tally.pairs.identical() > 0 {
            warnings.push(format!(
                "{} pairs are identical: their infinite PSNR is left out of the mean",
                tally.pairs.identical()
            ));
        }
        warnings
    }
}
