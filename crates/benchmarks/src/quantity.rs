//! Published quantities: scores of `gen eval`, and the accuracy of a probe.

use serde::{Deserialize, Serialize};
use settings::{Metric, ReferenceKind};

/// A quantity that a benchmark measures, by its name in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Quantity {
    /// FID against a reference for this use: `rfid` or `gfid`.
    Fid(ReferenceKind),
    /// The first score of another metric of `gen eval`.
    Score(Metric),
    /// Accuracy of a linear probe in percent: `top1`.
    Top1,
}

/// FID of reconstructions.
pub const RFID: Quantity = Quantity::Fid(ReferenceKind::Rfid);
/// FID of generated images.
pub const GFID: Quantity = Quantity::Fid(ReferenceKind::Gfid);

/// Metrics that figures are published of, beside FID.
const PUBLISHED: [Metric; 9] = [
    Metric::Sfid,
    Metric::Is,
    Metric::Precision,
    Metric::Recall,
    Metric::Psnr,
    Metric::Ssim,
    Metric::SsimDr2,
    Metric::Lpips,
    Metric::Codebook,
];

impl Quantity {
    /// All quantities.
    pub fn all() -> impl Iterator<Item = Quantity> {
        [RFID, GFID].into_iter().chain(PUBLISHED.map(Quantity::Score)).chain([Quantity::Top1])
    }

    /// Name in the file of a benchmark.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Fid(kind) => kind.name(),
            Quantity::Score(metric) => metric.score_name(),
            Quantity::Top1 => "top1",
        }
    }

    /// Name in tables.
    pub fn title(self) -> String {
        match self {
            Quantity::Fid(ReferenceKind::Rfid) => "rFID".into(),
            Quantity::Fid(ReferenceKind::Gfid) => "gFID".into(),
            Quantity::Fid(ReferenceKind::Other) => Metric::Fid.title().into(),
            Quantity::Score(metric) => metric.title().into(),
            Quantity::Top1 => "probe top-1 %".into(),
        }
    }

    /// The metric of `gen eval` that measures it.
    pub fn metric(self) -> Option<Metric> {
        match self {
            Quantity::Fid(_) => Some(Metric::Fid),
            Quantity::Score(metric) => Some(metric),
            Quantity::Top1 => None,
        }
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> String {
        quantity.name().to_owned()
    }
}

impl TryFrom<String> for Quantity {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let expected = || Quantity::all().map(|q| format!("`{}`", q.name())).collect::<Vec<_>>().join(", ");
        let known = Quantity::all().find(|quantity| quantity.name() == name);
        known.ok_or_else(|| format!("unknown variant `{name}`, expected one of {}", expected()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_keep_their_names_in_files() {
        let names: Vec<&str> = Quantity::all().map(Quantity::name).collect();
        let expected = [
            "rfid",
            "gfid",
            "sfid",
            "is",
            "precision",
            "recall",
            "psnr",
            "ssim",
            "ssim_dr2",
            "lpips",
            "codebook_usage",
            "top1",
        ];
        assert_eq!(names, expected);
        for quantity in Quantity::all() {
            let text = serde_json::to_string(&quantity).unwrap();
            assert_eq!(serde_json::from_str::<Quantity>(&text).unwrap(), quantity);
        }
        assert!(serde_json::from_str::<Quantity>("\"other\"").is_err());
    }
}
