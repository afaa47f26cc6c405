//! Temperature and the filters that narrow a distribution, out of place.
//!
//! GigaTok `generate.py` (`sample`, `top_k_top_p_filtering`), whose order and ties are kept: top-k first, then
//! top-p on what is left. Min-p is not in the official code and comes last.
//!
//! B batch, V vocabulary

use tch::{Kind, Tensor};

use crate::SamplingConfig;

/// The temperature never goes below this, so that 0 means greedy and nothing divides by zero.
pub const TEMPERATURE_FLOOR: f64 = 1e-5;

/// (B, V) fp32 logits → the same, divided by the temperature, with removed entries at -inf.
pub fn apply(logits: &Tensor, config: &SamplingConfig) -> Tensor {
    let mut out = logits / config.temperature.max(TEMPERATURE_FLOOR);
    if let Some(k) = config.top_k.filter(|&k| k > 0) {
        out = top_k(&out, k);
    }
    if let Some(p) = config.top_p.filter(|&p| p < 1.0) {
        out = top_p(&out, p);
    }
    if let Some(p) = config.min_p.filter(|&p| p > 0.0) {
        out = min_p(&out, p);
    }
    out
}

/// As [`apply`] without top-p, on one row in place.
pub fn apply_to_row(row: &mut [f32], config: &SamplingConfig) {
    let temperature = config.temperature.max(TEMPERATURE_FLOOR) as f32;
    if temperature != 1.0 {
        row.iter_mut().for_each(|logit| *logit /= temperature);
    }
    if let Some(k) = config.top_k.filter(|&k| k > 0) {
        kernels::choose::keep_largest(row, usize::try_from(k).unwrap_or(usize::MAX));
    }
    if let Some(p) = config.min_p.filter(|&p| p > 0.0) {
        let threshold = row.iter().fold(f32::NEG_INFINITY, |m, &l| m.max(l)) + p.min(1.0).ln() as f32;
        row.iter_mut().filter(|logit| **logit < threshold).for_each(|logit| *logit = f32::NEG_INFINITY);
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

/// Keeps the shortest run of the most probable entries whose sum exceeds p. The mask is shifted by one, so the
/// entry that crosses p stays, and the most probable one always does. Which of equal entries at the edge stay is up
/// to libtorch's sort, as in the official code.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingConfig;

    fn kept(row: &[f32], config: SamplingConfig) -> Vec<i64> {
        let logits = Tensor::from_slice(row).unsqueeze(0);
        let before = logits.copy();
        let out = apply(&logits, &config);
        assert_eq!(logits, before, "the input must not change");
        Vec::<i64>::try_from(out.isfinite().nonzero().select(1, 1)).unwrap()
    }

    #[test]
    fn top_k_keeps_ties() {
        let row = [1.0, 3.0, 2.0, 3.0, 3.0, 0.0];
        for k in 1..=3 {
            assert_eq!(kept(&row, SamplingConfig { top_k: Some(k), ..Default::default() }), [1, 3, 4]);
        }
        assert_eq!(kept(&row, SamplingConfig { top_k: Some(4), ..Default::default() }), [1, 2, 3, 4]);
    }

    #[test]
    fn top_p_mask_is_shifted_by_one() {
        let row: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let with = |p| kept(&row, SamplingConfig { top_p: Some(p), ..Default::default() });
        assert_eq!(with(0.4), [0]); // 0.5 crosses 0.4 and stays
        assert_eq!(with(0.6), [0, 1]); // 0.5 does not cross, 0.8 does and stays
        assert_eq!(with(0.0), [0]); // the best one always stays
    }

    #[test]
    fn top_k_v_and_top_p_1_change_nothing_and_0_is_off() {
        let row = [1.0, 3.0, 2.0, 3.0];
        let open = |k, p, m| {
            kept(
                &row,
                SamplingConfig { top_k: Some(k), top_p: Some(p), min_p: Some(m), ..Default::default() },
            )
        };
        for k in [0, -1, 4, 99] {
            assert_eq!(open(k, 1.0, 0.0), [0, 1, 2, 3]);
        }
    }

    #[test]
    fn min_p_is_relative_to_the_best() {
        let row: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let with = |p| kept(&row, SamplingConfig { min_p: Some(p), ..Default::default() });
        assert_eq!(with(0.25), [0, 1, 2]);
        assert_eq!(with(1.0), [0]);
    }

    #[test]
    fn temperature_has_a_floor() {
        let logits = Tensor::from_slice(&[1.0f32, 2.0]).unsqueeze(0);
        let at = |temperature| apply(&logits, &SamplingConfig { temperature, ..Default::default() });
        assert_eq!(at(0.0), at(1e-5));
        assert_eq!(at(1e-6), at(1e-5));
    }
}
