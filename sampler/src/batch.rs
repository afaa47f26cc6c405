//! Rows of the network's batch: conditional rows, under guidance unconditional ones, and padding.
//!
//! B images, R rows, V vocabulary

use ar_model::Conditioning;
use tch::{Device, Kind, Tensor};

use crate::guidance::Guidance;

/// `n` copies of the first condition.
pub(crate) fn repeat_first(cond: &Conditioning, n: i64) -> Conditioning {
    cond.select(&Tensor::zeros([n], (Kind::Int64, Device::Cpu)))
}

/// Image of each of the R rows, (R) int64: the same for both halves, the first image for padding.
pub(crate) fn row_to_image(rows: i64, b: i64, guided: bool) -> Tensor {
    let used = if guided { 2 * b } else { b };
    let images: Vec<i64> = (0..rows).map(|row| if row < used { row % b } else { 0 }).collect();
    Tensor::from_slice(&images)
}

/// Logits of all rows, (R, V) → guided logits of the images, (B, V): `uncond + (cond - uncond) ·
/// c` if the step's scale c is above 1, else the conditional logits unchanged.
pub(crate) fn apply_cfg(logits: &Tensor, b: i64, guidance: &Guidance, step: usize, steps: usize) -> Tensor {
    let scale = guidance.at(step, steps);
    match guidance.active() && scale > 1.0 {
        // A host scalar is passed as a kernel argument, on a GPU too.
        true => mix(logits, b, &Tensor::from(scale as f32)),
        false => logits.narrow(0, 0, b),
    }
}

/// [`apply_cfg`] with the scale in a tensor (1), without synchronisation.
pub(crate) fn apply_cfg_tensor_scale(logits: &Tensor, b: i64, scale: &Tensor) -> Tensor {
    mix(logits, b, scale).where_self(&scale.gt(1.0), &logits.narrow(0, 0, b))
}

/// Conditional and unconditional logits (V) → guided logits, in the place of the conditional ones,
/// in the order of roundings of [`apply_cfg`].
pub(crate) fn mix_rows(cond: &mut [f32], uncond: &[f32], scale: f32) {
    for (c, u) in cond.iter_mut().zip(uncond) {
        *c = (*c - u) * scale + u;
    }
}

fn mix(logits: &Tensor, b: i64, scale: &Tensor) -> Tensor {
    let (cond, uncond) = (logits.narrow(0, 0, b), logits.narrow(0, b, b));
    (cond - &uncond).g_mul_(scale).g_add_(&uncond)
}
