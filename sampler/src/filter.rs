//! Temperature and filters of a distribution, out of place.
//!
//! Order and ties are those of GigaTok's `generate.py` (`sample`, `top_k_top_p_filtering`): top-k
//! first, then top-p on the rest. Min-p and typical-p are not in the official code and come after
//! them.
//!
//! A new [`Filter`] does not compile until every path decides on it: tensors of any device
//! ([`Filter::apply`]), rows on the CPU (`RowFilters`) and the GPU's kernel (`KernelFilters`). The
//! last two may decline; tensors are the fall-back.
//!
//! B batch, V vocabulary

use tch::{Kind, Tensor};

/// Minimum temperature: 0 is nearly greedy, and nothing is divided by zero.
pub const TEMPERATURE_FLOOR: f64 = 1e-5;

/// A rule that removes codes from a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Filter {
    /// Keeps the k most probable codes, and ties with the k-th. 0 or less: all. 1: greedy decoding.
    TopK(i64),
    /// Keeps the most probable codes up to the one at which their sum exceeds p. 1 or more: all.
    TopP(f64),
    /// Keeps codes at least p times as probable as the most probable one. 0 or less: all.
    MinP(f64),
    /// Locally typical sampling: keeps the codes whose information content is closest to the
    /// entropy, up to the one at which their sum reaches p. 1 or more: all.
    TypicalP(f64),
}

impl Filter {
    /// Whether it keeps all codes of any distribution.
    pub fn is_off(self) -> bool {
        match self {
            Filter::TopK(k) => k <= 0,
            Filter::TopP(p) => p >= 1.0,
            Filter::MinP(p) => p <= 0.0,
            Filter::TypicalP(p) => p >= 1.0,
        }
    }

    /// (B, V) logits → the same with removed entries at -inf.
    pub fn apply(self, logits: Tensor) -> Tensor {
        match self {
            _ if self.is_off() => logits,
            Filter::TopK(k) => top_k(&logits, k),
            Filter::TopP(p) => top_p(&logits, p),
            Filter::MinP(p) => min_p(&logits, p),
            Filter::TypicalP(p) => typical_p(&logits, p),
        }
    }
}

/// (B, V) fp32 logits → the same, divided by the temperature, with removed entries at -inf.
pub fn apply(logits: &Tensor, temperature: f64, filters: &[Filter]) -> Tensor {
    let scaled = logits / temperature.max(TEMPERATURE_FLOOR);
    filters.iter().fold(scaled, |logits, filter| filter.apply(logits))
}

/// Temperature and filters on one row in place, without sorting it.
#[derive(Debug)]
pub(crate) struct RowFilters {
    temperature: f32,
    filters: Vec<RowFilter>,
}

#[derive(Debug, Clone, Copy)]
enum RowFilter {
    TopK(usize),
    /// Logarithm of p.
    MinP(f32),
}

impl RowFilters {
    /// `None` if a filter needs the order of all logits.
    pub fn new(temperature: f64, filters: &[Filter]) -> Option<Self> {
        let active = filters.iter().filter(|filter| !filter.is_off());
        let for_rows = active.map(|&filter| match filter {
            Filter::TopK(k) => Some(RowFilter::TopK(usize::try_from(k).unwrap_or(usize::MAX))),
            Filter::TopP(_) | Filter::TypicalP(_) => None,
            Filter::MinP(p) => Some(RowFilter::MinP(p.min(1.0).ln() as f32)),
        });
        let temperature = temperature.max(TEMPERATURE_FLOOR) as f32;
        Some(RowFilters { temperature, filters: for_rows.collect::<Option<_>>()? })
    }

    /// [`apply`] on one row.
    pub fn apply(&self, row: &mut [f32]) {
        if self.temperature != 1.0 {
            row.iter_mut().for_each(|logit| *logit /= self.temperature);
        }
        for filter in &self.filters {
            match *filter {
                RowFilter::TopK(k) => cpu_kernels::sample::top_k_mask(row, k),
                RowFilter::MinP(margin) => {
                    let threshold = row.iter().fold(f32::NEG_INFINITY, |m, &l| m.max(l)) + margin;
                    row.iter_mut().filter(|l| **l < threshold).for_each(|l| *l = f32::NEG_INFINITY);
                }
            }
        }
    }
}

