//! The Fréchet distance between two Gaussians (Dowson and Landau, 1982; Heusel et al., 2017):
//! `|μ₁ - μ₂|² + tr Σ₁ + tr Σ₂ - 2 tr (Σ₁ Σ₂)^½`.
//!
//! Public code takes the square root of the unsymmetric product, which turns complex and loses
//! digits where a covariance is singular. Here both routes stay symmetric and real; nothing is
//! added to the diagonals.

use tch::{Kind, Tensor};

use crate::math::features::{at_least, same_dimension, two_sets};
use crate::{Moments, Result, Statistics};

/// One side of the distance, decomposed once for many others.
#[derive(Debug)]
pub struct FrechetReference {
    mean: Tensor,
    trace: f64,
    /// `diag(√w) Qᵀ` (R, D) of the covariance `Q diag(w) Qᵀ`, without its null space.
    root: Tensor,
}

impl FrechetReference {
    /// Decomposes the covariance.
    pub fn new(statistics: &Statistics) -> Result<Self> {
        let (w, q) = statistics.covariance.f_linalg_eigh("L")?;
        let largest = w.max().double_value(&[]).max(0.0);
        let floor = statistics.dimension() as f64 * f64::EPSILON * largest;
        let kept = w.gt(floor).nonzero().view(-1);
        let root = q.tr().index_select(0, &kept) * w.index_select(0, &kept).sqrt().unsqueeze(1);
        let trace = statistics.covariance.trace().double_value(&[]);
        Ok(FrechetReference { mean: statistics.mean.copy(), trace, root })
    }

    /// Numerical rank of the covariance in float64.
    pub fn rank(&self) -> i64 {
        self.root.size()[0]
    }

    /// The distance to another Gaussian. For identical ones it may be some 1e-8 below zero.
    pub fn distance(&self, other: &Statistics) -> Result<f64> {
        same_dimension(self.mean.numel() as i64, other.dimension())?;
        // (R, R), similar to Σ₁ Σ₂. Its eigenvalues span the square of the covariances'
        // range: no threshold.
        let product = self.root.matmul(&other.covariance).matmul(&self.root.tr());
        let product = (&product + product.tr()) / 2.0;
        let root = match product.numel() {
            0 => 0.0,
            _ => product.f_linalg_eigvalsh("L")?.clamp_min(0.0).sqrt().sum(Kind::Double).double_value(&[]),
        };
        let trace = other.covariance.trace().double_value(&[]);
        Ok(squared_norm(&(&self.mean - &other.mean)) + self.trace + trace - 2.0 * root)
    }
}

/// The distance between two Gaussians.
pub fn frechet_distance(a: &Statistics, b: &Statistics) -> Result<f64> {
    FrechetReference::new(a)?.distance(b)
}

/// The distance between the Gaussians of two sets of rows (N, D). Where a set has fewer rows than
/// dimensions, the trace is the nuclear norm of the product of the centred rows, which is exact at
/// any rank.
pub fn frechet_of_features(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = two_sets(a, b)?;
    let d = a.size()[1];
    if a.size()[0] < d || b.size()[0] < d {
        return nuclear(&a, &b);
    }
    frechet_distance(&Moments::of(&a)?.statistics()?, &Moments::of(&b)?.statistics()?)
}

/// The small-sample route.
fn nuclear(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (mean_a, factor_a, trace_a) = factor(a)?;
    let (mean_b, factor_b, trace_b) = factor(b)?;
    let cross = factor_a.matmul(&factor_b.tr());
    let norm = cross.f_svd(true, false)?.1.sum(Kind::Double).double_value(&[]);
    Ok(squared_norm(&(mean_a - mean_b)) + trace_a + trace_b - 2.0 * norm)
}

/// Mean, `F` with `Fᵀ F` = covariance and at most D rows, and the covariance's trace.
fn factor(x: &Tensor) -> Result<(Tensor, Tensor, f64)> {
    let (n, d) = x.size2()?;
    at_least("a covariance", 2, n)?;
    let mean = x.mean_dim([0i64].as_slice(), false, Kind::Double);
    let centred = (x - &mean) / ((n - 1) as f64).sqrt();
    let trace = squared_norm(&centred);
    let factor = if n > d { Tensor::f_linalg_qr(&centred, "r")?.1 } else { centred };
    Ok((mean, factor, trace))
}

fn squared_norm(x: &Tensor) -> f64 {
    x.square().sum(Kind::Double).double_value(&[])
}
