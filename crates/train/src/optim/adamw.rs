use base::vars::Var;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Settings of AdamW (Loshchilov and Hutter, arXiv 1711.05101). The learning rate comes with each step.
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
    /// Which parameters decay.
    pub decay: Decay,
}

fn default_eps() -> f64 {
    1e-8
}

/// Which parameters weight decay applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Every parameter, norms, biases and codebook included (GigaTok's DDP tokenizer trainer).
    All,
    /// Tensors of two or more dimensions, embeddings included (GigaTok's and LlamaGen's AR trainers).
    Matrices,
    /// All but those whose name contains `norm` (GigaTok's FSDP trainers).
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
    step: u64,
    weight_decay: f64,
}

/// AdamW equal to `torch.optim.AdamW` (no amsgrad), in plain tensor operations, with its state in the open so
/// that it can be saved.
///
/// As in PyTorch a parameter without gradient is left alone, and its own step count does not advance.
#[derive(Debug)]
pub struct AdamW {
    slots: Vec<Slot>,
    betas: [f64; 2],
    eps: f64,
}

/// Elements of a tensor that are updated together on a CPU: parameter, gradient and both moments of one chunk
/// then stay in cache through the half-dozen operations, which makes the update about three times faster.
const CPU_CHUNK: i64 = 1 << 16;

impl AdamW {
    /// Zero moments for every parameter of every group.
    pub fn new(groups: Vec<ParamGroup>, betas: [f64; 2], eps: f64) -> Self {
        let slot = |name: String, param: Tensor, weight_decay: f64| {
            let param = param.detach();
            let (exp_avg, exp_avg_sq) = (param.zeros_like(), param.zeros_like());
            Slot { name, param, exp_avg, exp_avg_sq, step: 0, weight_decay }
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
        let one = |v: Var| ParamGroup {
            weight_decay: if config.decay.applies(&v) { config.weight_decay } else { 0.0 },
            params: vec![(v.name, v.tensor)],
        };
        Self::new(parameters.into_iter().map(one).collect(), config.betas, config.eps)
    }

    /// One update at learning rate `lr`. `grads` are in the order of the parameters; an undefined one means
    /// that the parameter took no part.
    pub fn step(&mut self, grads: &[Tensor], lr: f64) {
        assert_eq!(grads.len(), self.slots.len(), "one gradient for each parameter");
        let _guard = tch::no_grad_guard();
        for (slot, grad) in self.slots.iter_mut().zip(grads) {
            if grad.defined() {
                slot.step += 1;
                slot.update(&grad.detach(), lr, self.betas, self.eps);
            }
        }
    }

    /// State tensors under PyTorch's names: `exp_avg.NAME`, `exp_avg_sq.NAME` (shared with the optimizer) and
    /// `step.NAME` (a copy, int64).
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let of = |s: &Slot| {
            [
                (format!("exp_avg.{}", s.name), s.exp_avg.shallow_clone()),
                (format!("exp_avg_sq.{}", s.name), s.exp_avg_sq.shallow_clone()),
                (format!("step.{}", s.name), Tensor::from(s.step as i64)),
            ]
        };
        self.slots.iter().flat_map(of).collect()
    }

    /// Takes over saved state; `get` finds a tensor by the names of [`AdamW::state`]. Nothing is changed when
    /// one is missing or has another shape; its name is returned then.
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
            s.step = step.int64_value(&[]) as u64;
        }
        Ok(())
    }
}

impl Slot {
    fn update(&mut self, grad: &Tensor, lr: f64, betas: [f64; 2], eps: f64) {
        let t = self.step as i32;
        let scalars = Scalars {
            shrink: 1.0 - lr * self.weight_decay,
            betas,
            step_size: lr / (1.0 - betas[0].powi(t)),
            root_correction: (1.0 - betas[1].powi(t)).sqrt(),
            eps,
        };
        let flat = |x: &Tensor| x.view([-1]);
        let (p, g) = (flat(&self.param), flat(&grad.contiguous()));
        let (m, v) = (flat(&self.exp_avg), flat(&self.exp_avg_sq));
        let n = p.size()[0];
        let chunk = if p.device() == Device::Cpu { CPU_CHUNK } else { n.max(1) };
        for start in (0..n).step_by(chunk as usize) {
            let part = |x: &Tensor| x.narrow(0, start, chunk.min(n - start));
            scalars.apply(part(&p), &part(&g), part(&m), part(&v));
        }
    }
}

struct Scalars {
    shrink: f64,
    betas: [f64; 2],
    step_size: f64,
    root_correction: f64,
    eps: f64,
}

impl Scalars {
    /// p ← p (1 - lr wd); m ← b1 m + (1-b1) g; v ← b2 v + (1-b2) g²; p ← p - step m / (√v / correction + eps)
    fn apply(&self, mut p: Tensor, g: &Tensor, mut m: Tensor, mut v: Tensor) {
        let [b1, b2] = self.betas;
        let _ = m.lerp_(g, 1.0 - b1);
        v *= b2;
        let _ = v.addcmul_(g, &(g * (1.0 - b2)));
        if self.shrink != 1.0 {
            p *= self.shrink;
        }
        let mut denominator = v.sqrt();
        denominator *= 1.0 / self.root_correction;
        denominator += self.eps;
        let mut update = m / denominator;
        update *= -self.step_size;
        p += update;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// Values of `torch.optim.AdamW([p], lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.5)` worked out by
    /// hand: with gradient 1 at every step both bias-corrected moments are 1, so each step is
    /// `p ← p (1 - 0.05) - 0.1`.
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
    fn chunks_do_not_change_the_result_and_unused_parameters_rest() {
        let n = CPU_CHUNK + 17;
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
        let steps: Vec<i64> =
            adam.state().iter().filter(|s| s.0.starts_with("step.")).map(|s| s.1.int64_value(&[])).collect();
        assert_eq!(steps, [1, 0]);
    }
}