/// Temperature and filters of the GPU's sampling kernel, which applies top-k and then min-p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct KernelFilters {
    pub temperature: f64,
    /// 0: all.
    pub top_k: i64,
    /// 0: all.
    pub min_p: f64,
}

impl KernelFilters {
    /// `None` if the kernel lacks a filter, or applies the filters in another order.
    pub fn new(temperature: f64, filters: &[Filter]) -> Option<Self> {
        let temperature = temperature.max(TEMPERATURE_FLOOR);
        let mut kernel = KernelFilters { temperature, top_k: 0, min_p: 0.0 };
        for filter in filters.iter().filter(|filter| !filter.is_off()) {
            match *filter {
                Filter::TopK(k) if kernel.top_k == 0 && kernel.min_p == 0.0 => kernel.top_k = k,
                Filter::MinP(p) if kernel.min_p == 0.0 => kernel.min_p = p,
                Filter::TopK(_) | Filter::TopP(_) | Filter::MinP(_) | Filter::TypicalP(_) => return None,
            }
        }
        Some(kernel)
    }
}

fn remove(logits: &Tensor, removed: &Tensor) -> Tensor {
    logits.masked_fill(removed, f64::NEG_INFINITY)
}

/// Keeps the k largest entries of each row and every tie with the k-th; k is clipped to V.
fn top_k(logits: &Tensor, k: i64) -> Tensor {
    let k = k.clamp(1, logits.size()[1]);
    let (largest, _) = logits.topk(k, -1, true, true); // (B, k)
    remove(logits, &logits.lt_tensor(&largest.narrow(1, k - 1, 1)))
}

/// Keeps the smallest set of the most probable entries whose sum exceeds p. The mask is shifted by
/// one, so that the entry that crosses p stays, and the most probable one always does. Which of
/// equal entries at the edge stay is up to libtorch's sort, as in the official code.
fn top_p(logits: &Tensor, p: f64) -> Tensor {
    let (sorted, order) = logits.sort(-1, true); // (B, V)
    let over = sorted.softmax(-1, Kind::Float).cumsum(-1, Kind::Float).gt(p);
    let v = logits.size()[1];
    let removed = over.zeros_like();
    removed.narrow(1, 1, v - 1).copy_(&over.narrow(1, 0, v - 1));
    remove(logits, &removed.zeros_like().scatter(1, &order, &removed))
}

/// Keeps entries at least p times as probable as the most probable one (Nguyen et al., 2024).
fn min_p(logits: &Tensor, p: f64) -> Tensor {
    let threshold = logits.amax([-1i64].as_slice(), true) + p.min(1.0).ln();
    remove(logits, &logits.lt_tensor(&threshold))
}

