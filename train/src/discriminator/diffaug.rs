//! Differentiable augmentation of a discriminator's inputs (Zhao et al., arXiv 2006.10738), with
//! the operations and their order of StyleGAN-T (Sauer et al., arXiv 2301.09515) and GigaTok's
//! `diffaug.py`: blur, translation, colour, cutout. Random per sample; gradients pass to the
//! images.
//!
//! B batch, C channels, H×W image

use base::random;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Largest translation, as a share of the side.
const TRANSLATION: f64 = 0.125;

/// Settings of the augmentation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiffAug {
    /// Probability of each of translation, colour and cutout; one draw for the whole batch. 1 as
    /// published.
    pub probability: f64,
    /// Side of the square that is cut out, as a share of the image's; 0 cuts nothing. 0.2 as
    /// published.
    pub cutout: f64,
    /// Strength of a Gaussian blur before all else, 0 as published: its sigma is `blur · √(H/2)`
    /// pixels.
    pub blur: f64,
}

impl Default for DiffAug {
    fn default() -> Self {
        DiffAug { probability: 1.0, cutout: 0.2, blur: 0.0 }
    }
}

/// Random numbers of one call.
#[derive(Debug)]
pub struct Draws {
    /// Translation, colour and cutout take place where the uniform is at most the probability.
    pub gates: [f64; 3],
    /// (7, B, 1, 1) uniforms: translation down and right, brightness, saturation, contrast, cutout
    /// row and column.
    pub uniforms: Tensor,
}

impl Draws {
    /// From the thread's generator ([`base::random`]).
    pub fn new(batch: i64, device: Device) -> Self {
        let gates = random::uniform(&[3], (Kind::Float, Device::Cpu));
        Draws {
            gates: [0, 1, 2].map(|i| gates.double_value(&[i])),
            uniforms: random::uniform(&[7, batch, 1, 1], (Kind::Float, device)),
        }
    }

    /// One of the seven, (B, 1, 1).
    fn uniform(&self, row: i64) -> Tensor {
        self.uniforms.get(row)
    }
}

impl DiffAug {
    /// (B, C, H, W) → the same shape, fp32.
    pub fn apply(&self, images: &Tensor, draws: &Draws) -> Tensor {
        let mut x = blur(&images.to_kind(Kind::Float), self.blur);
        let on = draws.gates.map(|gate| self.probability > 0.0 && gate <= self.probability);
        if on[0] {
            x = translate(&x, draws);
        }
        if on[1] {
            x = recolour(&x, draws);
        }
        if on[2] && self.cutout > 0.0 {
            x = cut_out(&x, self.cutout, draws);
        }
        x
    }
}

/// `share · side` in whole pixels, halves to even as Python rounds.
fn pixels(share: f64, side: i64) -> i64 {
    (share * side as f64).round_ties_even() as i64
}

fn range(n: i64, like: &Tensor) -> Tensor {
    Tensor::arange(n, (Kind::Int64, like.device()))
}

/// Moves each image by whole pixels, up to an eighth of the side each way, with zeros at the edges.
fn translate(x: &Tensor, draws: &Draws) -> Tensor {
    let (b, c, h, w) = x.size4().expect("images are (B, C, H, W)");
    // For each output position its position in the padded image: output(p) = input(p + t).
    let source = |side: i64, row: i64| {
        let most = pixels(TRANSLATION, side);
        let t = (draws.uniform(row) * (2 * most + 1) as f64).floor().to_kind(Kind::Int64) - most; // (B, 1, 1)
        (range(side, x) + t + 1).clamp(0, side + 1) // (B, 1, side)
    };
    let padded = x.constant_pad_nd([1, 1, 1, 1]);
    let rows = source(h, 0).view([b, 1, h, 1]).expand([b, c, h, w + 2], false);
    let columns = source(w, 1).view([b, 1, 1, w]).expand([b, c, h, w], false);
    padded.gather(2, &rows, false).gather(3, &columns, false)
}

/// Brightness by U(-½, ½); saturation times U(0, 2) about each pixel's mean; contrast times U(½,
/// 3/2) about each image's mean.
fn recolour(x: &Tensor, draws: &Draws) -> Tensor {
    let uniform = |row| draws.uniform(row).unsqueeze(-1); // (B, 1, 1, 1)
    let scale = |x: &Tensor, dims: &[i64], factor: Tensor| {
        let mean = x.mean_dim(dims, true, Kind::Float);
        (x - &mean) * factor + mean
    };
    let x = x + (uniform(2) - 0.5);
    let x = scale(&x, &[1], uniform(3) * 2.0);
    scale(&x, &[1, 2, 3], uniform(4) + 0.5)
}

/// Zeros a square with a random centre in the image.
fn cut_out(x: &Tensor, share: f64, draws: &Draws) -> Tensor {
    let (b, _, h, w) = x.size4().expect("images are (B, C, H, W)");
    // Positions of one axis that the square covers, (B, side).
    let covered = |side: i64, row: i64| {
        let length = pixels(share, side);
        let centre = (draws.uniform(row) * (side + 1 - length % 2) as f64).floor().to_kind(Kind::Int64);
        let first = (centre - length / 2).view([b, 1]);
        let at = range(side, x).view([1, side]) - first;
        at.ge(0).logical_and(&at.lt(length))
    };
    let square = covered(h, 5).view([b, 1, h, 1]).logical_and(&covered(w, 6).view([b, 1, 1, w]));
    x * square.logical_not().to_kind(x.kind())
}

/// Separable blur with the kernel 2^-(k/σ)², σ = strength · √(H/2), out to 3σ; the image is
/// mirrored at its edges.
fn blur(x: &Tensor, strength: f64) -> Tensor {
    let (_, c, h, _) = x.size4().expect("images are (B, C, H, W)");
    let sigma = (h as f64 * 0.5).sqrt() * strength;
    let radius = (3.0 * sigma).floor() as i64;
    if radius < 1 {
        return x.shallow_clone();
    }
    let n = 2 * radius + 1;
    let kernel = (Tensor::arange_start(-radius, radius + 1, (Kind::Float, x.device())) / sigma).square();
    let kernel = (-kernel).exp2();
    let kernel = &kernel / kernel.sum(Kind::Float);
    let along = |x: &Tensor, shape: [i64; 2]| {
        let weight = kernel.view([1, 1, shape[0], shape[1]]).expand([c, 1, shape[0], shape[1]], false);
        x.conv2d(&weight, None::<Tensor>, 1, 0, 1, c)
    };
    let padded = x.reflection_pad2d([radius, radius, radius, radius]);
    along(&along(&padded, [n, 1]), [1, n])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    #[test]
    fn gradients_pass_to_the_pixels_that_are_left() {
        let x = Tensor::rand([2, 3, 20, 20], CPU).set_requires_grad(true);
        let uniforms = Tensor::full([7, 2, 1, 1], 0.5, CPU); // nothing moves, no colour changes
        let y = DiffAug::default().apply(&x, &Draws { gates: [0.0; 3], uniforms });
        let gradient = Tensor::run_backward(&[y.sum(Kind::Float)], &[&x], false, false).remove(0);
        // A square of 4×4 about the middle is cut from each of three channels of two images.
        let lost = gradient.lt(0.5).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(lost, 2 * 3 * 16);
        assert!((gradient.sum(Kind::Float).double_value(&[]) - (2.0 * 3.0 * (400.0 - 16.0))).abs() < 1e-2);
    }
}
