//! AlexNet (Krizhevsky, arXiv 1404.5997: "one weird trick"), convolutions only, as LPIPS reads it.
//!
//! Weights: torchvision's `alexnet-owt-7be5be79.pth`, keys `features.N.weight` and `.bias`. A tap
//! after each of the five ReLUs; 3×3 max pools of stride 2 before the second and the third
//! convolution.

use base::{Init, Scope};
use nn::Conv2d;
use tch::Tensor;

/// One convolution: torchvision's index, outputs, kernel, stride, padding, and whether a pool comes
/// before it.
const LAYERS: [(i64, i64, i64, i64, i64, bool); 5] = [
    (0, 64, 11, 4, 2, false),
    (3, 192, 5, 1, 2, true),
    (6, 384, 3, 1, 1, true),
    (8, 256, 3, 1, 1, false),
    (10, 256, 3, 1, 1, false),
];

/// The network up to relu5.
#[derive(Debug)]
pub struct AlexNet {
    layers: Vec<(Conv2d, bool)>,
}

impl AlexNet {
    /// Channels of the five taps.
    pub const CHANNELS: [i64; 5] = [64, 192, 384, 256, 256];

    /// Variables `features.N.weight` and `features.N.bias` under `p`.
    pub fn new(p: &Scope) -> Self {
        let features = p / "features";
        let mut inputs = 3;
        let layers = LAYERS.map(|(at, outputs, kernel, stride, padding, pool)| {
            let init = Init::torch_default(inputs * kernel * kernel);
            let conv = Conv2d::new(&(&features / at), inputs, outputs, kernel, init, init);
            inputs = outputs;
            (conv.with_stride(stride, padding), pool)
        });
        AlexNet { layers: layers.into() }
    }

    /// (B, 3, H, W) → five maps.
    pub fn taps(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = x.shallow_clone();
        let layer = |(conv, pool): &(Conv2d, bool)| {
            if *pool {
                x = x.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false);
            }
            x = conv.forward(&x).relu();
            x.shallow_clone()
        };
        self.layers.iter().map(layer).collect()
    }
}
