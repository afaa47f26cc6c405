//! Improved precision and recall (Kynkäänniemi et al., 2019), density and coverage (Naeem et al.,
//! 2020): a set of rows represents a manifold of balls, each reaching to its row's k-th nearest
//! other row.
//!
//! Distances come from products in float64, tile by tile, so that memory does not grow with the
//! number of pairs. Pairs too near to a ball's surface for that are measured again by their
//! differences.

use base::spans;
use tch::{Kind, Tensor};

use crate::math::features::{at_least, rows, two_sets};
use crate::{Error, Result};

/// Rows that are compared at once: queries and balls.
const TILE: (i64, i64) = (1024, 4096);

/// Error of a squared distance from products, relative to the squared norms.
const ROUNDING: f64 = 1e-11;

/// Rows (N, D) and the squared radii of their balls (N).
#[derive(Debug)]
pub struct Manifold {
    rows: Tensor,
    radii: Tensor,
    k: i64,
}

/// Membership of the rows of one set (queries) in the balls of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// For each query: inside or on some ball.
    pub within: Vec<bool>,
    /// For each query: inside how many balls, strictly.
    pub inside: Vec<u64>,
    /// For each ball: whether some query is strictly inside.
    pub filled: Vec<bool>,
}

/// Shares of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// Share of samples inside the reference's manifold.
    pub precision: f64,
    /// Share of reference rows inside the samples' manifold.
    pub recall: f64,
}

/// prdc's four numbers; a row on a ball's surface is outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prdc {
    /// Same as [`PrecisionRecall::precision`].
    pub precision: f64,
    /// Same as [`PrecisionRecall::recall`].
    pub recall: f64,
    /// Mean number of balls that hold a sample, as a multiple of k.
    pub density: f64,
    /// Share of the reference's balls that hold a sample.
    pub coverage: f64,
}

impl Manifold {
    /// Finds the radii: each row's distance to its `k`-th nearest other row; duplicates count.
    pub fn new(features: &Tensor, k: i64) -> Result<Self> {
        let x = rows(features)?;
        let n = x.size()[0];
        if k < 1 {
            return Err(Error::TooFew { metric: "a neighbour's rank", needed: 1, found: k });
        }
        at_least("nearest neighbours", k + 1, n)?;
        let radii: Vec<Tensor> = spans(n, TILE.0).map(|(at, count)| radii(&x, at, count, k)).collect();
        Ok(Manifold { rows: x, radii: Tensor::cat(&radii, 0), k })
    }

    /// Squared radii (N), float64.
    pub fn squared_radii(&self) -> &Tensor {
        &self.radii
    }

    fn len(&self) -> i64 {
        self.rows.size()[0]
    }

    /// Finds the rows (M, D) in the balls.
    pub fn membership(&self, queries: &Tensor) -> Result<Membership> {
        let (q, _) = two_sets(queries, &self.rows)?;
        let flags = |n| Tensor::zeros([n], (Kind::Bool, tch::Device::Cpu));
        let filled = flags(self.len());
        let (mut within, mut inside) = (vec![], vec![]);
        for (at, count) in spans(q.size()[0], TILE.0) {
            let tile = q.narrow(0, at, count);
            let mut any = flags(count);
            let mut balls = Tensor::zeros([count], (Kind::Int64, tch::Device::Cpu));
            for (from, n) in spans(self.len(), TILE.1) {
                let (touching, strictly) = self.compare(&tile, from, n);
                any = any.logical_or(&touching.any_dim(1, false));
                balls += strictly.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
                let mut part = filled.narrow(0, from, n);
                part.copy_(&part.logical_or(&strictly.any_dim(0, false)));
            }
            within.push(any);
            inside.push(balls);
        }
        let counts = Vec::<i64>::try_from(Tensor::cat(&inside, 0))?;
        Ok(Membership {
            within: Vec::<bool>::try_from(Tensor::cat(&within, 0))?,
            inside: counts.into_iter().map(|c| c as u64).collect(),
            filled: Vec::<bool>::try_from(&filled)?,
        })
    }

    /// Membership of queries in or on, and strictly in, the balls `from..from + n`: (Q, n) each.
    fn compare(&self, queries: &Tensor, from: i64, n: i64) -> (Tensor, Tensor) {
        let balls = self.rows.narrow(0, from, n);
        let radii = self.radii.narrow(0, from, n);
        let (mut distance, noise) = squared_distances(queries, &balls);
        let near = (&distance - &radii).abs().le_tensor(&noise).nonzero(); // (P, 2)
        remeasure(&mut distance, queries, &balls, &near);
        (distance.le_tensor(&radii), distance.lt_tensor(&radii))
    }
}

