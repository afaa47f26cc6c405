//! Peak rates of the machine, measured before the work; the report's shares refer to them.

use std::collections::BTreeMap;

use base::{Precision, TensorKind};
use cpu_kernels::{Format, ThreadPool, roofline};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::timing::measure;

/// A machine and its ceilings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor or GPU.
    pub device: String,
    /// CPU threads.
    pub threads: i32,
    /// Bytes a second read from memory.
    pub bandwidth: f64,
    /// Operations per second of products in each precision (of 16-bit inputs with int8 weights, in
    /// int8).
    pub arithmetic: BTreeMap<String, f64>,
}

impl Machine {
    /// Takes a few seconds.
    pub fn measure(device: Device) -> Self {
        let threads = tch::get_num_threads();
        let (bandwidth, arithmetic) = match device {
            Device::Cpu => on_cpu(&ThreadPool::new(usize::try_from(threads).unwrap_or(1))),
            device => on_gpu(device),
        };
        let name = match device {
            Device::Cpu => processor().unwrap_or_else(|| base::device::name(device)),
            device => base::device::name(device),
        };
        let tf32 = libtorch_ext::tf32::get().is_ok_and(|on| on.contains(&true));
        let name = if tf32 { format!("{name}, TF32") } else { name };
        Machine { device: name, threads, bandwidth, arithmetic }
    }

    /// Text for display.
    pub fn describe(&self) -> String {
        let rates = self.arithmetic.iter().map(|(kind, r)| format!("{kind} {:.0} GFLOP/s", r / 1e9));
        format!(
            "{}, {} threads; it reads {:.1} GB/s and computes {}",
            self.device,
            self.threads,
            self.bandwidth / 1e9,
            rates.collect::<Vec<_>>().join(", ")
        )
    }

    /// The ceiling of arithmetic in a precision.
    pub fn arithmetic(&self, precision: Precision) -> Option<f64> {
        self.arithmetic.get(&precision.to_string()).copied()
    }
}

/// Name of the processor, if Linux reports it.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
}

fn on_cpu(pool: &ThreadPool) -> (f64, BTreeMap<String, f64>) {
    let formats =
        [(Precision::Fp32, Format::F32), (Precision::Bf16, Format::Bf16), (Precision::Int8, Format::Int8)];
    let rates =
        formats.map(|(precision, format)| (precision.to_string(), roofline::arithmetic(pool, format)));
    (roofline::bandwidth(pool), rates.into())
}

/// A copy counts as read and written; the products are of 4096².
fn on_gpu(device: Device) -> (f64, BTreeMap<String, f64>) {
    let seconds = |work: &mut dyn FnMut()| {
        let measured = measure(device, 5, || {
            (0..10).for_each(|_| work());
            Ok(())
        });
        measured.map_or(f64::INFINITY, |m| m.seconds / 10.0)
    };
    let _guard = tch::no_grad_guard();
    let from = Tensor::ones([1 << 28], (Kind::Float, device));
    let mut to = from.empty_like();
    let bandwidth = 2.0 * (1u64 << 30) as f64 / seconds(&mut || to.copy_(&from));
    let kinds = [Precision::Fp32, Precision::Bf16, Precision::Fp16].map(|precision| {
        let a = Tensor::randn([4096, 4096], (Kind::Float, device)).to_kind(precision.kind());
        let rate = 2.0 * 4096f64.powi(3) / seconds(&mut || drop(a.matmul(&a)));
        (precision.to_string(), rate)
    });
    (bandwidth, kinds.into())
}
