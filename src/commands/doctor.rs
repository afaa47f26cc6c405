//! `gen doctor`: what there is to compute with, and whether it computes.

use std::time::Instant;

use ar_model::{ArConfig, AutoregressiveModel, Conditioning, Gpt};
use base::config::Document;
use base::device::name;
use base::{Build, Precision, Vars};
use cli::doctor::DoctorArgs;
use generate::locate;
use libtorch_ext::cuda_graph::{self, CudaGraphs};
use libtorch_ext::{CudaDriver, runtime, tf32};
use serde::Serialize;
use settings::GpuOptions;
use tch::{Device, Kind, Tensor};

use crate::context::{Context, Outcome};
use crate::resolve::device;

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    libtorch: String,
    cpu: Cpu,
    cuda: Cuda,
    device: String,
    models: Vec<String>,
    model_search_path: Vec<String>,
    self_test: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Cpu {
    physical_cores: usize,
    threads: i32,
    features: Vec<&'static str>,
    mkl: bool,
    mkldnn: bool,
    openmp: bool,
}

#[derive(Debug, Serialize)]
struct Cuda {
    available: bool,
    /// Why not, where it is not.
    reason: Option<String>,
    /// The CUDA version that the driver supports.
    driver: Option<String>,
    cudnn: bool,
    /// Whether fp32 products and convolutions take TF32 (`--tf32`).
    tf32: [bool; 2],
    devices: Vec<Gpu>,
}

#[derive(Debug, Serialize)]
struct Gpu {
    device: String,
    name: String,
    memory_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    device: String,
    passed: bool,
    detail: String,
}

/// Reports, and ends with [`Outcome::Incomplete`] when the self-test fails.
pub fn run(args: &DoctorArgs, context: &Context) -> anyhow::Result<Outcome> {
    let chosen = device::resolve(&args.device)?;
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        libtorch: runtime::libtorch_version()?,
        cpu: cpu(),
        cuda: cuda(),
        device: name(chosen),
        models: locate::bundled(),
        model_search_path: locate::search_path().iter().map(|p| p.display().to_string()).collect(),
        self_test: self_test(chosen),
    };
    if args.json.json {
        context.printer.json(&report)?;
    } else {
        context.printer.line(&text(&report))?;
    }
    let healthy = report.self_test.iter().all(|check| check.passed);
    Ok(if healthy { Outcome::Done } else { Outcome::Incomplete })
}

fn cpu() -> Cpu {
    Cpu {
        physical_cores: device::physical_cores(),
        threads: tch::get_num_threads(),
        features: cpu_features(),
        mkl: tch::utils::has_mkl(),
        mkldnn: tch::utils::has_mkldnn(),
        openmp: tch::utils::has_openmp(),
    }
}

/// The vector extensions that decide how fast libtorch is here.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    macro_rules! present {
        ($($feature:tt),*) => {
            [$(($feature, std::is_x86_feature_detected!($feature))),*]
        };
    }
    let all = present!("avx2", "fma", "avx512f", "avx512vnni", "avx512bf16");
    all.iter().filter(|(_, here)| *here).map(|(feature, _)| *feature).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<&'static str> {
    vec![]
}

fn cuda() -> Cuda {
    let found = device::any_cuda();
    let driver = CudaDriver::open().ok();
    let version = driver.as_ref().and_then(|d| d.version().ok());
    let devices = driver.and_then(|d| d.devices().ok()).unwrap_or_default();
    let gpu = |(i, d): (usize, libtorch_ext::CudaDevice)| Gpu {
        device: name(Device::Cuda(i)),
        name: d.name,
        memory_bytes: d.memory,
    };
    Cuda {
        available: found.is_ok(),
        cudnn: found.is_ok() && tch::Cuda::cudnn_is_available(),
        tf32: tf32::get().unwrap_or_default(),
        reason: found.err(),
        driver: version.map(|(major, minor)| format!("{major}.{minor}")),
        devices: devices.into_iter().enumerate().map(gpu).collect(),
    }
}

