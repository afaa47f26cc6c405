//! Exponential moving average of parameters.

use base::vars::Var;
use tch::Tensor;

/// A moving average of parameters: `ema ← decay · ema + (1 - decay) · parameter`, started at
/// the initial weights. Buffers are not averaged, as in the official trainers.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    slots: Vec<(String, Tensor, Tensor)>, // name, parameter, average
}

impl Ema {
    /// Starts at the current values of `parameters`.
    pub fn new(parameters: Vec<Var>, decay: f64) -> Self {
        let _guard = tch::no_grad_guard();
        let slot = |v: Var| {
            let p = v.tensor.detach();
            let average = p.copy();
            (v.name, p, average)
        };
        Ema { decay, slots: parameters.into_iter().map(slot).collect() }
    }

    /// Moves the averages towards the current parameters.
    pub fn update(&mut self) {
        let _guard = tch::no_grad_guard();
        for (_, parameter, average) in &mut self.slots {
            let _ = average.lerp_(parameter, 1.0 - self.decay);
        }
    }

    /// Exchanges parameters and averages, in place; a second call undoes it.
    pub fn swap(&mut self) {
        let _guard = tch::no_grad_guard();
        for (_, parameter, average) in &mut self.slots {
            let kept = parameter.copy();
            parameter.copy_(average);
            average.copy_(&kept);
        }
    }

    /// The averages in the order of the parameters; the tensors are shared.
    pub fn averages(&self) -> Vec<Tensor> {
        self.slots.iter().map(|(_, _, average)| average.shallow_clone()).collect()
    }

    /// Restores saved averages.
    ///
    /// # Errors
    /// Returns the name of one that is missing or has another shape.
    pub fn load_state(&mut self, get: impl Fn(&str) -> Option<Tensor>) -> Result<(), String> {
        let _guard = tch::no_grad_guard();
        for (name, _, average) in &mut self.slots {
            match get(name).filter(|t| t.size() == average.size()) {
                Some(t) => average.copy_(&t),
                None => return Err(format!("{name} {:?}", average.size())),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_slowly_and_swaps_back() {
        let p = Tensor::from_slice(&[0.0f32]);
        let var = Var { name: "p".into(), tensor: p.shallow_clone(), buffer: false };
        let mut ema = Ema::new(vec![var], 0.9);
        let mut live = p.shallow_clone();
        let _ = live.fill_(1.0);
        ema.update();
        let value = |e: &Ema| e.averages()[0].double_value(&[0]);
        assert!((value(&ema) - 0.1).abs() < 1e-7);
        ema.swap();
        assert!((p.double_value(&[0]) - 0.1).abs() < 1e-7);
        ema.swap();
        assert_eq!(p.double_value(&[0]), 1.0);
    }
}
