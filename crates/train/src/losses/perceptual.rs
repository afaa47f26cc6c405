//! Distances of images as a frozen network sees them.

use backbones::FeatureCnn;
use base::Mode;
use base::nn::l2_normalize;
use tch::{Kind, Tensor};

/// Perceptual distance by a network of one's own: at every stage, features scaled to unit length over channels (as
/// in LPIPS) and their squared distance, from 0 to 4; mean over pixels, images and stages. Images (B, 3, H, W) in
/// [-1, 1]; no gradient goes to the target.
pub fn features(network: &FeatureCnn, target: &Tensor, reconstruction: &Tensor) -> Tensor {
    let wanted = tch::no_grad(|| network.features(&target.to_kind(reconstruction.kind()), Mode::Eval));
    let found = network.features(reconstruction, Mode::Eval);
    let stages = found.len() as f64;
    let distances = wanted.iter().zip(&found).map(|(wanted, found)| {
        let unit = |map: &Tensor| l2_normalize(&map.to_kind(Kind::Float), 1);
        (unit(wanted) - unit(found)).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
    });
    distances.map(|d| d.mean(Kind::Float)).reduce(|a, b| a + b).expect("a network has stages") / stages
}
