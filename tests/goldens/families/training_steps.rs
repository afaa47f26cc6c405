//! A few optimizer steps of a transformer: AdamW, clipping, moving average, learning-rate
//! schedules.

use anyhow::{Context, Result, bail};
use ar_model::Loaded;
use base::Mode;
use tch::Tensor;
use train::losses::language::cross_entropy;
use train::optim::{AdamW, AdamWConfig, Decay, clip_grad_norm, global_norm};
use train::schedule::Shape;
use train::{Ema, Schedule};

use super::gpt::{conditions, open};
use crate::check::{Check, Near, Rule, value};
use crate::run::number_after;

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    // "NAME weights": those of another golden, whose classes are used too.
    let model = check.golden.text("model")?.split(' ').next().unwrap_or("").to_owned();
    let sibling = check.golden.sibling(&model)?;
    let loaded = open(&sibling)?;
    let cond = conditions(&mut Check::new(&sibling)?, &loaded.config, true)?;
    steps(check, &loaded, &cond)?;
    schedules(check)
}

fn steps(check: &mut Check, loaded: &Loaded, cond: &ar_model::Conditioning) -> Result<()> {
    let golden = check.golden;
    loaded.vars.set_requires_grad(true);
    let config = AdamWConfig {
        betas: serde_json::from_value(golden.config("betas").clone()).context("config.betas")?,
        eps: 1e-8,
        weight_decay: golden.number("weight_decay")?,
        decay: Decay::Matrices,
    };
    let (lr, max_norm) = (golden.number("lr")?, golden.number("max_grad_norm")?);
    let mut optimizer = AdamW::from_config(loaded.vars.parameters(), &config);
    let mut ema = Ema::new(loaded.vars.parameters(), golden.number("ema_decay")?);
    let mut step = 0;
    while golden.has(&format!("step{step}.tokens")) {
        let codes = check.input(&format!("step{step}.tokens"))?;
        let loss = cross_entropy(&loaded.model.forward(cond, &codes, Mode::Train), &codes);
        check.scalar(&format!("step{step}.loss"), Near::Loss, value(&loss))?;
        loss.backward();
        let mut gradients: Vec<Tensor> = loaded.vars.parameters().iter().map(|v| v.tensor.grad()).collect();
        let norm = value(&global_norm(&gradients));
        check.scalar(&format!("step{step}.grad_norm"), Near::Loss, norm)?;
        clip_grad_norm(&mut gradients, norm, max_norm);
        optimizer.step(&gradients, lr);
        ema.update();
        loaded.vars.parameters().iter_mut().for_each(|v| v.tensor.zero_grad());
        step += 1;
        for (v, average) in loaded.vars.parameters().into_iter().zip(ema.averages()) {
            check.compare(&format!("ema{step}.{}", v.name), Rule::Values, || average)?;
            check.compare(&format!("after{step}.{}", v.name), Rule::Values, || v.tensor)?;
        }
    }
    Ok(())
}

/// "learning rate at steps 0, 10, ..., 1000: base 1e-4, warmup 50, total 1000, decay fraction 0.2,
/// end_lr 1e-5"
fn schedules(check: &mut Check) -> Result<()> {
    for name in check.golden.tensor_names() {
        let Some(kind) = name.strip_prefix("lr.") else { continue };
        let meaning = check.golden.meaning(name);
        let number = |key: &str| number_after(meaning, key);
        let shape = match kind {
            "wsd" => Shape::Wsd { decay_fraction: number("decay fraction")? },
            "cosine_v2" => Shape::Cosine { end_lr: number("end_lr")? },
            "cosine" => Shape::Cosine { end_lr: 0.0 },
            "const" => Shape::Constant,
            other => bail!("unknown schedule `{other}`"),
        };
        let schedule = Schedule {
            lr: number("base")?,
            warmup: number("warmup")? as u64,
            total: number("total")? as u64,
            shape,
            parity: false,
        };
        let stride = number("steps 0,")? as u64;
        let points = check.golden.tensor(name)?.size()[0] as u64;
        let found: Vec<f64> = (0..points).map(|i| schedule.at(i * stride)).collect();
        check.compare(name, Rule::Double, || Tensor::from_slice(&found))?;
    }
    Ok(())
}
