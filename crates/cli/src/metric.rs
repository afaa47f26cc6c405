//! The scores.

use clap::ValueEnum;

/// A score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Metric {
    /// Peak signal-to-noise ratio, dB
    Psnr,
    /// Structural similarity
    Ssim,
    /// SSIM with data range 2, as GigaTok and LlamaGen publish it
    #[value(name = "ssim_dr2")]
    SsimDr2,
    /// Perceptual distance, LPIPS v0.1
    Lpips,
    /// Perceptual distance by the features of EfficientNet-Lite
    Perceptual,
    /// Fréchet Inception distance
    Fid,
    /// FID on spatial features
    Sfid,
    /// Inception Score, chunks of 5,000 in file order (ADM)
    Is,
    /// Inception Score, ten shuffled chunks (torch-fidelity)
    #[value(name = "is_fidelity")]
    IsFidelity,
    /// Share of samples inside the reference manifold (ADM)
    Precision,
    /// Share of the reference inside the samples' manifold (ADM)
    Recall,
    /// Density of samples in the reference's manifold (prdc)
    Density,
    /// Share of the reference's neighbourhoods that contain a sample (prdc)
    Coverage,
    /// Kernel Inception distance
    Kid,
    /// Fréchet distance with DINOv2
    Fdd,
    /// Maximum mean discrepancy of CLIP embeddings
    Cmmd,
    /// Cosine of the CLIP embeddings of images and prompts
    #[value(name = "clip_score")]
    ClipScore,
    /// Top-1 and top-5 accuracy of a classifier on images of known classes
    #[value(name = "class_agreement")]
    ClassAgreement,
    /// Usage, entropy and perplexity of the codebook (with --reconstruct)
    Codebook,
    /// Loss and perplexity of a transformer's predictions (with --likelihood)
    #[value(name = "ar_loss")]
    ArLoss,
}

impl Metric {
    /// As it is typed and printed.
    pub fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it compares each image with its own original.
    pub fn is_pairwise(self) -> bool {
        matches!(self, Metric::Psnr | Metric::Ssim | Metric::SsimDr2 | Metric::Lpips | Metric::Perceptual)
    }

    /// Whether it compares with a reference set.
    pub fn needs_reference(self) -> bool {
        use Metric as M;
        !self.reads_logits() && !matches!(self, M::Codebook | M::ClipScore | M::ArLoss)
    }

    /// Whether it reads a network's logits of classes.
    pub fn reads_logits(self) -> bool {
        matches!(self, Metric::Is | Metric::IsFidelity | Metric::ClassAgreement)
    }

    /// Whether it needs the reference's own rows, which statistics do not give.
    pub fn needs_rows(self) -> bool {
        use Metric as M;
        matches!(self, M::Precision | M::Recall | M::Density | M::Coverage | M::Kid | M::Cmmd)
    }
}
