use base::vars::Var;
use libtorch_ext::fused::AdamWLists;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Settings of AdamW (Loshchilov and Hutter, arXiv 1711.05101). The learning rate comes with each
/// step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled weight decay, as a factor of the learning rate.
    pub weight_decay: f64,
    /// Parameters that decay.
    pub decay: Decay,
}

impl AdamWConfig {
    /// Rejects the values that `torch.optim.AdamW` rejects.
    ///
    /// # Errors
    /// Returns an error that names the number out of its range.
    pub fn check(&self) -> Result<()> {
        let [first, second] = self.betas;
        let beta = |b: &f64| (0.0..1.0).contains(b);
        let positive = |x: &f64| x.is_finite() && *x >= 0.0;
        let numbers = [
            ("betas[0]", first, beta(&first), "in [0, 1)"),
            ("betas[1]", second, beta(&second), "in [0, 1)"),
            ("eps", self.eps, positive(&self.eps), "0 or more"),
            ("weight_decay", self.weight_decay, positive(&self.weight_decay), "0 or more"),
        ];
        match numbers.into_iter().find(|(_, _, good, _)| !good) {
            None => Ok(()),
            Some((name, found, _, expected)) => {
                Err(Error::Recipe(format!("optimization.adamw: {name} must be {expected}, found {found}")))
            }
        }
    }
}

fn default_eps() -> f64 {
    1e-8
}

/// Parameters that weight decay applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Every parameter, norms, biases and codebook included (GigaTok's DDP tokenizer trainer).
    All,
    /// Tensors of two or more dimensions, embeddings included (GigaTok's and LlamaGen's AR
    /// trainers).
    Matrices,
    /// All except those whose name contains `norm` (GigaTok's FSDP trainers).
    NotNorms,
}

impl Decay {
    fn applies(self, var: &Var) -> bool {
        match self {
            Decay::All => true,
            Decay::Matrices => var.tensor.dim() >= 2,
            Decay::NotNorms => !var.name.contains("norm"),
        }
    }
}

/// Parameters that share a weight decay.
#[derive(Debug)]
pub struct ParamGroup {
    /// The parameters, by name; the tensors are shared with the model.
    pub params: Vec<(String, Tensor)>,
    /// Their weight decay.
    pub weight_decay: f64,
}

#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    /// Updates so far, fp32 on the parameter's device as libtorch expects it (exact up to 16
    /// million).
    step: Tensor,
    weight_decay: f64,
}

/// AdamW equal to `torch.optim.AdamW` (no amsgrad), by libtorch's fused kernel, with a state that
/// can be saved.
///
/// As in PyTorch, a parameter without gradient does not change, and its step count does not
/// advance.
#[derive(Debug)]
pub struct AdamW {
    slots: Vec<Slot>,
    betas: [f64; 2],
    eps: f64,
}

impl AdamW {
    /// Zero moments for every parameter of every group.
    pub fn new(groups: Vec<ParamGroup>, betas: [f64; 2], eps: f64) -> Self {
        let slot = |name: String, param: Tensor, weight_decay: f64| {
            let param = param.detach();
            let (exp_avg, exp_avg_sq) = (param.zeros_like(), param.zeros_like());
            let step = Tensor::zeros([], (Kind::Float, param.device()));
            Slot { name, param, exp_avg, exp_avg_sq, step, weight_decay }
        };
        let slots = groups
            .into_iter()
            .flat_map(|g| g.params.into_iter().map(move |(n, p)| (n, p, g.weight_decay)))
            .map(|(n, p, wd)| slot(n, p, wd))
            .collect();
        AdamW { slots, betas, eps }
    }

    /// An optimizer of `parameters`, in their order, with the decay rule of `config`.
    pub fn from_config(parameters: Vec<Var>, config: &AdamWConfig) -> Self {
        let whole = |v: Var| (v.shallow_clone(), v.tensor);
        Self::of_pieces(parameters.into_iter().map(whole).collect(), config)
    }

    /// An optimizer of pieces of parameters, which decay as the whole ones do.
    pub fn of_pieces(pieces: Vec<(Var, Tensor)>, config: &AdamWConfig) -> Self {
        let one = |(v, piece): (Var, Tensor)| ParamGroup {
            weight_decay: if config.decay.applies(&v) { config.weight_decay } else { 0.0 },
            params: vec![(v.name, piece)],
        };
        Self::new(pieces.into_iter().map(one).collect(), config.betas, config.eps)
    }

    /// One update at learning rate `lr`. `grads` are in the order of the parameters; a parameter
    /// with an undefined one does not change.
    pub fn step(&mut self, grads: &[Tensor], lr: f64) {
        assert_eq!(grads.len(), self.slots.len(), "one gradient for each parameter");
        let _guard = tch::no_grad_guard();
        // Parameters of equal decay in one call.
        let mut groups: Vec<(f64, AdamWLists)> = Vec::new();
        for (slot, grad) in self.slots.iter_mut().zip(grads).filter(|(_, grad)| grad.defined()) {
            slot.step += 1;
            let at = groups.iter().position(|(decay, _)| *decay == slot.weight_decay).unwrap_or_else(|| {
                groups.push((slot.weight_decay, AdamWLists::default()));
                groups.len() - 1
            });
            slot.list(grad, &mut groups[at].1);
        }
        for (decay, lists) in groups {
            lists.update(lr, self.betas, decay, self.eps);
        }
    }

