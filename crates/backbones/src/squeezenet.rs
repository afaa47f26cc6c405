//! SqueezeNet 1.1 (Iandola et al., arXiv 1602.07360), without its classifier, as LPIPS reads it.
//!
//! Weights: torchvision's `squeezenet1_1-b8a52dc0.pth`, keys `features.0.*` and
//! `features.N.{squeeze,expand1x1, expand3x3}.*`. Max pools are 3×3 of stride 2 and round sizes
//! up.

use base::{Init, Scope};
use nn::Conv2d;
use tch::Tensor;

/// A fire module: torchvision's index, inputs, squeezed channels, channels of each expansion, and
/// whether a pool comes before it.
const FIRES: [(i64, i64, i64, i64, bool); 8] = [
    (3, 64, 16, 64, true),
    (4, 128, 16, 64, false),
    (6, 128, 32, 128, true),
    (7, 256, 32, 128, false),
    (9, 256, 48, 192, true),
    (10, 384, 48, 192, false),
    (11, 384, 64, 256, false),
    (12, 512, 64, 256, false),
];

/// After which fire modules LPIPS looks; it looks after the first ReLU too.
const TAPS: [i64; 6] = [4, 7, 9, 10, 11, 12];

/// A 1×1 convolution that narrows, then a 1×1 and a 3×3 one side by side.
#[derive(Debug)]
struct Fire {
    at: i64,
    pool: bool,
    squeeze: Conv2d,
    expand1x1: Conv2d,
    expand3x3: Conv2d,
}

fn conv(p: &Scope, inputs: i64, outputs: i64, kernel: i64) -> Conv2d {
    let init = Init::torch_default(inputs * kernel * kernel);
    Conv2d::new(p, inputs, outputs, kernel, init, init)
}

impl Fire {
    fn forward(&self, x: &Tensor) -> Tensor {
        let narrow = self.squeeze.forward(x).relu();
        Tensor::cat(&[self.expand1x1.forward(&narrow).relu(), self.expand3x3.forward(&narrow).relu()], 1)
    }
}

/// The network up to its last fire module.
#[derive(Debug)]
pub struct SqueezeNet {
    first: Conv2d,
    fires: Vec<Fire>,
}

impl SqueezeNet {
    /// Channels of the seven taps.
    pub const CHANNELS: [i64; 7] = [64, 128, 256, 384, 384, 512, 512];

    /// Variables under `p`, named as torchvision names them.
    pub fn new(p: &Scope) -> Self {
        let features = p / "features";
        let first = conv(&(&features / 0), 3, 64, 3).with_stride(2, 0);
        let fire = |(at, inputs, narrow, wide, pool): (i64, i64, i64, i64, bool)| {
            let p = &features / at;
            let squeeze = conv(&(&p / "squeeze"), inputs, narrow, 1);
            let expand1x1 = conv(&(&p / "expand1x1"), narrow, wide, 1);
            let expand3x3 = conv(&(&p / "expand3x3"), narrow, wide, 3);
            Fire { at, pool, squeeze, expand1x1, expand3x3 }
        };
        SqueezeNet { first, fires: FIRES.map(fire).into() }
    }

    /// (B, 3, H, W) → seven maps.
    pub fn taps(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = self.first.forward(x).relu();
        let mut taps = vec![x.shallow_clone()];
        for fire in &self.fires {
            if fire.pool {
                x = x.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], true);
            }
            x = fire.forward(&x);
            if TAPS.contains(&fire.at) {
                taps.push(x.shallow_clone());
            }
        }
        taps
    }
}
