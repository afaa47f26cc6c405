//! LPIPS.

use backbones::Lpips;
use base::{Images, finite};
use settings::Metric;
use tch::{Device, Kind};

use super::pairs::{PairMetric, PairStyle, ShowImages};
use crate::Result;
use crate::batch::{EvalBatch, ImagePair};
use crate::metric::{MetricSetup, MetricSpec, MetricState, Minimum, Needs};
use crate::score::Better;

/// LPIPS v0.1, mean over images.
pub const SPEC: MetricSpec = MetricSpec { needs: Needs::PAIRS, minimum: Minimum::any, start };

const STYLE: PairStyle = PairStyle {
    metric: Metric::Lpips,
    better: Better::Lower,
    variant: "v0.1, mean over images",
    show: Some(ShowImages { unit: "LPIPS", range: (0.0, 1.0), title: "LPIPS", suffix: "", digits: 4 }),
};

fn start(setup: &MetricSetup) -> Result<Box<dyn MetricState>> {
    let (options, device) = (setup.networks, setup.device);
    let trunk = options.given_or_public(&options.lpips_trunk, options.lpips.trunk_file())?;
    let heads = options.given_or_public(&options.lpips_heads, options.lpips.name())?;
    let (network, id) = Lpips::open_with_id(&trunk, &heads, options.lpips, device)?;
    let name = id.to_string();
    let on_device = move |images: &Images| Images::new(images.tensor().to_device(device));
    let score = move |batch: &EvalBatch, pair: &ImagePair| {
        let distance = network.distance(&on_device(&pair.judged)?, &on_device(&pair.originals)?)?; // (B)
        finite::check(&distance, batch.names(), "the distance", &name)?;
        Ok(Vec::<f64>::try_from(distance.to_kind(Kind::Double).to_device(Device::Cpu))?)
    };
    Ok(PairMetric::boxed(STYLE, Box::new(score), Some(id)))
}
