//! Errors of evaluations: requests that cannot be met, images that do not fit, files of other runs.

use std::path::PathBuf;

use base::Hint;
use settings::{Metric, ReferenceKind};

/// Errors of evaluations.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Codebook usage without a tokenizer.
    #[error("`codebook` needs a tokenizer's codes")]
    NeedsCodes,
    /// A CLIP score of images of classes.
    #[error("images of classes have no prompts, which clip_score compares with")]
    NoPrompts,
    /// A metric of images with predictions of codes.
    #[error("`--likelihood` makes no images to score")]
    OnlyLikelihood,
    /// A loss without predictions of codes.
    #[error("`ar_loss` is of a transformer that predicts codes")]
    NeedsLikelihood,
    /// A network without an output that a metric reads.
    #[error("`{metric}` reads {what}, which {network} does not give")]
    NetworkLacks {
        /// The metric.
        metric: Metric,
        /// The output.
        what: &'static str,
        /// The network.
        network: String,
    },
    /// Pairwise metrics of images without originals.
    #[error("a model's images have no originals, which {} compare with", metrics.join(", "))]
    NoOriginals {
        /// The metrics.
        metrics: Vec<&'static str>,
    },
    /// Metrics that compare, with nothing to compare with.
    #[error("{} need a reference to compare with", metrics.join(", "))]
    NoReference {
        /// The metrics.
        metrics: Vec<&'static str>,
    },
    /// Statistics where images are needed.
    #[error(
        "`{}` holds statistics alone, and {} compare{} single images",
        path.display(), metrics.join(", "), if metrics.len() == 1 { "s" } else { "" }
    )]
    StatisticsAlone {
        /// The reference.
        path: PathBuf,
        /// The metrics.
        metrics: Vec<&'static str>,
    },
    /// Statistics of another network's features.
    #[error("`{}` holds statistics of {stored}; this run has {id}", path.display())]
    StatisticsOfOthers {
        /// The reference.
        path: PathBuf,
        /// Its features.
        stored: String,
        /// The run's features.
        id: String,
    },
    /// ADM's statistics beside another preprocessing than ADM's.
    #[error(
        "`{}` is of ADM's form, whose statistics are taken with the input tf; this run has {input}",
        path.display()
    )]
    StatisticsOfTf {
        /// The reference.
        path: PathBuf,
        /// The run's preprocessing.
        input: String,
    },
    /// A reference of another kind than the protocol's.
    #[error("`{}` is {shown}, but {} compares with {}", path.display(), number(*wanted).0, number(*wanted).1)]
    WrongReference {
        /// The file.
        path: PathBuf,
        /// Its kind in words.
        shown: String,
        /// The kind wanted.
        wanted: ReferenceKind,
    },
    /// Fewer images than a metric takes.
    #[error("{metric} needs at least {needed} images; {found} {side}")]
    TooFewImages {
        /// The metric.
        metric: Metric,
        /// The smallest number.
        needed: u64,
        /// The number found.
        found: u64,
        /// The side of the images.
        side: &'static str,
        /// The next step to try.
        hint: &'static str,
    },
    /// No image at all.
    #[error("no image could be read{}", first.as_ref().map(|e| format!("; the first: {e}")).unwrap_or_default())]
    NoImages {
        /// The first image's error.
        first: Option<String>,
    },
    /// Images of several sizes.
    #[error("`{name}` has {}x{} pixels, but `{first}` has {}x{}", size.0, size.1, expected.0, expected.1)]
    OneSize {
        /// The image.
        name: String,
        /// Its width and height.
        size: (u32, u32),
        /// The first image.
        first: String,
        /// Width and height of the first image.
        expected: (u32, u32),
    },
    /// Names that do not identify images.
    #[error("`{}` has several images of one name", path.display())]
    SameNames {
        /// The set.
        path: PathBuf,
    },
    /// Sets with different names.
    #[error("the images do not form pairs: {lacking}")]
    NoPairs {
        /// Images without a partner.
        lacking: String,
    },
    /// A file that is not the state of a run.
    #[error("`{}` is no partial evaluation", path.display())]
    NotPartial {
        /// The file.
        path: PathBuf,
    },
    /// A state with the layout of an earlier version.
    #[error("`{}` is a partial evaluation of an earlier version, which cannot be resumed", path.display())]
    OldPartial {
        /// The file.
        path: PathBuf,
    },
    /// The state of another run.
    #[error("`{}` belongs to another run; these differ: {}", path.display(), differ.join(", "))]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// Keys that differ.
        differ: Vec<String>,
    },
    /// The state of another shard.
    #[error("`{}` is shard {rank}/{world}", path.display())]
    OtherShard {
        /// The file.
        path: PathBuf,
        /// Its rank.
        rank: u64,
        /// Its number of shards.
        world: u64,
    },
    /// A shard that was not finished.
    #[error("`{}` is not complete: {done} of {expected} {phase}", path.display())]
    ShardIncomplete {
        /// The file.
        path: PathBuf,
        /// Images done.
        done: u64,
        /// Images of the shard.
        expected: u64,
        /// The phase.
        phase: String,
    },
    /// A shard that was given twice.
    #[error("`{}` is shard {rank}/{world} once more", path.display())]
    ShardTwice {
        /// The file.
        path: PathBuf,
        /// Its rank.
        rank: u64,
        /// Its number of shards.
        world: u64,
    },
    /// A shard that was not given.
    #[error("shard {rank}/{world} is missing")]
    ShardMissing {
        /// Its rank.
        rank: u64,
        /// Number of shards.
        world: u64,
    },
    /// A file without features.
    #[error("`{}` holds no features, only {}", path.display(), arrays.join(", "))]
    NoFeatures {
        /// The file.
        path: PathBuf,
        /// Its arrays.
        arrays: Vec<String>,
    },
    /// Files of different features.
    #[error("`{}` holds {mine}, `{}` {theirs}", samples.display(), reference.display())]
    OtherFeatureFile {
        /// The file of the images judged.
        samples: PathBuf,
        /// Its features.
        mine: String,
        /// The file compared with.
        reference: PathBuf,
        /// Its features.
        theirs: String,
    },
    /// A metric that features in files do not give.
    #[error("`{metric}` is no score of features in files")]
    NotOfFeatures {
        /// The metric.
        metric: Metric,
        /// Metrics that they give.
        known: String,
    },
    /// Files that give no score.
    #[error("none of the scores can be had of these files: {why}")]
    NoScores {
        /// Reasons.
        why: String,
    },
}

