//! The transformer's loss.

use base::spans;
use libtorch_ext::fused;
use tch::{Device, Kind, Reduction, Tensor};

/// Mean cross-entropy over all positions: logits (B, N, V), codes (B, N).
pub fn cross_entropy(logits: &Tensor, codes: &Tensor) -> Tensor {
    let v = logits.size()[logits.dim() - 1];
    let flat = logits.to_kind(Kind::Float).reshape([-1, v]);
    flat.cross_entropy_loss::<Tensor>(&codes.reshape([-1]), None, Reduction::Mean, -100, 0.0)
}

/// Cross-entropy over the samples that are `valid` (B,), divided by the number of valid codes, at
/// least 1 (LlamaGen's text-to-image trainer, which replaces unreadable samples by dummies).
pub fn masked_cross_entropy(logits: &Tensor, codes: &Tensor, valid: &Tensor) -> Tensor {
    let v = logits.size()[logits.dim() - 1];
    let flat = logits.to_kind(Kind::Float).reshape([-1, v]);
    let each = flat.cross_entropy_loss::<Tensor>(&codes.reshape([-1]), None, Reduction::None, -100, 0.0);
    (each * position_weights(codes, Some(valid))).sum(Kind::Float)
}

/// Weight of each position (B · N) in the mean over all, or over those of `valid` samples.
fn position_weights(codes: &Tensor, valid: Option<&Tensor>) -> Tensor {
    let (b, n) = codes.size2().expect("codes are (B, N)");
    match valid {
        None => Tensor::full([b * n], 1.0 / (b * n) as f64, (Kind::Float, codes.device())),
        Some(valid) => {
            let mask = valid.to_kind(Kind::Float).view([b, 1]).expand([b, n], false).reshape([-1]);
            let count = mask.sum(Kind::Float).clamp_min(1.0);
            mask / count
        }
    }
}

/// Number of logits computed at a time: 64 MiB in fp32.
pub(crate) const LOGITS_AT_A_TIME: i64 = 1 << 24;

/// [`cross_entropy`], or [`masked_cross_entropy`], of `hidden · outputᵀ` for hidden states (B,
/// N, D) and an output layer (V, D), in parts of the positions, so that not all logits are in
/// memory. The gradients of hidden states and output layer are computed together with the loss.
/// Memory does not grow with B · N · V, and the logits are read and written less often.
pub fn chunked_cross_entropy(
    hidden: &Tensor,
    output: &Tensor,
    codes: &Tensor,
    valid: Option<&Tensor>,
) -> Tensor {
    let rows = (LOGITS_AT_A_TIME / output.size()[0]).max(1);
    in_parts(hidden, output, codes, valid, rows)
}

fn in_parts(hidden: &Tensor, output: &Tensor, codes: &Tensor, valid: Option<&Tensor>, rows: i64) -> Tensor {
    let width = output.size()[1];
    let hidden = hidden.reshape([-1, width]);
    // A view of a parameter requires a gradient only while a graph is recorded.
    let trains_output = output.narrow(0, 0, 1).requires_grad();
    let mut parts = Parts::new(&hidden, output, trains_output || hidden.requires_grad());
    {
        let _guard = tch::no_grad_guard();
        let (codes, weights) = (codes.reshape([-1, 1]), position_weights(codes, valid).view([-1, 1]));
        for (from, count) in spans(hidden.size()[0], rows) {
            let part = |t: &Tensor| t.narrow(0, from, count);
            parts.add(&part(&hidden.detach()), &part(&codes), &part(&weights));
        }
    }
    let Parts { loss, gradients, .. } = parts;
    let Some((of_hidden, of_output)) = gradients else { return loss };
    // A scalar with these gradients, minus its own value. They are constants, so there are no
    // second gradients.
    let mut carrier = (hidden * Tensor::cat(&of_hidden, 0)).sum(Kind::Float);
    if trains_output {
        carrier += output.reshape([-1]).dot(&of_output.reshape([-1]));
    }
    loss + fused::once(&(&carrier - carrier.detach()))
}

