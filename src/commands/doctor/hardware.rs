//! The processor and the GPUs.

use base::device::name;
use libtorch_ext::{CudaDriver, tf32};
use serde::Serialize;
use tch::Device;

use crate::resolve::device;

/// The processor, as libtorch uses it.
#[derive(Debug, Serialize)]
pub struct Cpu {
    pub physical_cores: usize,
    pub threads: i32,
    pub features: Vec<&'static str>,
    pub mkl: bool,
    pub mkldnn: bool,
    pub openmp: bool,
}

/// CUDA, its libraries and devices.
#[derive(Debug, Serialize)]
pub struct Cuda {
    pub available: bool,
    /// The reason if it is not available.
    pub reason: Option<String>,
    /// The CUDA version that the driver supports.
    pub driver: Option<String>,
    pub cudnn: bool,
    /// Whether fp32 products and convolutions take TF32 (`--tf32`).
    pub tf32: [bool; 2],
    pub devices: Vec<Gpu>,
}

/// A GPU.
#[derive(Debug, Serialize)]
pub struct Gpu {
    pub device: String,
    pub name: String,
    pub memory_bytes: u64,
}

impl Cpu {
    /// That of this machine.
    pub fn find() -> Self {
        Cpu {
            physical_cores: device::physical_cores(),
            threads: tch::get_num_threads(),
            features: cpu_features(),
            mkl: tch::utils::has_mkl(),
            mkldnn: tch::utils::has_mkldnn(),
            openmp: tch::utils::has_openmp(),
        }
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

impl Cuda {
    /// That of this machine.
    pub fn find() -> Self {
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

    /// One-line summary.
    pub fn text(&self) -> String {
        let driver = self
            .driver
            .as_deref()
            .map(|v| format!("driver for CUDA {v}"))
            .unwrap_or_else(|| "no driver".into());
        match &self.reason {
            None => {
                let cudnn = if self.cudnn { "present" } else { "absent" };
                let on = |on: bool| if on { "TF32" } else { "fp32" };
                let [products, convolutions] = self.tf32.map(on);
                format!(
                    "available, {driver}, cuDNN {cudnn}; fp32 products in {products}, convolutions in {convolutions}"
                )
            }
            Some(reason) => format!("not available: {reason}"),
        }
    }
}
