//! The parts of [`crate::InceptionFid`].

use std::cell::OnceCell;

use base::{Init, Scope};
use tch::{Kind, Tensor};

/// Convolution without bias, batch norm with the stored statistics, ReLU.
#[derive(Debug)]
pub(crate) struct ConvBn {
    weight: Tensor,
    norm: [Tensor; 4], // weight, bias, mean, variance
    stride: i64,
    padding: [i64; 2],
    folded: OnceCell<(Tensor, Tensor)>,
}

/// Of the batch norms.
const EPS: f64 = 1e-3;

impl ConvBn {
    pub fn new(
        p: &Scope,
        inputs: i64,
        outputs: i64,
        kernel: [i64; 2],
        stride: i64,
        padding: [i64; 2],
    ) -> Self {
        let bn = p / "bn";
        let init = Init::torch_default(inputs * kernel[0] * kernel[1]);
        let statistic = |leaf: &str, c| bn.buffer(leaf, &[outputs], Kind::Float, Init::Const(c));
        let weight = (p / "conv").var("weight", &[outputs, inputs, kernel[0], kernel[1]], init);
        let norm = [
            bn.var("weight", &[outputs], Init::Const(1.0)),
            bn.var("bias", &[outputs], Init::Const(0.0)),
            statistic("running_mean", 0.0),
            statistic("running_var", 1.0),
        ];
        ConvBn { weight, norm, stride, padding, folded: OnceCell::new() }
    }

    /// Weight and bias of the convolution that does the work of both, computed in float64 at the first use.
    fn folded(&self) -> &(Tensor, Tensor) {
        self.folded.get_or_init(|| {
            let [gamma, beta, mean, variance] = self.norm.each_ref().map(|t| t.to_kind(Kind::Double));
            let scale = gamma / (variance + EPS).sqrt();
            let weight = self.weight.to_kind(Kind::Double) * scale.view([-1, 1, 1, 1]);
            let bias = beta - mean * scale;
            (channels_last(&weight.to_kind(Kind::Float)), bias.to_kind(Kind::Float))
        })
    }

    /// (B, inputs, H, W) → (B, outputs, H', W').
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = self.folded();
        x.conv2d(weight, Some(bias), self.stride, self.padding, 1, 1).relu_()
    }
}

/// The same values with the channels of a place side by side in memory, which is what convolutions on a CPU want.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// What a branch begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    None,
    /// 3×3, stride 1, divided by the pixels inside the image.
    Average,
    /// 3×3, stride 1.
    Max,
    /// 3×3, stride 2, no padding.
    MaxStride2,
}

impl Pool {
    pub fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Pool::None => x.shallow_clone(),
            Pool::Average => x.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None),
            Pool::Max => x.max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false),
            Pool::MaxStride2 => x.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false),
        }
    }
}

/// A pool, then convolutions one after the other, then perhaps two side by side.
#[derive(Debug)]
struct Branch {
    pool: Pool,
    chain: Vec<ConvBn>,
    fork: Vec<ConvBn>,
}

impl Branch {
    fn forward(&self, x: &Tensor) -> Vec<Tensor> {
        let y = self.chain.iter().fold(self.pool.forward(x), |y, conv| conv.forward(&y));
        if self.fork.is_empty() { vec![y] } else { self.fork.iter().map(|conv| conv.forward(&y)).collect() }
    }
}

/// Branches whose outputs are concatenated.
#[derive(Debug)]
pub(crate) struct Block {
    name: String,
    branches: Vec<Branch>,
}

/// One convolution: name, outputs, kernel height and width, stride. Stride 1 keeps the size; stride 2 does not pad.
type Spec<'a> = (&'a str, i64, i64, i64, i64);

fn conv(p: &Scope, inputs: i64, (name, outputs, kh, kw, stride): Spec) -> ConvBn {
    let padding = if stride == 1 { [kh / 2, kw / 2] } else { [0, 0] };
    ConvBn::new(&(p / name), inputs, outputs, [kh, kw], stride, padding)
}

fn branch(p: &Scope, inputs: i64, pool: Pool, chain: &[Spec], fork: &[Spec]) -> Branch {
    let mut width = inputs;
    let chain: Vec<ConvBn> = chain
        .iter()
        .map(|&spec| {
            let conv = conv(p, width, spec);
            width = spec.1;
            conv
        })
        .collect();
    Branch { pool, chain, fork: fork.iter().map(|&spec| conv(p, width, spec)).collect() }
}

