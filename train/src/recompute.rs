//! Backward pass with recomputed activations: only each layer's input is kept, and the layer is run
//! a second time for its gradient (Chen et al., 2016, arXiv 1604.06174).

use tch::{Kind, Tensor};

use crate::task::Gradients;

/// The gradient of `head(layer L−1 (… layer 0 (first)))` by `params`; the head's output is a
/// scalar. `layer` must be deterministic.
pub(crate) fn backward(
    first: &Tensor,
    layers: usize,
    layer: impl Fn(usize, &Tensor) -> Tensor,
    head: impl FnOnce(&Tensor) -> Tensor,
    params: &[Tensor],
) -> Gradients {
    let mut inputs = Vec::with_capacity(layers);
    let last = {
        let _guard = tch::no_grad_guard();
        (0..layers).fold(first.detach(), |x, i| {
            let y = layer(i, &x);
            inputs.push(x);
            y
        })
    };
    let mut gradients: Gradients = params.iter().map(|_| Tensor::new()).collect();
    let leaf = last.detach().set_requires_grad(true);
    let mut above = pull(&head(&leaf), Some(&leaf), params, &mut gradients);
    drop(last);
    for (i, input) in inputs.into_iter().enumerate().rev() {
        let leaf = input.detach().set_requires_grad(true);
        let carrier = carrier(&layer(i, &leaf), &above);
        above = pull(&carrier, Some(&leaf), params, &mut gradients);
    }
    if first.requires_grad() {
        let _ = pull(&carrier(first, &above), None, params, &mut gradients);
    }
    gradients
}

/// A scalar whose gradient by `y` is `gradient`.
fn carrier(y: &Tensor, gradient: &Tensor) -> Tensor {
    (y * gradient).sum(Kind::Float)
}

/// Adds the gradient of `total` by `params` to `gradients`, and returns the one by `leaf`.
fn pull(total: &Tensor, leaf: Option<&Tensor>, params: &[Tensor], gradients: &mut Gradients) -> Tensor {
    let inputs: Vec<&Tensor> = params.iter().chain(leaf).collect();
    let mut found = Tensor::run_backward(&[total], &inputs, false, false);
    let of_leaf = if leaf.is_some() { found.pop() } else { None };
    crate::run::add(gradients, found);
    of_leaf.unwrap_or_default()
}
