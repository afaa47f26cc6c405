//! Computations on a device, compared with float64 on the CPU.

use std::time::Instant;

use base::device::name;
use libtorch_ext::cuda_graph;
use serde::Serialize;
use tch::{Device, Kind};

use super::computations::{attention, convolution, graph, kernels, matmul};

/// One computation and its verdict.
#[derive(Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub device: String,
    pub passed: bool,
    pub detail: String,
}

/// Runs all computations on the CPU, and on `chosen` if it is a GPU.
pub fn self_test(chosen: Device) -> Vec<Check> {
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