impl Block {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 35×35 places; `pool` is the width of the pooled branch.
    pub fn a(p: &Scope, name: &str, inputs: i64, pool: i64) -> Block {
        let p = p / name;
        let chain = |pool, chain: &[Spec]| branch(&p, inputs, pool, chain, &[]);
        let branches = vec![
            chain(Pool::None, &[("branch1x1", 64, 1, 1, 1)]),
            chain(Pool::None, &[("branch5x5_1", 48, 1, 1, 1), ("branch5x5_2", 64, 5, 5, 1)]),
            chain(
                Pool::None,
                &[
                    ("branch3x3dbl_1", 64, 1, 1, 1),
                    ("branch3x3dbl_2", 96, 3, 3, 1),
                    ("branch3x3dbl_3", 96, 3, 3, 1),
                ],
            ),
            chain(Pool::Average, &[("branch_pool", pool, 1, 1, 1)]),
        ];
        Block { name: name.into(), branches }
    }

    /// 35×35 → 17×17 places.
    pub fn b(p: &Scope, name: &str, inputs: i64) -> Block {
        let p = p / name;
        let chain = |pool, chain: &[Spec]| branch(&p, inputs, pool, chain, &[]);
        let branches = vec![
            chain(Pool::None, &[("branch3x3", 384, 3, 3, 2)]),
            chain(
                Pool::None,
                &[
                    ("branch3x3dbl_1", 64, 1, 1, 1),
                    ("branch3x3dbl_2", 96, 3, 3, 1),
                    ("branch3x3dbl_3", 96, 3, 3, 2),
                ],
            ),
            chain(Pool::MaxStride2, &[]),
        ];
        Block { name: name.into(), branches }
    }

    /// 17×17 places, 768 channels in and out; `c` channels between the 7-wide kernels.
    pub fn c(p: &Scope, name: &str, c: i64) -> Block {
        let p = p / name;
        let chain = |pool, chain: &[Spec]| branch(&p, 768, pool, chain, &[]);
        let branches = vec![
            chain(Pool::None, &[("branch1x1", 192, 1, 1, 1)]),
            chain(
                Pool::None,
                &[("branch7x7_1", c, 1, 1, 1), ("branch7x7_2", c, 1, 7, 1), ("branch7x7_3", 192, 7, 1, 1)],
            ),
            chain(
                Pool::None,
                &[
                    ("branch7x7dbl_1", c, 1, 1, 1),
                    ("branch7x7dbl_2", c, 7, 1, 1),
                    ("branch7x7dbl_3", c, 1, 7, 1),
                    ("branch7x7dbl_4", c, 7, 1, 1),
                    ("branch7x7dbl_5", 192, 1, 7, 1),
                ],
            ),
            chain(Pool::Average, &[("branch_pool", 192, 1, 1, 1)]),
        ];
        Block { name: name.into(), branches }
    }

    /// 17×17 → 8×8 places.
    pub fn d(p: &Scope, name: &str) -> Block {
        let p = p / name;
        let chain = |pool, chain: &[Spec]| branch(&p, 768, pool, chain, &[]);
        let branches = vec![
            chain(Pool::None, &[("branch3x3_1", 192, 1, 1, 1), ("branch3x3_2", 320, 3, 3, 2)]),
            chain(
                Pool::None,
                &[
                    ("branch7x7x3_1", 192, 1, 1, 1),
                    ("branch7x7x3_2", 192, 1, 7, 1),
                    ("branch7x7x3_3", 192, 7, 1, 1),
                    ("branch7x7x3_4", 192, 3, 3, 2),
                ],
            ),
            chain(Pool::MaxStride2, &[]),
        ];
        Block { name: name.into(), branches }
    }

    /// 8×8 places. The last block of the 2015 graph pools by maximum, the one before it by mean.
    pub fn e(p: &Scope, name: &str, inputs: i64, max: bool) -> Block {
        let p = p / name;
        let pool = if max { Pool::Max } else { Pool::Average };
        let branches = vec![
            branch(&p, inputs, Pool::None, &[("branch1x1", 320, 1, 1, 1)], &[]),
            branch(
                &p,
                inputs,
                Pool::None,
                &[("branch3x3_1", 384, 1, 1, 1)],
                &[("branch3x3_2a", 384, 1, 3, 1), ("branch3x3_2b", 384, 3, 1, 1)],
            ),
            branch(
                &p,
                inputs,
                Pool::None,
                &[("branch3x3dbl_1", 448, 1, 1, 1), ("branch3x3dbl_2", 384, 3, 3, 1)],
                &[("branch3x3dbl_3a", 384, 1, 3, 1), ("branch3x3dbl_3b", 384, 3, 1, 1)],
            ),
            branch(&p, inputs, pool, &[("branch_pool", 192, 1, 1, 1)], &[]),
        ];
        Block { name: name.into(), branches }
    }

    /// (B, inputs, H, W) → (B, sum of the branches' outputs, H', W').
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let parts: Vec<Tensor> = self.branches.iter().flat_map(|b| b.forward(x)).collect();
        Tensor::cat(&parts, 1)
    }
}
