//! Fastest rate at which a device multiplies matrices: the reference of MFU.

use std::time::Instant;

use tch::{Cuda, Device, Kind, Tensor};

/// Shortest time of a product that is measured reliably, seconds.
const LONG_ENOUGH: f64 = 0.02;
const LARGEST: i64 = 8192;

/// FLOP/s of the fastest of a few square products in this dtype, of growing size until they take
/// 20 ms. Other work on the device makes the result smaller.
pub fn measure(device: Device, kind: Kind) -> f64 {
    let _guard = tch::no_grad_guard();
    let mut side = 256;
    loop {
        // Not zeros, which some devices multiply faster than numbers.
        let a = Tensor::ones([side, side], (Kind::Float, device)).cumsum(0, Kind::Float).sin().to_kind(kind);
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let start = Instant::now();
            let product = a.matmul(&a);
            wait(device);
            best = best.min(start.elapsed().as_secs_f64());
            drop(product);
        }
        if best >= LONG_ENOUGH || side >= LARGEST {
            return 2.0 * (side as f64).powi(3) / best;
        }
        side *= 2;
    }
}

fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_multiplies_at_some_rate() {
        let peak = measure(Device::Cpu, Kind::Float);
        assert!(peak.is_finite() && peak > 1e6, "{peak}");
    }
}
