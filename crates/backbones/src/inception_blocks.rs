//! The parts of [`crate::InceptionFid`].

use base::Scope;
use tch::Tensor;

use crate::conv_bn::{ConvBn, ConvShape, Padding};

/// A convolution of the public file: `conv.weight`, `bn.*` under `p`.
pub(crate) fn conv_bn(
    p: &Scope,
    inputs: i64,
    outputs: i64,
    kernel: [i64; 2],
    stride: i64,
    padding: [i64; 2],
) -> ConvBn {
    let shape = ConvShape { inputs, outputs, kernel, stride, groups: 1, padding: Padding::Fixed(padding) };
    ConvBn::new(&(p / "conv"), &(p / "bn"), shape)
}

/// First layer of a branch.
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
        let y = self.chain.iter().fold(self.pool.forward(x), |y, conv| conv.forward(&y).relu_());
        if self.fork.is_empty() {
            vec![y]
        } else {
            self.fork.iter().map(|conv| conv.forward(&y).relu_()).collect()
        }
    }
}

/// Branches whose outputs are concatenated.
#[derive(Debug)]
pub(crate) struct Block {
    name: String,
    branches: Vec<Branch>,
}

/// One convolution: name, outputs, kernel height and width, stride. Stride 1 keeps the size; stride
/// 2 does not pad.
type Spec<'a> = (&'a str, i64, i64, i64, i64);

fn conv(p: &Scope, inputs: i64, (name, outputs, kh, kw, stride): Spec) -> ConvBn {
    let padding = if stride == 1 { [kh / 2, kw / 2] } else { [0, 0] };
    conv_bn(&(p / name), inputs, outputs, [kh, kw], stride, padding)
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
