//! Metrics over images, features and codes, in float64, and the evaluation that computes them. This
//! crate knows neither tokenizers nor samplers: it judges images from anywhere, in files or by an
//! [`ImageSource`], as files hold them ([`base::ImagesU8`]), and feature rows (N, D).

mod accumulator;
mod batch;
mod class_row;
mod digest;
mod error;
mod evaluation;
mod feature_files;
mod gallery;
mod histogram;
mod image_set;
mod jackknife;
mod job_error;
mod math;
mod measure;
mod measured;
mod metric;
mod metrics;
mod networks;
mod plan;
mod prefetch;
mod reference;
mod reference_set;
mod result;
mod rows;
mod runner;
mod score;
mod shards;
mod source;
mod state;
mod titles;
mod totals;

pub use settings::{Metric, ReferenceKind};

pub use accumulator::{AccumulateSpec, FeatureAccumulator};
pub use batch::{CodeLikelihoods, EvalBatch, ImagePair, Item};
pub use class_row::{ClassRow, class_label};
pub use error::Error;
pub use evaluation::{Ending, EvalJob, EvalSource, Parts, SourceFacts, reference_features};
pub use feature_files::{FeatureFilesJob, FeatureFilesResult};
pub use gallery::{Gallery, Thumb};
pub use histogram::Histogram;
pub use image_set::{ImageSet, stack};
pub use jackknife::{GROUPS, jackknife};
pub use job_error::JobError;
pub use math::class_agreement::{AgreementScores, ClassAgreement, ClassCounts};
pub use math::clip_score::{CLIP_PREFIX, ClipScore, ClipScores};
pub use math::codebook::{CodebookScores, CodebookUsage};
pub use math::features::finite_rows;
pub use math::frechet::{FrechetReference, frechet_distance, frechet_of_features};
pub use math::inception_score::{
    ADM_SPLIT_SIZE, FIDELITY_SEED, FIDELITY_SPLITS, InceptionScore, InceptionScores, Splits, inception_score,
};
pub use math::kernel::{Estimator, Kid, KidSettings, cmmd, kid, kid_on, kid_subsets, polynomial_mmd2};
pub use math::likelihood::{Likelihood, LikelihoodScores, code_nats};
pub use math::mean::Mean;
pub use math::moments::{Moments, Statistics};
pub use math::neighbours::{Manifold, Membership, Prdc, PrecisionRecall, prdc, precision_recall};
pub use math::numpy;
pub use math::pixels::PixelPair;
pub use math::psnr::psnr;
pub use math::reconstruction::{PairScores, PixelMetrics, Reconstruction};
pub use math::ssim::{DataRange, Window, ssim, ssim_map};
pub use metric::{Distribution, MetricOptions, MetricSpec, MetricState, Minimum, Needs};
pub use networks::{NetworkOptions, Role};
pub use plan::{Plan, SourceKind};
pub use prefetch::prefetch;
pub use reference::{Judgement, ReferenceFile, Tag, is_npz, write_reference};
pub use reference_set::Reference;
pub use result::{EvalResult, grouped};
pub use score::{Better, Score, ScoreContext};
pub use shards::Shard;
pub use source::{ImageSource, Input, Side, next_input};
pub use titles::AGREEMENT;
pub use totals::{RunTotals, SideStats};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
