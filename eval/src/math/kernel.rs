//! Distances between distributions by kernels: KID (Bińkowski et al., 2018) and CMMD (Jayasumana
//! et al., 2024). All in float64: the values are differences of nearly equal means.

use base::spans;
use tch::{Kind, Tensor};

use crate::math::features::{at_least, two_sets};
use crate::math::inception_score::{FIDELITY_SEED, mean_and_std};
use crate::math::numpy::RandomState;
use crate::{Error, Result};

/// Pairs of one set over which the mean of a kernel is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimator {
    /// All pairs but those of a row with itself.
    Unbiased,
    /// All pairs.
    Biased,
}

/// Squared maximum mean discrepancy under KID's kernel `(x·y / D + 1)³`.
pub fn polynomial_mmd2(a: &Tensor, b: &Tensor, estimator: Estimator) -> Result<f64> {
    let (a, b) = two_sets(a, b)?;
    let d = a.size()[1] as f64;
    mmd2(&a, &b, estimator, |x, y| (x.matmul(&y.tr()) / d + 1.0).pow_tensor_scalar(3))
}

/// CMMD of unit-norm embeddings: a Gaussian kernel of bandwidth 10, biased, times 1000.
pub fn cmmd(a: &Tensor, b: &Tensor) -> Result<f64> {
    const BANDWIDTH: f64 = 10.0;
    let (a, b) = two_sets(a, b)?;
    let gaussian = |x: &Tensor, y: &Tensor| {
        let squares = |t: &Tensor| t.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
        let distance = squares(x) + squares(y).tr() - x.matmul(&y.tr()) * 2.0;
        (distance / (-2.0 * BANDWIDTH * BANDWIDTH)).exp()
    };
    Ok(1000.0 * mmd2(&a, &b, Estimator::Biased, gaussian)?)
}

/// Rows that meet all others at once.
const TILE: i64 = 1024;

fn mmd2(
    a: &Tensor,
    b: &Tensor,
    estimator: Estimator,
    kernel: impl Fn(&Tensor, &Tensor) -> Tensor,
) -> Result<f64> {
    let (n, m) = (a.size()[0], b.size()[0]);
    let least = if estimator == Estimator::Unbiased { 2 } else { 1 };
    at_least("a kernel distance", least, n.min(m))?;
    let within = |x: &Tensor, n: i64| match estimator {
        Estimator::Biased => sum(x, x, &kernel, false) / (n * n) as f64,
        Estimator::Unbiased => sum(x, x, &kernel, true) / (n * (n - 1)) as f64,
    };
    Ok(within(a, n) + within(b, m) - 2.0 * sum(a, b, &kernel, false) / (n * m) as f64)
}

/// The kernel's sum over all pairs, perhaps without the diagonal.
fn sum(a: &Tensor, b: &Tensor, kernel: &impl Fn(&Tensor, &Tensor) -> Tensor, no_diagonal: bool) -> f64 {
    let tile = |(start, rows): (i64, i64)| {
        let k = kernel(&a.narrow(0, start, rows), b);
        let diagonal =
            if no_diagonal { k.diagonal(start, 0, 1).sum(Kind::Double).double_value(&[]) } else { 0.0 };
        k.sum(Kind::Double).double_value(&[]) - diagonal
    };
    spans(a.size()[0], TILE).map(tile).sum()
}

/// Subsets of KID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KidSettings {
    /// Number of subsets.
    pub subsets: usize,
    /// Rows of each.
    pub size: usize,
    /// Seed of NumPy's `RandomState`.
    pub seed: u32,
}

impl Default for KidSettings {
    /// torch-fidelity's: 100 subsets of 1,000 rows.
    fn default() -> Self {
        KidSettings { subsets: 100, size: 1000, seed: FIDELITY_SEED }
    }
}

/// KID over subsets.
#[derive(Debug, Clone, PartialEq)]
pub struct Kid {
    /// Mean over the subsets, not multiplied by 1000.
    pub mean: f64,
    /// Population standard deviation over them.
    pub std: f64,
    /// Each subset's.
    pub subsets: Vec<f64>,
}

/// Rows of both sets, one pair of lists a subset, as torch-fidelity draws them.
pub fn kid_subsets(settings: &KidSettings, n: usize, m: usize) -> Vec<(Vec<i64>, Vec<i64>)> {
    let mut random = RandomState::new(settings.seed);
    let mut draw = |n| random.choice(n, settings.size).into_iter().map(|i| i as i64).collect();
    (0..settings.subsets).map(|_| (draw(n), draw(m))).collect()
}

/// KID on drawn subsets.
pub fn kid(a: &Tensor, b: &Tensor, settings: &KidSettings) -> Result<Kid> {
    let (a, b) = two_sets(a, b)?;
    let (n, m) = (a.size()[0], b.size()[0]);
    at_least("KID", settings.size as i64, n.min(m))?;
    kid_on(&a, &b, &kid_subsets(settings, n as usize, m as usize))
}

/// KID on given subsets: rows of `a` and rows of `b`.
pub fn kid_on(a: &Tensor, b: &Tensor, subsets: &[(Vec<i64>, Vec<i64>)]) -> Result<Kid> {
    let (a, b) = two_sets(a, b)?;
    at_least("KID", 1, subsets.len() as i64)?;
    let values: Result<Vec<f64>> = subsets
        .iter()
        .map(|(i, j)| polynomial_mmd2(&select(&a, i)?, &select(&b, j)?, Estimator::Unbiased))
        .collect();
    let subsets = values?;
    let (mean, std) = mean_and_std(&subsets);
    Ok(Kid { mean, std, subsets })
}

fn select(x: &Tensor, rows: &[i64]) -> Result<Tensor> {
    let n = x.size()[0];
    match rows.iter().find(|&&row| !(0..n).contains(&row)) {
        Some(&row) => Err(Error::NoSuchRow { row, rows: n }),
        None => Ok(x.index_select(0, &Tensor::from_slice(rows))),
    }
}
