//! Metrics over images, features and codes, in float64. This crate knows neither tokenizers nor samplers: it judges
//! pictures from anywhere, as files hold them ([`base::ImagesU8`]), and feature rows (N, D).

mod class_agreement;
mod clip_score;
mod codebook;
mod collector;
mod error;
mod features;
mod frechet;
mod inception_score;
mod interval;
mod kernel;
mod likelihood;
mod mean;
mod moments;
mod neighbours;
pub mod numpy;
mod overlap;
mod pixels;
mod psnr;
mod reconstruction;
mod reference;
mod ssim;

pub use class_agreement::{AgreementScores, ClassAgreement, ClassCounts};
pub use clip_score::{CLIP_PREFIX, ClipScore, ClipScores};
pub use codebook::{CodebookScores, CodebookUsage};
pub use collector::{Collector, Gather};
pub use error::Error;
pub use features::finite_rows;
pub use frechet::{FrechetReference, frechet_distance, frechet_of_features};
pub use inception_score::{
    ADM_SPLIT_SIZE, FIDELITY_SEED, FIDELITY_SPLITS, InceptionScore, InceptionScores, Splits, inception_score,
};
pub use interval::{GROUPS, jackknife};
pub use kernel::{Estimator, Kid, KidSettings, cmmd, kid, kid_on, kid_subsets, polynomial_mmd2};
pub use likelihood::{Likelihood, LikelihoodScores, code_nats};
pub use mean::Mean;
pub use moments::{Moments, Statistics};
pub use neighbours::{Manifold, Membership, Prdc, PrecisionRecall, prdc, precision_recall};
pub use overlap::overlapped;
pub use pixels::PixelPair;
pub use psnr::psnr;
pub use reconstruction::{PairScores, PixelMetrics, Reconstruction};
pub use reference::{Judgement, ReferenceFile, ReferenceKind, Tag, is_npz, write_reference};
pub use ssim::{DataRange, Window, ssim, ssim_map};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
