//! Temperature, top-k and top-p on given logits.

use anyhow::{Context, Result};
use sampler::{Filter, SamplingConfig};
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::check::{Check, Rule};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    tag: String,
    logits: String,
    temperature: f64,
    top_k: i64,
    top_p: f64,
}

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let cases: Vec<Case> = serde_json::from_value(check.golden.get("cases").clone()).context("cases")?;
    for case in cases {
        let logits = check.input(&case.logits)?;
        let config = SamplingConfig {
            temperature: case.temperature,
            filters: vec![Filter::TopK(case.top_k), Filter::TopP(case.top_p)],
            ..SamplingConfig::default()
        };
        let filtered = config.filtered(&logits);
        let named = |what: &str| format!("{}.{what}", case.tag);
        check.compare(&named("kept"), Rule::Equal, || {
            filtered.isfinite().sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64)
        })?;
        // The sort decides which of equal entries at the edge of top-p stays; the rest of the row
        // must agree.
        let aligned = |name: &str, found: Tensor| -> Result<Tensor> {
            Ok(match check.golden.has(name) {
                true => swap_ties(&logits, &found, &check.golden.tensor(name)?),
                false => found,
            })
        };
        let probs = aligned(&named("probs"), filtered.softmax(-1, Kind::Float))?;
        let kept = aligned(&named("filtered"), filtered)?;
        check.compare(&named("filtered"), Rule::Values, || kept)?;
        check.compare(&named("probs"), Rule::Values, || probs)?;
    }
    Ok(())
}

/// `found` with entries of equal logits put in the order that `expected` has them in, row by row.
fn swap_ties(logits: &Tensor, found: &Tensor, expected: &Tensor) -> Tensor {
    let rows = |t: &Tensor| Vec::<Vec<f32>>::try_from(t.to_kind(Kind::Float)).expect("a matrix");
    let mut out = rows(found);
    for ((logits, out), expected) in rows(logits).iter().zip(&mut out).zip(&rows(expected)) {
        let mut ties: std::collections::BTreeMap<u32, Vec<usize>> = Default::default();
        logits.iter().enumerate().for_each(|(i, v)| ties.entry(v.to_bits()).or_default().push(i));
        for places in ties.values().filter(|p| p.len() > 1) {
            let by = |row: &[f32]| {
                let mut order = places.clone();
                order.sort_by(|&a, &b| row[a].total_cmp(&row[b]));
                order
            };
            let values: Vec<f32> = by(out).iter().map(|&i| out[i]).collect();
            by(expected).iter().zip(values).for_each(|(&i, v)| out[i] = v);
        }
    }
    Tensor::from_slice2(&out)
}
