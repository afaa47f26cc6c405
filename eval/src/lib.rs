//! Metrics over images. This crate knows neither tokenizers nor samplers: it judges pictures from anywhere, as
//! files hold them ([`base::ImagesU8`]).

mod error;
mod mean;
mod psnr;
mod reconstruction;
mod ssim;

pub use error::Error;
pub use mean::Mean;
pub use psnr::psnr;
pub use reconstruction::{PairScores, Reconstruction};
pub use ssim::{DataRange, ssim};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