    /// First and second moments, in the order of the parameters; shared with the optimizer.
    pub fn moments(&self) -> [Vec<Tensor>; 2] {
        let all = |of: fn(&Slot) -> &Tensor| self.slots.iter().map(|s| of(s).shallow_clone()).collect();
        [all(|s| &s.exp_avg), all(|s| &s.exp_avg_sq)]
    }

    /// Number of updates of each parameter.
    pub fn steps(&self) -> Vec<i64> {
        self.slots.iter().map(|s| s.step.double_value(&[]) as i64).collect()
    }

    /// Restores saved state; `get` finds a tensor by PyTorch's names: `exp_avg.NAME`,
    /// `exp_avg_sq.NAME`, and `step.NAME`, a scalar.
    ///
    /// # Errors
    /// Returns the name of a tensor that is missing or has another shape; nothing is changed then.
    pub fn load_state(&mut self, get: impl Fn(&str) -> Option<Tensor>) -> Result<(), String> {
        let _guard = tch::no_grad_guard();
        let find = |name: String, shape: &[i64]| {
            get(&name).filter(|t| t.size() == shape).ok_or_else(|| format!("{name} {shape:?}"))
        };
        let mut found = Vec::with_capacity(self.slots.len());
        for s in &self.slots {
            let shape = s.param.size();
            let first = find(format!("exp_avg.{}", s.name), &shape)?;
            let second = find(format!("exp_avg_sq.{}", s.name), &shape)?;
            found.push((first, second, find(format!("step.{}", s.name), &[])?));
        }
        for (s, (first, second, step)) in self.slots.iter_mut().zip(found) {
            s.exp_avg.copy_(&first);
            s.exp_avg_sq.copy_(&second);
            s.step.copy_(&step);
        }
        Ok(())
    }
}

impl Slot {
    fn list(&self, grad: &Tensor, lists: &mut AdamWLists) {
        lists.params.push(self.param.shallow_clone());
        lists.grads.push(grad.detach().contiguous());
        lists.exp_avg.push(self.exp_avg.shallow_clone());
        lists.exp_avg_sq.push(self.exp_avg_sq.shallow_clone());
        lists.steps.push(self.step.shallow_clone());
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Values of `torch.optim.AdamW([p], lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.5)`
    /// worked out by hand: with gradient 1 at every step both bias-corrected moments are 1, so each
    /// step is `p ← p (1 - 0.05) - 0.1`.
    #[test]
    fn a_constant_gradient_moves_by_the_learning_rate_after_decay() {
        let p = Tensor::from_slice(&[2.0f32, -1.0]);
        let group = ParamGroup { params: vec![("p".into(), p.shallow_clone())], weight_decay: 0.5 };
        let mut adam = AdamW::new(vec![group], [0.9, 0.95], 1e-8);
        let (mut a, mut b) = (2.0f64, -1.0f64);
        for _ in 0..5 {
            adam.step(&[Tensor::ones([2], (Kind::Float, Device::Cpu))], 0.1);
            (a, b) = (a * 0.95 - 0.1, b * 0.95 - 0.1);
        }
        assert!((p.double_value(&[0]) - a).abs() < 1e-6 && (p.double_value(&[1]) - b).abs() < 1e-6);
    }

    #[test]
    fn parameters_without_gradient_rest() {
        let n = 1017;
        let (p, q) =
            (Tensor::randn([n], (Kind::Float, Device::Cpu)), Tensor::ones([3], (Kind::Float, Device::Cpu)));
        // No gradient is so small that eps matters.
        let (start, r) = (p.copy(), Tensor::randn([n], (Kind::Float, Device::Cpu)));
        let g = r.sign() + &r;
        let params = vec![("p".into(), p.shallow_clone()), ("q".into(), q.shallow_clone())];
        let mut adam = AdamW::new(vec![ParamGroup { params, weight_decay: 0.1 }], [0.9, 0.95], 1e-8);
        adam.step(&[g.shallow_clone(), Tensor::new()], 0.01);
        let expected = start * (1.0 - 0.001) - g.sign() * 0.01;
        assert!((p - expected).abs().max().double_value(&[]) < 1e-6);
        assert_eq!(q, Tensor::ones([3], (Kind::Float, Device::Cpu)));
        assert_eq!(adam.steps(), [1, 0]);
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        let good = AdamWConfig { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, decay: Decay::All };
        good.check().unwrap();
        let bad = [
            (AdamWConfig { betas: [1.0, 0.95], ..good }, "betas[0]"),
            (AdamWConfig { betas: [0.9, -0.1], ..good }, "betas[1]"),
            (AdamWConfig { betas: [0.9, f64::NAN], ..good }, "betas[1]"),
            (AdamWConfig { eps: -1e-8, ..good }, "eps"),
            (AdamWConfig { weight_decay: f64::INFINITY, ..good }, "weight_decay"),
        ];
        for (config, name) in bad {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}