/// A published number and its reference.
fn number(kind: ReferenceKind) -> (&'static str, &'static str) {
    match kind {
        ReferenceKind::Rfid => ("rFID", "the cropped validation images themselves"),
        ReferenceKind::Gfid | ReferenceKind::Other => {
            ("gFID", "statistics of the whole training set, ADM's VIRTUAL file")
        }
    }
}

impl Hint for JobError {
    fn hints(&self) -> Vec<String> {
        let hints: &[&str] = match self {
            JobError::NeedsCodes => &["give images to encode with `--reconstruct IMAGES`"],
            JobError::OnlyLikelihood => &["its one score is `ar_loss`; `gen eval IMAGES` gives others"],
            JobError::NeedsLikelihood => &["give labelled images or stored codes with `--likelihood DATA`"],
            JobError::NetworkLacks { .. } => {
                &["leave it out of `--metrics`, or name another network; efficientnet-lite0 gives all"]
            }
            JobError::NoReference { .. } => {
                &["name it: `--reference PATH`, images or statistics; `--metrics` chooses other scores"]
            }
            JobError::StatisticsAlone { .. } => {
                &["give a reference with images, or leave these out of `--metrics`"]
            }
            JobError::StatisticsOfOthers { .. } => &["`gen eval stats` makes statistics of this network"],
            JobError::StatisticsOfTf { .. } => {
                &["leave `--inception-input` out, or make statistics of that input with `gen eval stats`"]
            }
            JobError::WrongReference { .. } => &[
                "the wrong reference file is the usual reason for a figure that cannot be reproduced",
                "`--protocol` says which number is meant; without it `gen eval IMAGES --reference …` takes any",
            ],
            JobError::TooFewImages { hint, .. } => &[*hint],
            JobError::OneSize { .. } => &[
                "scores compare images of one size; `--resize PIXELS` crops and resizes all of them as ADM does",
            ],
            JobError::SameNames { .. } => &["pairs are images of one name"],
            JobError::NoPairs { .. } => &[
                "psnr, ssim, lpips and perceptual compare images of one name",
                "endings count only where two images of a set differ in nothing else",
            ],
            JobError::OldPartial { .. } => {
                &["give another file with `--partial`, or remove this one to begin anew"]
            }
            JobError::OtherRun { differ, .. }
                if differ.iter().any(|key| key.split('.').next() == Some("content")) =>
            {
                &[
                    "the images, their labels or their prompts are not those that were counted",
                    "give another file with `--partial`, or remove this one to begin anew",
                ]
            }
            JobError::OtherRun { .. } => {
                &["give another file with `--partial`, or remove this one to begin anew"]
            }
            JobError::OtherShard { .. } => &["each shard has its own `--partial` file"],
            JobError::ShardIncomplete { .. } => &["run its command again; it goes on where it stopped"],
            JobError::NoFeatures { .. } => &[
                "features are a floating array (N, D) called `pool`, or the only one of that shape; `gen features` \
                 writes such files",
            ],
            JobError::OtherFeatureFile { .. } => {
                &["only features of one network, in one way, may be compared"]
            }
            JobError::NotOfFeatures { known, .. } => return vec![format!("these are: {known}")],
            JobError::NoPrompts
            | JobError::NoOriginals { .. }
            | JobError::NoImages { .. }
            | JobError::NotPartial { .. }
            | JobError::ShardTwice { .. }
            | JobError::ShardMissing { .. }
            | JobError::NoScores { .. } => &[],
        };
        hints.iter().map(|&hint| hint.to_owned()).collect()
    }
}