/// The loss so far and its gradients.
struct Parts {
    output: Tensor, // in the dtype of the hidden states
    loss: Tensor,
    gradients: Option<(Vec<Tensor>, Tensor)>,
}

impl Parts {
    fn new(hidden: &Tensor, output: &Tensor, differentiate: bool) -> Parts {
        let _guard = tch::no_grad_guard();
        let (kind, device): (Kind, Device) = (hidden.kind(), hidden.device());
        Parts {
            output: output.detach().to_kind(kind),
            loss: Tensor::zeros([], (Kind::Float, device)),
            gradients: differentiate.then(|| (vec![], Tensor::zeros(output.size(), (Kind::Float, device)))),
        }
    }

    /// Adds rows (M, D) with their codes (M, 1) and weights (M, 1).
    fn add(&mut self, hidden: &Tensor, codes: &Tensor, weights: &Tensor) {
        let logits = match fused::takes_linear(hidden) {
            true => fused::linear(hidden, &self.output, None),
            false => hidden.matmul(&self.output.tr()),
        };
        let (loss, g) = if fused::takes(&logits) {
            let (losses, g) = fused::cross_entropies(logits, &codes.view([-1]), &weights.view([-1]));
            (losses.sum(Kind::Float), g)
        } else {
            loss_and_gradient(&logits, codes, weights)
        };
        self.loss += loss;
        let Some((of_hidden, of_output)) = &mut self.gradients else { return };
        let (by_hidden, by_output) = match fused::takes_linear(&g) {
            true => fused::linear_gradients(&g, hidden, &self.output),
            false => (g.matmul(&self.output), g.tr().matmul(hidden)),
        };
        of_hidden.push(by_hidden);
        *of_output += by_output;
    }
}

/// The sum of weighted losses and its gradient by the logits, weight · (softmax − one-hot), in
/// their dtype.
fn loss_and_gradient(logits: &Tensor, codes: &Tensor, weights: &Tensor) -> (Tensor, Tensor) {
    let mut p = logits.log_softmax(-1, Kind::Float);
    let loss = -(p.gather(1, codes, false) * weights).sum(Kind::Float);
    let _ = p.exp_();
    let _ = p.scatter_add_(1, codes, &Tensor::full_like(weights, -1.0));
    p *= weights;
    (loss, p.to_kind(logits.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    /// Value and both gradients, of a third of the loss.
    fn of(loss: &Tensor, hidden: &Tensor, output: &Tensor) -> Vec<Tensor> {
        let gradients = Tensor::run_backward(&[loss / 3.0], &[hidden, output], false, false);
        [loss.detach()].into_iter().chain(gradients).collect()
    }

    #[test]
    fn in_parts_it_is_the_same_loss_with_the_same_gradients() {
        tch::manual_seed(1);
        let options = (Kind::Float, Device::Cpu);
        let hidden = Tensor::randn([3, 5, 8], options).set_requires_grad(true);
        let output = Tensor::randn([50, 8], options).set_requires_grad(true);
        let codes = Tensor::randint(50, [3, 5], (Kind::Int64, Device::Cpu));
        let valid = Tensor::from_slice(&[1i64, 0, 1]);
        let logits = || hidden.matmul(&output.tr());
        let whole = of(&cross_entropy(&logits(), &codes), &hidden, &output);
        let masked = of(&masked_cross_entropy(&logits(), &codes, &valid), &hidden, &output);
        for rows in [1, 4, 15, 100] {
            let loss = in_parts(&hidden, &output, &codes, None, rows);
            for (a, b) in whole.iter().zip(of(&loss, &hidden, &output)) {
                assert!(difference(a, &b) < 1e-6, "{rows} rows: {}", difference(a, &b));
            }
            let loss = in_parts(&hidden, &output, &codes, Some(&valid), rows);
            for (a, b) in masked.iter().zip(of(&loss, &hidden, &output)) {
                assert!(difference(a, &b) < 1e-6, "{rows} rows, masked: {}", difference(a, &b));
            }
        }
        let _guard = tch::no_grad_guard();
        let loss = chunked_cross_entropy(&hidden, &output, &codes, None);
        assert!(!loss.requires_grad() && difference(&loss, &whole[0]) < 1e-6);
    }
}
