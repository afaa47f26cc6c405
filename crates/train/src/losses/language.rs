//! The transformer's loss.

use tch::{Kind, Reduction, Tensor};

/// Mean cross-entropy over all positions: logits (B, N, V), codes (B, N).
pub fn cross_entropy(logits: &Tensor, codes: &Tensor) -> Tensor {
    let v = logits.size()[logits.dim() - 1];
    let flat = logits.to_kind(Kind::Float).reshape([-1, v]);
    flat.cross_entropy_loss::<Tensor>(&codes.reshape([-1]), None, Reduction::Mean, -100, 0.0)
}

/// Cross-entropy over the samples that are `valid` (B,), divided by the number of valid codes, at least 1
/// (LlamaGen's text-to-image trainer, which replaces unreadable samples by dummies).
pub fn masked_cross_entropy(logits: &Tensor, codes: &Tensor, valid: &Tensor) -> Tensor {
    let (b, n) = codes.size2().expect("codes are (B, N)");
    let v = logits.size()[logits.dim() - 1];
    let flat = logits.to_kind(Kind::Float).reshape([-1, v]);
    let each = flat.cross_entropy_loss::<Tensor>(&codes.reshape([-1]), None, Reduction::None, -100, 0.0);
    let mask = valid.to_kind(Kind::Float).view([b, 1]).expand([b, n], false).reshape([-1]);
    (each * &mask).sum(Kind::Float) / mask.sum(Kind::Float).clamp_min(1.0)
}
