use base::vars::Var;
use tch::Tensor;

/// Settings of LARS (You et al., 2017, arXiv 1708.03888). The learning rate comes with each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LarsConfig {
    /// Decay of the momentum.
    pub momentum: f64,
    /// Added to the gradient of matrices, as a factor of the weight.
    pub weight_decay: f64,
    /// Length of a matrix's update relative to the matrix. `None`: SGD with momentum.
    pub trust_coefficient: Option<f64>,
}

impl LarsConfig {
    /// Settings of MAE's and GigaTok's linear probes.
    pub const PROBE: LarsConfig =
        LarsConfig { momentum: 0.9, weight_decay: 0.0, trust_coefficient: Some(0.001) };
}

#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    mu: Tensor,
}

/// LARS as in MAE (`util/lars.py`): for tensors of two or more dimensions `g += wd w` and `g *=
/// trust |w| / |g|`, where both norms are positive; vectors have neither. Then `mu = momentum mu +
/// g` and `w -= lr mu`.
#[derive(Debug)]
pub struct Lars {
    slots: Vec<Slot>,
    config: LarsConfig,
}

impl Lars {
    /// Zero momentum for every parameter.
    pub fn new(parameters: Vec<Var>, config: LarsConfig) -> Self {
        let slot = |v: Var| {
            let param = v.tensor.detach();
            Slot { name: v.name, mu: param.zeros_like(), param }
        };
        Lars { slots: parameters.into_iter().map(slot).collect(), config }
    }

    /// One update at learning rate `lr`. `grads` are in the order of the parameters.
    pub fn step(&mut self, grads: &[Tensor], lr: f64) {
        assert_eq!(grads.len(), self.slots.len(), "one gradient for each parameter");
        let _guard = tch::no_grad_guard();
        for (slot, grad) in self.slots.iter_mut().zip(grads) {
            let update = self.config.scaled(&slot.param, &grad.detach());
            slot.mu *= self.config.momentum;
            slot.mu += update;
            slot.param -= &slot.mu * lr;
        }
    }

    /// State tensors, shared with the optimizer: `mu.NAME`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.slots.iter().map(|s| (format!("mu.{}", s.name), s.mu.shallow_clone())).collect()
    }

    /// Restores saved state; `get` finds a tensor by the names of [`Lars::state`].
    ///
    /// # Errors
    /// Returns the name of a tensor that is missing or has another shape; nothing is changed then.
    pub fn load_state(&mut self, get: impl Fn(&str) -> Option<Tensor>) -> Result<(), String> {
        let _guard = tch::no_grad_guard();
        let find = |s: &Slot| {
            let (name, shape) = (format!("mu.{}", s.name), s.mu.size());
            get(&name).filter(|t| t.size() == shape).ok_or_else(|| format!("{name} {shape:?}"))
        };
        let found = self.slots.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        for (s, mu) in self.slots.iter_mut().zip(found) {
            s.mu.copy_(&mu);
        }
        Ok(())
    }
}

impl LarsConfig {
    fn scaled(&self, param: &Tensor, grad: &Tensor) -> Tensor {
        if param.dim() < 2 {
            return grad.shallow_clone();
        }
        let grad = grad + param * self.weight_decay;
        let Some(trust) = self.trust_coefficient else { return grad };
        let (w, g) = (param.norm(), grad.norm());
        let both = w.gt(0.0).logical_and(&g.gt(0.0));
        let ratio = (w * trust / g).where_self(&both, &Tensor::ones_like(&both).to_kind(grad.kind()));
        grad * ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn var(name: &str, tensor: &Tensor) -> Var {
        Var { name: name.into(), tensor: tensor.shallow_clone(), buffer: false }
    }

    #[test]
    fn the_first_step_of_a_matrix_is_as_long_as_the_trust_coefficient_says() {
        tch::manual_seed(3);
        let options = (Kind::Float, Device::Cpu);
        let (w, b) = (Tensor::randn([4, 3], options), Tensor::randn([4], options));
        let (w0, b0) = (w.copy(), b.copy());
        let mut lars = Lars::new(vec![var("w", &w), var("b", &b)], LarsConfig::PROBE);
        let g = Tensor::randn([4], options);
        lars.step(&[Tensor::randn([4, 3], options), g.shallow_clone()], 0.5);
        let moved = (&w - &w0).norm().double_value(&[]) / w0.norm().double_value(&[]);
        assert!((moved / (0.5 * 0.001) - 1.0).abs() < 1e-3, "{moved}");
        assert!((&b0 - &b - g * 0.5).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn a_zero_matrix_moves_by_its_gradient() {
        let options = (Kind::Float, Device::Cpu);
        let w = Tensor::zeros([2, 2], options);
        let mut lars = Lars::new(vec![var("w", &w)], LarsConfig::PROBE);
        lars.step(&[Tensor::ones([2, 2], options)], 0.1);
        assert!((w + 0.1).abs().max().double_value(&[]) < 1e-7);
    }
}
