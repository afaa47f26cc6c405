//! Numbers of metrics, free of files and networks: features, logits, pixels and codes in, float64
//! out.

pub mod class_agreement;
pub mod clip_score;
pub mod codebook;
pub mod features;
pub mod frechet;
pub mod inception_score;
pub mod kernel;
pub mod likelihood;
pub mod mean;
pub mod moments;
pub mod neighbours;
pub mod numpy;
pub mod pixels;
pub mod psnr;
pub mod reconstruction;
pub mod ssim;
