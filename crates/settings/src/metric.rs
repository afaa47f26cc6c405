//! Metrics and kinds of references by name.

use serde::{Deserialize, Serialize};

/// Defines [`Metric`] and all that its variants are called.
macro_rules! metrics {
    ($($metric:ident $name:literal $title:literal $help:literal,)*) => {
        /// A metric of `gen eval`, in the order in which scores are printed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $(#[doc = $help] $metric,)*
        }

        impl Metric {
            /// All metrics in order.
            pub const ALL: &[Metric] = &[$(Metric::$metric),*];

            /// Name as typed and printed.
            pub fn name(self) -> &'static str {
                match self { $(Metric::$metric => $name,)* }
            }

            /// Name in tables of published figures.
            pub fn title(self) -> &'static str {
                match self { $(Metric::$metric => $title,)* }
            }

            /// One line of help.
            pub fn help(self) -> &'static str {
                match self { $(Metric::$metric => $help,)* }
            }
        }
    };
}

metrics! {
    Psnr "psnr" "PSNR" "Peak signal-to-noise ratio, dB",
    Ssim "ssim" "SSIM" "Structural similarity",
    SsimDr2 "ssim_dr2" "SSIM (range 2)" "SSIM with data range 2, as GigaTok and LlamaGen publish it",
    MsSsim "ms_ssim" "MS-SSIM" "Multi-scale SSIM, 5 scales (up to 160 pixels: fewer, named ms_ssim_N)",
    Lpips "lpips" "LPIPS" "Perceptual distance, LPIPS v0.1",
    Perceptual "perceptual" "perceptual" "Perceptual distance by the features of EfficientNet-Lite",
    Fid "fid" "FID" "Fréchet Inception distance",
    Sfid "sfid" "sFID" "FID on spatial features",
    Is "is" "IS" "Inception Score, chunks of 5,000 in file order (ADM)",
    IsFidelity "is_fidelity" "IS (torch-fidelity)" "Inception Score, ten shuffled chunks (torch-fidelity)",
    Precision "precision" "precision" "Share of samples inside the reference manifold (ADM)",
    Recall "recall" "recall" "Share of the reference inside the samples' manifold (ADM)",
    Density "density" "density" "Density of samples in the reference's manifold (prdc)",
    Coverage "coverage" "coverage" "Share of the reference's neighbourhoods that contain a sample (prdc)",
    Kid "kid" "KID" "Kernel Inception distance",
    Fdd "fdd" "FDD" "Fréchet distance with DINOv2",
    Cmmd "cmmd" "CMMD" "Maximum mean discrepancy of CLIP embeddings",
    ClipScore "clip_score" "CLIP score" "Cosine of the CLIP embeddings of images and prompts",
    ClassAgreement "class_agreement" "class agreement"
        "Top-1 and top-5 accuracy of a classifier on images of known classes",
    Codebook "codebook" "codebook usage" "Usage, entropy and perplexity of the codebook (with --reconstruct)",
    ArLoss "ar_loss" "AR loss" "Loss and perplexity of a transformer's predictions (with --likelihood)",
}

impl Metric {
    /// Name of its first score, where a metric has several.
    pub fn score_name(self) -> &'static str {
        match self {
            Metric::Codebook => "codebook_usage",
            other => other.name(),
        }
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Metric {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let known = Metric::ALL.iter().find(|metric| metric.name() == s);
        known.copied().ok_or_else(|| format!("unknown metric `{s}`"))
    }
}

/// Which published number a reference belongs to; the two must not be swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceKind {
    /// Validation images, which reconstructions are compared with.
    Rfid,
    /// The training set, which generated images are compared with.
    Gfid,
    /// Something else.
    Other,
}

impl ReferenceKind {
    /// Name as typed and stored.
    pub fn name(self) -> &'static str {
        match self {
            ReferenceKind::Rfid => "rfid",
            ReferenceKind::Gfid => "gfid",
            ReferenceKind::Other => "other",
        }
    }
}

impl std::str::FromStr for ReferenceKind {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let all = [ReferenceKind::Rfid, ReferenceKind::Gfid, ReferenceKind::Other];
        let known = all.into_iter().find(|kind| kind.name() == s);
        known.ok_or_else(|| format!("unknown kind of reference `{s}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_by_their_names() {
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse(), Ok(*metric));
        }
        assert!("rfid".parse::<Metric>().is_err());
    }
}
