//! `gen doctor`: the hardware, and whether it computes.

mod computations;
mod hardware;
mod self_test;

use base::device::name;
use cli::doctor::DoctorArgs;
use generate::locate;
use libtorch_ext::runtime;
use serde::Serialize;

use self::hardware::{Cpu, Cuda};
use self::self_test::{Check, self_test};
use crate::context::{self, Context, ExitStatus};
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

/// Reports, and ends with [`ExitStatus::Incomplete`] when the self-test fails.
pub fn run(args: &DoctorArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let chosen = device::resolve(&args.device)?;
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        libtorch: runtime::libtorch_version()?,
        cpu: Cpu::find(),
        cuda: Cuda::find(),
        device: name(chosen),
        models: locate::bundled(),
        model_search_path: locate::search_path().iter().map(|p| p.display().to_string()).collect(),
        self_test: self_test(chosen),
    };
    let healthy = report.self_test.iter().all(|check| check.passed);
    context.finish(&report, args.json.json, healthy)
}

impl context::Report for Report {
    fn text(&self) -> String {
        let cpu = &self.cpu;
        let have = [("MKL", cpu.mkl), ("oneDNN", cpu.mkldnn), ("OpenMP", cpu.openmp)];
        let have: Vec<&str> = have.iter().filter(|(_, here)| *here).map(|(n, _)| *n).collect();
        let mut lines = vec![
            format!("gen       {}", self.version),
            format!("libtorch  {} with {}", self.libtorch, have.join(", ")),
            format!(
                "cpu       {} physical cores, {} threads; {}",
                cpu.physical_cores,
                cpu.threads,
                cpu.features.join(" ")
            ),
            format!("cuda      {}", self.cuda.text()),
        ];
        for gpu in &self.cuda.devices {
            let gib = gpu.memory_bytes as f64 / f64::from(1 << 30);
            lines.push(format!("          {}: {}, {gib:.1} GiB", gpu.device, gpu.name));
        }
        lines.push(format!("device    {}", self.device));
        let models = match self.models.is_empty() {
            true => format!("none in {}", self.model_search_path.join(", ")),
            false => self.models.join(", "),
        };
        lines.push(format!("models    {models}"));
        lines.push("self-test".to_owned());
        for check in &self.self_test {
            let verdict = if check.passed { "ok    " } else { "FAILED" };
            lines.push(format!("  {verdict}  {} on {} ({})", check.name, check.device, check.detail));
        }
        lines.join("\n")
    }
}
