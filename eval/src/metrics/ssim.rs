//! SSIM with the two data ranges that figures are published with.

use settings::Metric;

use super::pairs::{PairMetric, PairStyle, ShowImages};
use crate::math::ssim::{DataRange, Window, ssim};
use crate::metric::{MetricSpec, Minimum, Needs};
use crate::score::Better;

/// scikit-image's SSIM.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs::PAIRS,
    minimum: Minimum::any,
    start: |_| Ok(PairMetric::of_pixels(UNIT, |pair| ssim(pair, DataRange::Unit, Window::Uniform))),
};

/// SSIM as GigaTok and LlamaGen compute it.
pub const SPEC_DR2: MetricSpec = MetricSpec {
    needs: Needs::PAIRS,
    minimum: Minimum::any,
    start: |_| Ok(PairMetric::of_pixels(PUBLISHED, |pair| ssim(pair, DataRange::Published, Window::Uniform))),
};

const UNIT: PairStyle = PairStyle {
    metric: Metric::Ssim,
    better: Better::Higher,
    variant: "scikit-image's defaults: 7x7 window, data range 1",
    show: Some(ShowImages { unit: "SSIM", range: (0.0, 1.0), title: "SSIM", suffix: "", digits: 4 }),
};

const PUBLISHED: PairStyle = PairStyle {
    metric: Metric::SsimDr2,
    better: Better::Higher,
    variant: "GigaTok and LlamaGen: as ssim, with data range 2 on images in [0, 1]",
    show: None,
};
