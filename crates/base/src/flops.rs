//! Counting the arithmetic of a forward pass and of the backward pass that follows it.
//!
//! Layers report their matrix products, convolutions and attention (two operations a multiply-add, attention counted
//! in full); what is small beside them, norms and activations, is left out. For a transformer this gives the usual
//! `6 P + 12 L D S` a token.

use std::cell::Cell;

use tch::Tensor;

thread_local! {
    static COUNT: Cell<Option<f64>> = const { Cell::new(None) };
}

/// Runs `f` and counts, on this thread, its floating-point operations and those of differentiating its result.
pub fn count<R>(f: impl FnOnce() -> R) -> (R, f64) {
    let outer = COUNT.replace(Some(0.0));
    let result = f();
    let counted = COUNT.replace(outer).unwrap_or(0.0);
    (result, counted)
}

fn add(flops: impl FnOnce() -> f64) {
    if let Some(sum) = COUNT.get() {
        COUNT.set(Some(sum + flops()));
    }
}

/// A layer `y = f(x, weight)` of which each output is a sum of `terms` products. Its backward pass is one more such
/// pass for the gradient of `x`, and one for that of the weight, where they are wanted.
pub fn layer(terms: i64, x: &Tensor, weight: &Tensor, y: &Tensor) {
    add(|| {
        let passes = match y.requires_grad() {
            true => 1 + i32::from(x.requires_grad()) + i32::from(weight.requires_grad()),
            false => 1,
        };
        2.0 * terms as f64 * y.numel() as f64 * f64::from(passes)
    });
}

/// Attention of queries (B, H, L, K) to S keys: two products forward, four backward.
pub fn attention(q: &Tensor, keys: i64) {
    add(|| {
        let passes = if q.requires_grad() { 3.0 } else { 1.0 };
        4.0 * q.numel() as f64 * keys as f64 * passes
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Conv2d, Linear};
    use crate::vars::{Build, Init, Vars};
    use tch::{Device, Kind};

    #[test]
    fn a_trained_layer_costs_three_passes_and_a_first_one_two() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let init = Init::Const(0.1);
        let (a, b) = (
            Linear::new(&(&vars.root() / "a"), 3, 5, init, None),
            Linear::new(&(&vars.root() / "b"), 5, 2, init, None),
        );
        let conv = Conv2d::new(&(&vars.root() / "c"), 1, 4, 3, init, init);
        vars.set_requires_grad(true);
        let x = Tensor::ones([7, 3], (Kind::Float, Device::Cpu));
        let (_, trained) = count(|| b.forward(&a.forward(&x)));
        assert_eq!(trained, 2.0 * 7.0 * (2.0 * 15.0 + 3.0 * 10.0));
        let (_, frozen) = count(|| tch::no_grad(|| b.forward(&a.forward(&x))));
        assert_eq!(frozen, 2.0 * 7.0 * 25.0);
        let (_, pixels) = count(|| conv.forward(&Tensor::ones([1, 1, 6, 6], (Kind::Float, Device::Cpu))));
        assert_eq!(pixels, 2.0 * 9.0 * 4.0 * 36.0 * 2.0);
        let _ = a.forward(&x); // not counted, and no harm
    }
}
