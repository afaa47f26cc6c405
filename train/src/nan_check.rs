//! Detection and report of numbers that are not finite.

use tch::{Kind, Tensor};

/// The value of `norm`, and whether it and all scalars `totals` are finite. Waits for the device
/// once.
pub(crate) fn all_finite(norm: &Tensor, totals: &[Tensor]) -> (f64, bool) {
    let mut all = vec![norm.to_kind(Kind::Double)];
    all.extend(totals.iter().map(|t| t.to_kind(Kind::Double)));
    let values: Vec<f64> = Vec::try_from(Tensor::stack(&all, 0)).expect("a vector of doubles");
    (values[0], values.iter().all(|v| v.is_finite()))
}

/// Loss terms of a step that are not finite.
pub(crate) fn bad_losses(terms: &[(&'static str, Tensor)]) -> Vec<String> {
    let mut losses: Vec<String> =
        terms.iter().filter(|(_, v)| bad(v)).map(|(n, _)| format!("loss `{n}`")).collect();
    losses.dedup();
    losses
}

/// Parameters that are not finite, or else gradients of parameters.
pub(crate) fn bad_layers(names: &[String], params: &[Tensor], grads: &[Tensor]) -> Vec<String> {
    let named = |tensors: &[Tensor], prefix: &str| -> Vec<String> {
        let bad = names.iter().zip(tensors).filter(|(_, t)| t.defined() && bad(t));
        bad.map(|(name, _)| format!("{prefix} `{name}`")).collect()
    };
    let layers = named(params, "the parameter");
    if layers.is_empty() { named(grads, "the gradient of") } else { layers }
}

/// One sentence part of what is not finite.
pub(crate) fn non_finite_report(losses: Vec<String>, layers: Vec<String>) -> String {
    let parts: Vec<String> = [first(losses), first(layers)].into_iter().flatten().collect();
    if parts.is_empty() { "the gradient's norm".to_owned() } else { parts.join(", ") }
}

fn bad(t: &Tensor) -> bool {
    t.detach().isfinite().all().int64_value(&[]) == 0
}

/// Up to three names, and the number of further ones.
fn first(mut all: Vec<String>) -> Option<String> {
    const SHOWN: usize = 3;
    let more = all.len().saturating_sub(SHOWN);
    all.truncate(SHOWN);
    let text = all.join(", ");
    match (all.is_empty(), more) {
        (true, _) => None,
        (_, 0) => Some(text),
        _ => Some(format!("{text} (and {more} more)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_layers_are_named() {
        let t = |v: f32| Tensor::from_slice(&[1.0, v]);
        let names = ["a.weight", "b.weight"].map(str::to_owned);
        let terms = [("l2", t(1.0)), ("lpips", t(f32::NAN))];
        let (fine, nan) = ([t(1.0), t(2.0)], vec![t(0.0), t(f32::INFINITY)]);
        let says = |terms: &[(&'static str, Tensor)], params: &[Tensor]| {
            non_finite_report(bad_losses(terms), bad_layers(&names, params, &nan))
        };
        assert_eq!(says(&terms, &fine), "loss `lpips`, the gradient of `b.weight`");
        assert_eq!(says(&terms[..1], &[t(f32::NAN), t(1.0)]), "the parameter `a.weight`");
        let (norm, fine) = all_finite(&Tensor::from(3f32), &[Tensor::from(1f32), Tensor::from(f32::NAN)]);
        assert_eq!((norm, fine), (3.0, false));
    }
}
