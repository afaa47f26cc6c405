//! Spectral norm (Miyato et al., arXiv 1802.05957).

use base::carried::{self, Change};
use base::{Init, Mode, Scope};
use tch::{Kind, Tensor};

/// A convolution's weight under `torch.nn.utils.spectral_norm`: one power iteration in each
/// training pass; the weight is divided by its estimated largest singular value, through which
/// gradients flow with both singular vectors held constant. The vectors are buffers.
#[derive(Debug)]
pub(super) struct SpectralWeight {
    weight: Tensor, // (out, in, …)
    u: Tensor,      // (out)
    v: Tensor,      // (in · …)
}

impl SpectralWeight {
    /// Variable `weight_orig` (out, in, …) with PyTorch's default initialisation; buffers
    /// `weight_u` and `weight_v`.
    pub fn new(p: &Scope, shape: &[i64]) -> Self {
        let fan_in = shape[1..].iter().product();
        let vector = |name: &str, n: i64| {
            let mut t = p.buffer(name, &[n], Kind::Float, Init::Normal { std: 1.0 });
            if p.vars().is_random() {
                t.copy_(&unit(&t));
            }
            t
        };
        SpectralWeight {
            weight: p.var("weight_orig", shape, Init::torch_default(fan_in)),
            u: vector("weight_u", shape[0]),
            v: vector("weight_v", fan_in),
        }
    }

    /// The weight divided by its estimated largest singular value.
    pub fn normalized(&self, mode: Mode) -> Tensor {
        let matrix = self.weight.flatten(1, -1); // (out, in · …)
        if mode.is_train() {
            self.iterate(&matrix.detach());
        }
        // Copies, since the next pass changes the vectors before this one's gradient is computed.
        let (u, v) = (carried::value(&self.u).copy(), carried::value(&self.v).copy());
        &self.weight / u.dot(&matrix.mv(&v))
    }

    fn iterate(&self, matrix: &Tensor) {
        let v = unit(&matrix.tr().mv(&carried::value(&self.u)));
        carried::change(&self.u, Change::Set(unit(&matrix.mv(&v))));
        carried::change(&self.v, Change::Set(v));
    }
}

/// A vector divided by its length.
fn unit(v: &Tensor) -> Tensor {
    v / v.norm().clamp_min(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Build, Vars};
    use tch::Device;

    #[test]
    fn iterated_weights_have_norm_one() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let weight = SpectralWeight::new(&vars.root(), &[6, 5, 2, 2]);
        let norm = |mode| {
            let matrix = weight.normalized(mode).flatten(1, -1);
            let (_, values, _) = matrix.svd(true, false);
            values.max().double_value(&[])
        };
        for _ in 0..100 {
            norm(Mode::Train);
        }
        assert!((norm(Mode::Eval) - 1.0).abs() < 1e-3);
    }
}
