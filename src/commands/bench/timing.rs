//! Seconds and memory of a piece of work.

use std::time::Instant;

use anyhow::Result;
use tch::{Cuda, Device};

/// Measurements of repeated runs.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Seconds of the fastest run.
    pub seconds: f64,
    /// Processor seconds of all threads in the run that took the fewest, if the system reports
    /// them: on a shared machine they are more reliable than the clock.
    pub cpu_seconds: Option<f64>,
    /// Largest resident set since the work began, if the system reports it.
    pub peak_memory: Option<u64>,
}

/// The fastest of `repeat` runs after one that is discarded.
pub fn measure(device: Device, repeat: u32, mut work: impl FnMut() -> Result<()>) -> Result<Measured> {
    forget_peak_memory();
    let mut once = || -> Result<(f64, Option<f64>)> {
        let (started, cpu) = (Instant::now(), cpu_seconds());
        work()?;
        synchronize(device);
        let spent = cpu_seconds().zip(cpu).map(|(after, before)| after - before);
        Ok((started.elapsed().as_secs_f64(), spent))
    };
    once()?;
    let mut measured = Measured { seconds: f64::INFINITY, cpu_seconds: None, peak_memory: None };
    for _ in 0..repeat {
        let (seconds, cpu) = once()?;
        measured.seconds = measured.seconds.min(seconds);
        measured.cpu_seconds = cpu.map(|now| measured.cpu_seconds.map_or(now, |least| least.min(now)));
    }
    measured.peak_memory = peak_memory();
    Ok(measured)
}

/// Waits for what was given to a GPU.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// Lets the system's count start anew (Linux; elsewhere the peak is the process's).
fn forget_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// User and system time of this process so far, in steps of 10 ms.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let ticks: Vec<f64> =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
    (ticks.len() == 2).then(|| ticks.iter().sum::<f64>() / 100.0)
}

fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}
