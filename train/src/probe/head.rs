use base::{Build, Init, Vars};
use nn::Linear;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

const EPS: f64 = 1e-6;
const MOMENTUM: f64 = 0.1;
/// Rows scored at a time.
const SCORED: i64 = 4096;

/// Batch norm without an affine map, then a linear layer.
#[derive(Debug)]
pub struct ProbeHead {
    vars: Vars,
    running: Option<(Tensor, Tensor)>, // (D), (D)
    linear: Linear,
}

/// Scores of a head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Share of images whose class scores highest.
    pub top1: f64,
    /// Share of images whose class is among the five highest; none with five classes or fewer.
    pub top5: Option<f64>,
    /// Cross-entropy in nats, mean over images.
    pub loss: f64,
    /// Number of images.
    pub images: usize,
}

impl ProbeHead {
    /// Initial weights from libtorch's global generator: N(0, 0.01²), biases U(±1/√D) (MAE's
    /// are 0).
    pub fn new(device: Device, width: i64, classes: i64, batch_norm: bool) -> Self {
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let p = &vars.root();
        let running = batch_norm.then(|| {
            let norm = p / "norm";
            let buffer = |name: &str, c: f64| norm.buffer(name, &[width], Kind::Float, Init::Const(c));
            (buffer("running_mean", 0.0), buffer("running_var", 1.0))
        });
        let (weight, bias) = (Init::Normal { std: 0.01 }, Init::torch_default(width));
        let linear = Linear::new(&(p / "linear"), width, classes, weight, Some(bias));
        vars.set_requires_grad(true);
        ProbeHead { vars, running, linear }
    }

    /// `norm.running_mean`, `norm.running_var`, `linear.weight`, `linear.bias`.
    pub fn vars(&self) -> &Vars {
        &self.vars
    }

    /// (B, D) → logits (B, K), normalised by the batch's statistics, which update the running
    /// ones if `track`. In a step of several batches only the first does, as process 0 does
    /// upstream.
    pub fn train(&self, x: &Tensor, track: bool) -> Tensor {
        let Some((mean, var)) = &self.running else { return self.linear.forward(x) };
        let (mean, var) = if track { (Some(mean), Some(var)) } else { (None, None) };
        self.linear.forward(&x.batch_norm(None, None, mean, var, true, MOMENTUM, EPS, false))
    }

    /// (B, D) → logits (B, K), normalised by the running statistics.
    pub fn eval(&self, x: &Tensor) -> Tensor {
        let Some((mean, var)) = &self.running else { return self.linear.forward(x) };
        let none: Option<&Tensor> = None;
        self.linear.forward(&x.batch_norm(none, none, Some(mean), Some(var), false, MOMENTUM, EPS, false))
    }

    /// Scores on features (N, D) with classes (N).
    ///
    /// # Errors
    /// Returns an error without images.
    pub fn score(&self, features: &Tensor, classes: &Tensor) -> Result<Scores> {
        let _guard = tch::no_grad_guard();
        let n = features.size()[0];
        if n == 0 {
            return Err(Error::Recipe("there are no images to score".into()));
        }
        let (mut first, mut five, mut loss, mut known) = (0, 0, 0.0, 0);
        for (x, y) in features.split(SCORED, 0).iter().zip(classes.split(SCORED, 0)) {
            let logits = self.eval(x);
            known = logits.size()[1];
            let best = logits.topk(known.min(5), 1, true, true).1; // (B, ≤5)
            let hits = best.eq_tensor(&y.unsqueeze(1));
            let count = |hits: Tensor| hits.sum(Kind::Int64).int64_value(&[]);
            first += count(hits.narrow(1, 0, 1));
            five += count(hits);
            let sum = logits.cross_entropy_loss::<Tensor>(&y, None, tch::Reduction::Sum, -100, 0.0);
            loss += sum.double_value(&[]);
        }
        let share = |count: i64| count as f64 / n as f64;
        let top5 = (known > 5).then(|| share(five));
        Ok(Scores { top1: share(first), top5, loss: loss / n as f64, images: n as usize })
    }
}
