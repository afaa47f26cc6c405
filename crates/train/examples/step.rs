//! Times optimizer steps of a transformer on random codes, for comparison with `bench/step.py`:
//! `step SIZE BATCH fp32|bf16 STEPS`, SIZE `gpt-b` or `gpt-64`. Prints the mean CPU and wall seconds of the
//! steps after the first, and the peak memory.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use ar_model::{ArConfig, Conditioning, Gpt};
use base::config::Document;
use base::{Build, Mode, Vars};
use tch::{Device, Kind, Tensor};
use train::losses::language::chunked_cross_entropy;
use train::optim::{AdamW, AdamWConfig, Decay, clip_grad_norm, global_norm};

/// The recipe of the model, whose `model` and `optimization` decide.
fn recipe(size: &str) -> &'static str {
    match size {
        "gpt-b" => include_str!("../../../configs/train/llamagen-b-256.yaml"),
        "gpt-64" => include_str!("../../../configs/train/gpt-64.yaml"),
        other => panic!("no size `{other}`; there are gpt-b and gpt-64"),
    }
}

/// User and system time of this process, seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().filter_map(|w| w.parse().ok()).collect();
    // After the name come the state, which is no number, and ten numbers before utime and stime.
    (ticks[10] + ticks[11]) / 100.0
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0) / 1024.0
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [size, batch, precision, steps] = &args[..4] else { panic!("step SIZE BATCH PRECISION STEPS") };
    let (batch, steps): (i64, usize) = (batch.parse().unwrap(), steps.parse().unwrap());
    let mut document = Document::parse(size, recipe(size)).unwrap();
    if size == "gpt-64" {
        document.set(&["model.vocab_size=1024".into(), "model.num_tokens=64".into()]).unwrap();
    }
    let json = document.to_json().unwrap()["model"].clone();
    let config = ArConfig::from_document(&Document::parse(size, &json.to_string()).unwrap()).unwrap();

    libtorch_ext::runtime::keep_freed_memory();
    tch::manual_seed(0);
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    let mut model = Gpt::new(&vars.root(), &config).unwrap();
    model.set_compute(if precision == "bf16" { Kind::BFloat16 } else { Kind::Float });
    vars.set_requires_grad(true);
    let params: Vec<Tensor> = vars.parameters().into_iter().map(|v| v.tensor).collect();
    let adamw = AdamWConfig { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.05, decay: Decay::Matrices };
    let mut optimizer = AdamW::from_config(vars.parameters(), &adamw);
    let options = (Kind::Int64, Device::Cpu);
    let codes = Tensor::randint(config.vocab_size, [batch, config.num_tokens], options);
    let cond = Conditioning::Class(Tensor::randint(1000, [batch], options));

    let mut spent = (0.0, 0.0);
    for step in 0..=steps {
        let (cpu, wall) = (cpu_seconds(), Instant::now());
        let (pass, x) = model.teacher_forced(&cond, &codes, Mode::Train);
        let x = pass.layers(x, pass.num_layers());
        let loss = chunked_cross_entropy(&pass.head_input(&x), model.output_weight(), &codes, None);
        let mut gradients = Tensor::run_backward(&[&loss], &params, false, false);
        let norm = global_norm(&gradients).double_value(&[]);
        clip_grad_norm(&mut gradients, norm, 1.0);
        optimizer.step(&gradients, 1e-4);
        if step > 0 {
            spent = (spent.0 + cpu_seconds() - cpu, spent.1 + wall.elapsed().as_secs_f64());
        }
    }
    let n = steps as f64;
    println!("cpu {:.4} wall {:.4} peak {:.0}", spent.0 / n, spent.1 / n, peak_mib());
}
