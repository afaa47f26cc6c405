//! Metrics over images, features and codes, in float64. This crate knows neither tokenizers nor samplers: it judges
//! pictures from anywhere, as files hold them ([`base::ImagesU8`]), and feature rows (N, D).

mod accumulator;
mod error;
mod jackknife;
mod math;
mod prefetch;
mod reference;

pub use choices::{Metric, ReferenceKind};

pub use accumulator::{AccumulateSpec, FeatureAccumulator};
pub use error::Error;
pub use jackknife::{GROUPS, jackknife};
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
pub use prefetch::prefetch;
pub use reference::{Judgement, ReferenceFile, Tag, is_npz, write_reference};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