fn self_test(chosen: Device) -> Vec<Check> {
    let mut checks = vec![];
    for device in [Some(Device::Cpu), chosen.is_cuda().then_some(chosen)].into_iter().flatten() {
        checks.push(check("matmul fp32", device, 1e-4, |d| matmul(d, Kind::Float)));
        checks.push(check("matmul bf16", device, 0.1, |d| matmul(d, Kind::BFloat16)));
        checks.push(check("attention", device, 1e-5, attention));
        checks.push(check("convolution", device, 1e-4, convolution));
    }
    if chosen.is_cuda() && cuda_graph::built_in() {
        checks.push(check("CUDA graph", chosen, 1e-6, graph));
        checks.push(check("kernels of its own", chosen, 0.05, kernels));
    }
    checks
}

/// Runs one computation twice, on `device` and in float64 by another way, and compares.
fn check(name_: &'static str, device: Device, tolerance: f64, error: fn(Device) -> f64) -> Check {
    let started = Instant::now();
    let outcome = std::panic::catch_unwind(|| error(device));
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let (passed, detail) = match outcome {
        Ok(error) => {
            (error <= tolerance, format!("largest error {error:.1e}, allowed {tolerance:.0e}, {ms:.1} ms"))
        }
        Err(_) => (false, "libtorch refused the computation".to_owned()),
    };
    Check { name: name_, device: name(device), passed, detail }
}

/// Values in [-1, 1] that need no random generator.
fn values(shape: &[i64], phase: f64) -> Tensor {
    let n = shape.iter().product::<i64>();
    (Tensor::arange(n, (Kind::Double, Device::Cpu)) * 0.7 + phase).sin().view(shape)
}

fn largest_error(found: &Tensor, expected: &Tensor) -> f64 {
    let found = found.to_device(Device::Cpu).to_kind(Kind::Double);
    (found - expected).abs().max().double_value(&[])
}

fn matmul(device: Device, kind: Kind) -> f64 {
    let (a, b) = (values(&[48, 64], 0.1), values(&[64, 32], 0.2));
    let found = a.to_kind(kind).to_device(device).matmul(&b.to_kind(kind).to_device(device));
    let products = a.unsqueeze(2) * b.unsqueeze(0); // (48, 64, 32)
    largest_error(&found, &products.sum_dim_intlist([1i64].as_slice(), false, Kind::Double))
}

fn attention(device: Device) -> f64 {
    let [q, k, v] = [0.1, 0.2, 0.3].map(|phase| values(&[1, 2, 16, 8], phase));
    let on = |t: &Tensor| t.to_kind(Kind::Float).to_device(device);
    let found = Tensor::scaled_dot_product_attention(
        &on(&q),
        &on(&k),
        &on(&v),
        None::<&Tensor>,
        0.0,
        true,
        None,
        false,
    );
    let future = Tensor::ones([16, 16], (Kind::Bool, Device::Cpu)).triu(1);
    let scores = q.matmul(&k.transpose(2, 3)) / 8f64.sqrt();
    let weights = scores.masked_fill(&future, f64::NEG_INFINITY).softmax(3, Kind::Double);
    largest_error(&found, &weights.matmul(&v))
}

fn convolution(device: Device) -> f64 {
    let (x, w) = (values(&[1, 4, 10, 10], 0.1), values(&[6, 4, 3, 3], 0.2));
    let on = |t: &Tensor| t.to_kind(Kind::Float).to_device(device);
    let found = on(&x).conv2d(&on(&w), None::<&Tensor>, 1, 0, 1, 1);
    let columns = x.unfold(2, 3, 1).unfold(3, 3, 1); // (1, 4, 8, 8, 3, 3)
    let products = columns.unsqueeze(1) * w.view([1i64, 6, 4, 1, 1, 3, 3].as_slice());
    largest_error(&found, &products.sum_dim_intlist([2i64, 5, 6].as_slice(), false, Kind::Double))
}

/// Records `y = 2x + 1` and replays it on another x.
fn graph(device: Device) -> f64 {
    let Device::Cuda(index) = device else { return f64::INFINITY };
    let (x, y) = (values(&[64], 0.1).to_device(device), values(&[64], 0.0).to_device(device));
    let second = values(&[64], 0.2);
    let work = || y.shallow_clone().copy_(&(&x * 2.0 + 1.0));
    let replayed = CudaGraphs::open(index).and_then(|graphs| {
        graphs.on_stream(|stream| {
            work();
            let graph = stream.capture(work)?;
            x.shallow_clone().copy_(&second);
            stream.replay(&graph)
        })
    });
    replayed.map_or(f64::INFINITY, |()| largest_error(&y, &(second * 2.0 + 1.0)))
}

