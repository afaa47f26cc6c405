//! PSNR.

use settings::Metric;

use super::pairs::{PairMetric, PairStyle, ShowImages};
use crate::math::psnr::psnr;
use crate::metric::{MetricSpec, Minimum, Needs};
use crate::score::Better;

/// Mean over images; identical pairs are counted and left out.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs::PAIRS,
    minimum: Minimum::any,
    start: |_| Ok(PairMetric::of_pixels(STYLE, psnr)),
};

const STYLE: PairStyle = PairStyle {
    metric: Metric::Psnr,
    better: Better::Higher,
    variant: "mean over images of the dB of each, data range 1",
    show: Some(ShowImages { unit: "dB", range: (0.0, 60.0), title: "PSNR", suffix: " dB", digits: 2 }),
};
