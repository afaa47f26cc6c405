//! Distance by the features of EfficientNet-Lite.

use backbones::{Network, PerceptualConfig, PerceptualDistance};
use base::{Precision, finite};
use settings::Metric;
use tch::{Device, Kind};

use super::pairs::{PairMetric, PairStyle, ShowImages};
use crate::Result;
use crate::batch::{EvalBatch, ImagePair};
use crate::metric::{MetricSetup, MetricSpec, MetricState, Minimum, Needs};
use crate::score::Better;

/// The loss `efficientnet_lite` of training as a metric.
pub const SPEC: MetricSpec = MetricSpec { needs: Needs::PAIRS, minimum: Minimum::any, start };

const STYLE: PairStyle = PairStyle {
    metric: Metric::Perceptual,
    better: Better::Lower,
    variant: "squared distance of features at unit length, mean over blocks, places and images",
    show: Some(ShowImages {
        unit: "distance",
        range: (0.0, 2.0),
        title: "perceptual distance",
        suffix: "",
        digits: 4,
    }),
};

fn start(setup: &MetricSetup) -> Result<Box<dyn MetricState>> {
    let (options, device) = (setup.networks, setup.device);
    let size = options.perceptual;
    let weights = options.weights(Network::EfficientNetLite(size), &options.perceptual_weights)?;
    let config = PerceptualConfig { size, weights: Some(weights), ..PerceptualConfig::default() };
    let (network, id) = PerceptualDistance::open_with_id(&config, device, Precision::Fp32)?;
    let name = id.to_string();
    let score = move |batch: &EvalBatch, pair: &ImagePair| {
        let (judged, originals) =
            (pair.judged.tensor().to_device(device), pair.originals.tensor().to_device(device));
        let distance = tch::no_grad(|| network.distance(&originals, &judged)); // (B)
        finite::check(&distance, batch.names(), "the distance", &name)?;
        Ok(Vec::<f64>::try_from(distance.to_kind(Kind::Double).to_device(Device::Cpu))?)
    };
    Ok(PairMetric::boxed(STYLE, Box::new(score), Some(id)))
}