/// Logits of a small transformer by the kernels for a GPU, with weights and cache of 8 bits, beside libtorch's in fp32: the
/// largest error as a share of the largest logit.
fn kernels(device: Device) -> f64 {
    let error = || -> anyhow::Result<f64> {
        let text = "{type: gpt, width: 128, layers: 2, heads: 2, vocab_size: 64, num_tokens: 16, position: rope_2d, \
                    conditioning: {type: class, num_classes: 4}}";
        let config = ArConfig::from_document(&Document::parse("self-test", text)?)?;
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let gpt = Gpt::new(&vars.root(), &config)?;
        tch::no_grad(|| {
            for (i, mut var) in vars.all().into_iter().enumerate() {
                var.tensor.copy_(&(values(&var.tensor.size(), i as f64) * 0.2));
            }
        });
        let codes = Tensor::arange(16, (Kind::Int64, device)).view([1, 16]);
        let cond = Conditioning::Class(codes.narrow(1, 3, 1).view(-1));
        let expected = gpt.logits(&cond, &codes).to_device(Device::Cpu).to_kind(Kind::Double);
        let flags = GpuOptions { gpu_kernels: true, int8_cache: true };
        let decoder = generate::decoder(gpt, device, Precision::Int8, flags)?;
        let mut cache = decoder.new_cache(1);
        let mut found = vec![decoder.prefill(&cond, &mut cache)];
        found.extend((0..15).map(|t| decoder.decode_step(&codes.narrow(1, t, 1), 1 + t, &mut cache)));
        let found = Tensor::stack(&found, 1);
        Ok(largest_error(&found, &expected) / expected.abs().max().double_value(&[]))
    };
    error().unwrap_or(f64::INFINITY)
}

fn text(report: &Report) -> String {
    let cpu = &report.cpu;
    let have = [("MKL", cpu.mkl), ("oneDNN", cpu.mkldnn), ("OpenMP", cpu.openmp)];
    let have: Vec<&str> = have.iter().filter(|(_, here)| *here).map(|(n, _)| *n).collect();
    let mut lines = vec![
        format!("gen       {}", report.version),
        format!("libtorch  {} with {}", report.libtorch, have.join(", ")),
        format!(
            "cpu       {} physical cores, {} threads; {}",
            cpu.physical_cores,
            cpu.threads,
            cpu.features.join(" ")
        ),
        format!("cuda      {}", cuda_text(&report.cuda)),
    ];
    for gpu in &report.cuda.devices {
        let gib = gpu.memory_bytes as f64 / f64::from(1 << 30);
        lines.push(format!("          {}: {}, {gib:.1} GiB", gpu.device, gpu.name));
    }
    lines.push(format!("device    {}", report.device));
    let models = match report.models.is_empty() {
        true => format!("none in {}", report.model_search_path.join(", ")),
        false => report.models.join(", "),
    };
    lines.push(format!("models    {models}"));
    lines.push("self-test".to_owned());
    for check in &report.self_test {
        let verdict = if check.passed { "ok    " } else { "FAILED" };
        lines.push(format!("  {verdict}  {} on {} ({})", check.name, check.device, check.detail));
    }
    lines.join("\n")
}

fn cuda_text(cuda: &Cuda) -> String {
    let driver =
        cuda.driver.as_deref().map(|v| format!("driver for CUDA {v}")).unwrap_or_else(|| "no driver".into());
    match &cuda.reason {
        None => {
            let cudnn = if cuda.cudnn { "present" } else { "absent" };
            let on = |on: bool| if on { "TF32" } else { "fp32" };
            let [products, convolutions] = cuda.tf32.map(on);
            format!(
                "available, {driver}, cuDNN {cudnn}; fp32 products in {products}, convolutions in {convolutions}"
            )
        }
        Some(reason) => format!("not available: {reason}"),
    }
}
