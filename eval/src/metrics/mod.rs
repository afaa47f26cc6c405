//! All metrics, one file each (or one for a family), and the registry.

pub mod ar_loss;
pub mod class_agreement;
pub mod clip_score;
pub mod cmmd;
pub mod codebook;
pub mod density_coverage;
pub mod frechet;
pub mod inception_score;
pub mod kid;
pub mod lpips;
pub mod ms_ssim;
pub mod pairs;
pub mod perceptual;
pub mod precision_recall;
pub mod psnr;
pub mod ssim;

use choices::Metric;

use crate::metric::MetricSpec;

/// Registry: one line for each metric.
pub fn spec(metric: Metric) -> MetricSpec {
    match metric {
        Metric::Psnr => psnr::SPEC,
        Metric::Ssim => ssim::SPEC,
        Metric::SsimDr2 => ssim::SPEC_DR2,
        Metric::MsSsim => ms_ssim::SPEC,
        Metric::Lpips => lpips::SPEC,
        Metric::Perceptual => perceptual::SPEC,
        Metric::Fid => frechet::FID,
        Metric::Sfid => frechet::SFID,
        Metric::Fdd => frechet::FDD,
        Metric::Is => inception_score::SPEC,
        Metric::IsFidelity => inception_score::FIDELITY,
        Metric::Precision | Metric::Recall => precision_recall::SPEC,
        Metric::Density | Metric::Coverage => density_coverage::SPEC,
        Metric::Kid => kid::SPEC,
        Metric::Cmmd => cmmd::SPEC,
        Metric::ClipScore => clip_score::SPEC,
        Metric::ClassAgreement => class_agreement::SPEC,
        Metric::Codebook => codebook::SPEC,
        Metric::ArLoss => ar_loss::SPEC,
    }
}