/// Keeps entries in the order of `| -log p(code) - entropy |` until their sum reaches p, and ties
/// with the last (locally typical sampling, Meister et al., 2022, arXiv 2202.00666; as
/// `TypicalLogitsWarper` of Hugging Face's transformers).
fn typical_p(logits: &Tensor, p: f64) -> Tensor {
    let log_p = logits.log_softmax(-1, Kind::Float); // (B, V)
    let entropy = -(&log_p * log_p.exp()).nansum([-1i64].as_slice(), true, Kind::Float); // 0 · log 0 is 0
    let deviation = (-log_p - entropy).abs();
    let (sorted, order) = deviation.sort(-1, false);
    let sums = logits.gather(-1, &order, false).softmax(-1, Kind::Float).cumsum(-1, Kind::Float);
    let before = sums.lt(p).sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64); // (B, 1)
    let threshold = sorted.gather(-1, &before.clamp_max(logits.size()[1] - 1), false);
    remove(logits, &deviation.gt_tensor(&threshold))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(row: &[f32], filters: &[Filter]) -> Vec<i64> {
        let logits = Tensor::from_slice(row).unsqueeze(0);
        let before = logits.copy();
        let out = apply(&logits, 1.0, filters);
        assert_eq!(logits, before, "the input must not change");
        Vec::<i64>::try_from(out.isfinite().nonzero().select(1, 1)).unwrap()
    }

    #[test]
    fn top_k_keeps_ties() {
        let row = [1.0, 3.0, 2.0, 3.0, 3.0, 0.0];
        for k in 1..=3 {
            assert_eq!(kept(&row, &[Filter::TopK(k)]), [1, 3, 4]);
        }
        assert_eq!(kept(&row, &[Filter::TopK(4)]), [1, 2, 3, 4]);
    }

    #[test]
    fn top_p_mask_is_shifted_by_one() {
        let row: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let with = |p| kept(&row, &[Filter::TopP(p)]);
        assert_eq!(with(0.4), [0]); // 0.5 crosses 0.4 and stays
        assert_eq!(with(0.6), [0, 1]); // 0.5 does not cross, 0.8 does and stays
        assert_eq!(with(0.0), [0]); // the best one always stays
    }

    #[test]
    fn top_k_v_and_top_p_1_change_nothing_and_0_is_off() {
        let row = [1.0, 3.0, 2.0, 3.0];
        let open = |k, p, m| kept(&row, &[Filter::TopK(k), Filter::TopP(p), Filter::MinP(m)]);
        for k in [0, -1, 4, 99] {
            assert_eq!(open(k, 1.0, 0.0), [0, 1, 2, 3]);
        }
    }

    #[test]
    fn min_p_is_relative_to_the_best() {
        let row: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let with = |p| kept(&row, &[Filter::MinP(p)]);
        assert_eq!(with(0.25), [0, 1, 2]);
        assert_eq!(with(1.0), [0]);
    }

    /// Entropy 1.14: the codes' deviations from it are 0.45, 0.06, 0.76 and 1.85.
    #[test]
    fn typical_p_prefers_codes_of_typical_information() {
        let row: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let with = |p| kept(&row, &[Filter::TypicalP(p)]);
        assert_eq!(with(0.0), [1]); // the most typical one always stays
        assert_eq!(with(0.29), [1]);
        assert_eq!(with(0.31), [0, 1]);
        assert_eq!(with(0.9), [0, 1, 2]);
        assert_eq!(with(0.96), [0, 1, 2, 3]);
    }

    #[test]
    fn typical_p_keeps_ties_and_ignores_removed_codes() {
        assert_eq!(kept(&[1.0; 5], &[Filter::TypicalP(0.1)]), [0, 1, 2, 3, 4]);
        let row = [0.5f32, 0.3, 0.0, 0.15, 0.05, 0.0].map(f32::ln);
        assert_eq!(kept(&row, &[Filter::TypicalP(0.31)]), [0, 1]);
        assert_eq!(kept(&row, &[Filter::TopK(3), Filter::TypicalP(0.99)]), [0, 1, 3]);
    }

    #[test]
    fn temperature_has_a_floor() {
        let logits = Tensor::from_slice(&[1.0f32, 2.0]).unsqueeze(0);
        let at = |temperature| apply(&logits, temperature, &[]);
        assert_eq!(at(0.0), at(1e-5));
        assert_eq!(at(1e-6), at(1e-5));
    }

    #[test]
    fn fast_paths_decline_what_they_would_do_otherwise() {
        use Filter::{MinP, TopK, TopP, TypicalP};
        let kernel = |filters: &[Filter]| KernelFilters::new(1.0, filters).map(|k| (k.top_k, k.min_p));
        assert_eq!(kernel(&[TopK(5), TopP(1.0), MinP(0.1)]), Some((5, 0.1)));
        assert_eq!(kernel(&[MinP(0.1)]), Some((0, 0.1)));
        for filters in [&[MinP(0.1), TopK(5)][..], &[TopK(5), TopK(3)], &[TopP(0.9)], &[TypicalP(0.9)]] {
            assert_eq!(kernel(filters), None, "{filters:?}");
        }
        assert!(RowFilters::new(1.0, &[MinP(0.1), TopK(5)]).is_some());
        assert!(RowFilters::new(1.0, &[TopK(5), TopP(0.9)]).is_none());
        assert!(RowFilters::new(1.0, &[TypicalP(0.9)]).is_none());
        assert!(RowFilters::new(1.0, &[TypicalP(1.0)]).is_some());
    }
}
