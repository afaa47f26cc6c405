//! VGG16 (Simonyan & Zisserman, arXiv 1409.1556, configuration D), convolutions only, as LPIPS
//! reads it.
//!
//! Weights: torchvision's `vgg16-397923af.pth`, keys `features.N.weight` and `.bias`. Thirteen 3×3
//! convolutions, each with a ReLU; 2×2 max pools between the five stages; a tap after each stage's
//! last ReLU.

use base::{Init, Scope};
use nn::Conv2d;
use tch::Tensor;

/// torchvision's indices of the convolutions, and their output channels, stage by stage.
const STAGES: [(&[i64], i64); 5] =
    [(&[0, 2], 64), (&[5, 7], 128), (&[10, 12, 14], 256), (&[17, 19, 21], 512), (&[24, 26, 28], 512)];

/// The network up to relu5_3.
#[derive(Debug)]
pub struct Vgg16 {
    stages: Vec<Vec<Conv2d>>,
}

impl Vgg16 {
    /// Channels of the five taps: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.
    pub const CHANNELS: [i64; 5] = [64, 128, 256, 512, 512];

    /// Variables `features.N.weight` and `features.N.bias` under `p`.
    pub fn new(p: &Scope) -> Self {
        let features = p / "features";
        let mut inputs = 3;
        let stages = STAGES.map(|(indices, outputs)| {
            let conv = |&at: &i64| {
                let init = Init::torch_default(inputs * 9);
                let conv = Conv2d::new(&(&features / at), inputs, outputs, 3, init, init);
                inputs = outputs;
                conv
            };
            indices.iter().map(conv).collect()
        });
        Vgg16 { stages: stages.into() }
    }

    /// (B, 3, H, W) → five maps of H, H/2, … H/16 rows.
    pub fn taps(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = x.shallow_clone();
        let stage = |(i, convs): (usize, &Vec<Conv2d>)| {
            if i > 0 {
                x = x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
            }
            x = convs.iter().fold(x.shallow_clone(), |x, conv| conv.forward(&x).relu());
            x.shallow_clone()
        };
        self.stages.iter().enumerate().map(stage).collect()
    }
}
