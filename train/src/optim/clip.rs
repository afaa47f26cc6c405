use tch::{Kind, Tensor};

/// The 2-norm of all gradients taken as one vector, fp32 on their device; undefined ones do not
/// count.
pub fn global_norm(grads: &[Tensor]) -> Tensor {
    let norms: Vec<Tensor> =
        grads.iter().filter(|g| g.defined()).map(|g| g.to_kind(Kind::Float).norm()).collect();
    if norms.is_empty() { Tensor::from(0f32) } else { Tensor::stack(&norms, 0).norm() }
}

/// Scales gradients in place so that their global norm is at most `max_norm`, given that it is
/// `norm`; the factor is PyTorch's, `min(1, max_norm / (norm + 1e-6))`. A `max_norm` of 0 or less
/// switches clipping off.
pub fn clip_grad_norm(grads: &mut [Tensor], norm: f64, max_norm: f64) {
    let factor = max_norm / (norm + 1e-6);
    if max_norm <= 0.0 || factor >= 1.0 {
        return;
    }
    let _guard = tch::no_grad_guard();
    for g in grads.iter_mut().filter(|g| g.defined()) {
        *g *= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_brings_the_norm_to_the_limit_and_leaves_small_gradients_alone() {
        let mut grads = vec![Tensor::from_slice(&[3.0f32]), Tensor::new(), Tensor::from_slice(&[4.0f32])];
        let norm = global_norm(&grads).double_value(&[]);
        assert_eq!(norm, 5.0);
        clip_grad_norm(&mut grads, norm, 10.0);
        assert_eq!(grads[0].double_value(&[0]), 3.0);
        clip_grad_norm(&mut grads, norm, 1.0);
        assert!((global_norm(&grads).double_value(&[]) - 1.0).abs() < 1e-5);
    }
}