/// (Q, N) squared distances, and how far rounding may have moved them.
fn squared_distances(a: &Tensor, b: &Tensor) -> (Tensor, Tensor) {
    // Distances do not change when one point is taken from all rows, and less cancels.
    let centre = b.mean_dim([0i64].as_slice(), true, Kind::Double);
    let (a, b) = (a - &centre, b - &centre);
    let norms = |t: &Tensor| t.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
    let sum = norms(&a) + norms(&b).tr();
    let distance = (&sum - a.matmul(&b.tr()) * 2.0).clamp_min(0.0);
    (distance, sum * ROUNDING)
}

/// Pairs measured again at once.
const PAIRS: i64 = 8192;

/// Replaces the distances of the pairs (P, 2) by those of their differences.
fn remeasure(distance: &mut Tensor, a: &Tensor, b: &Tensor, pairs: &Tensor) {
    for (at, count) in spans(pairs.size()[0], PAIRS) {
        let pairs = pairs.narrow(0, at, count);
        let (i, j) = (pairs.select(1, 0), pairs.select(1, 1));
        let exact = exact(&a.index_select(0, &i), &b.index_select(0, &j));
        let _ = distance.index_put_(&[Some(&i), Some(&j)], &exact, false);
    }
}

/// Squared distances of rows to their counterparts: (P).
fn exact(a: &Tensor, b: &Tensor) -> Tensor {
    (a - b).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Double)
}

/// Squared radii of the rows `at..at + count`.
fn radii(x: &Tensor, at: i64, count: i64, k: i64) -> Tensor {
    let tile = x.narrow(0, at, count);
    let mut best: Option<(Tensor, Tensor)> = None; // k smallest distances and whose, (count, k)
    for (from, n) in spans(x.size()[0], TILE.1) {
        let (mut distance, _) = squared_distances(&tile, &x.narrow(0, from, n));
        let own = Tensor::arange(n, (Kind::Int64, tch::Device::Cpu)) + from;
        let rows = Tensor::arange(count, (Kind::Int64, tch::Device::Cpu)) + at;
        distance = distance.masked_fill(&own.unsqueeze(0).eq_tensor(&rows.unsqueeze(1)), f64::INFINITY);
        let (values, places) = distance.topk(k.min(n), 1, false, true);
        let found = (values, places + from);
        best = Some(match best {
            None => found,
            Some(before) => smallest(&before, &found, k),
        });
    }
    let (_, whose) = best.expect("there are rows");
    exact(&tile, &x.index_select(0, &whose.select(1, k - 1)))
}

/// The k smallest of two lists.
fn smallest(a: &(Tensor, Tensor), b: &(Tensor, Tensor), k: i64) -> (Tensor, Tensor) {
    let values = Tensor::cat(&[&a.0, &b.0], 1);
    let whose = Tensor::cat(&[&a.1, &b.1], 1);
    let (values, places) = values.topk(k.min(values.size()[1]), 1, false, true);
    (values, whose.gather(1, &places, false))
}

/// Precision and recall as ADM's evaluator takes them (k = 3 there): a row on a surface is inside.
/// torch-fidelity's are the same up to rounding.
pub fn precision_recall(samples: &Manifold, reference: &Manifold) -> Result<PrecisionRecall> {
    Ok(PrecisionRecall {
        precision: share(&reference.membership(&samples.rows)?.within),
        recall: share(&samples.membership(&reference.rows)?.within),
    })
}

/// Precision, recall, density and coverage as prdc takes them (k = 5 usually, sets of one size).
pub fn prdc(samples: &Manifold, reference: &Manifold) -> Result<Prdc> {
    let here = reference.membership(&samples.rows)?;
    let there = samples.membership(&reference.rows)?;
    let inside = |m: &Membership| share(&m.inside.iter().map(|&n| n > 0).collect::<Vec<_>>());
    let balls: u64 = here.inside.iter().sum();
    Ok(Prdc {
        precision: inside(&here),
        recall: inside(&there),
        density: balls as f64 / (reference.k as f64 * here.inside.len() as f64),
        coverage: share(&here.filled),
    })
}

fn share(flags: &[bool]) -> f64 {
    flags.iter().filter(|&&f| f).count() as f64 / flags.len() as f64
}
