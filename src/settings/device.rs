//! `--device` and `--threads`.

use std::collections::HashSet;

use base::DeviceChoice;
use cli::DeviceArgs;
use libtorch_ext::{CudaDriver, cuda_graph, runtime};
use tch::Device;

use crate::failure::Failure;

/// Applies `--threads` and picks the device. Must come before the first tensor: see
/// [`libtorch_ext::runtime::load_cuda`].
pub fn resolve(args: &DeviceArgs) -> anyhow::Result<Device> {
    let device = match args.device {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Cuda(index) => cuda(index)?,
        DeviceChoice::Auto => any_cuda().unwrap_or(Device::Cpu),
    };
    set_threads(args.threads);
    Ok(device)
}

/// The first GPU, or why there is none. Opens libtorch's CUDA half only where a driver sees a GPU.
pub fn any_cuda() -> Result<Device, String> {
    let driver = CudaDriver::open().map_err(|e| e.to_string())?;
    let devices = driver.devices().map_err(|e| e.to_string())?;
    if devices.is_empty() {
        return Err("the CUDA driver sees no GPU".into());
    }
    runtime::load_cuda().map_err(|e| e.to_string())?;
    match tch::Cuda::device_count() {
        0 => Err("libtorch finds no GPU that it can use".into()),
        _ => Ok(Device::Cuda(0)),
    }
}

fn cuda(index: usize) -> anyhow::Result<Device> {
    let refuse = |e: libtorch_ext::Error| Failure::new(format!("cannot use `cuda:{index}`: {e}"));
    CudaDriver::open().map_err(|e| {
        refuse(e).hint("CUDA needs an NVIDIA GPU and its driver; `--device cpu` works everywhere")
    })?;
    runtime::load_cuda().map_err(|e| {
        refuse(e)
            .hint("`make libtorch CUDA=1` installs libtorch with its CUDA libraries")
            .hint("or let LD_LIBRARY_PATH name the `torch/lib` of a PyTorch 2.11 with CUDA")
    })?;
    let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if index < count {
        return Ok(Device::Cuda(index));
    }
    let found = match count {
        0 => "no GPU that it can use".to_owned(),
        1 => "only `cuda:0`".to_owned(),
        n => format!("only `cuda:0` to `cuda:{}`", n - 1),
    };
    let failure = Failure::new(format!("cannot use `cuda:{index}`: libtorch finds {found}"));
    Err(failure.hint("`gen doctor` lists the devices").into())
}

/// Refuses `--cuda-graph` where no graph can be recorded.
pub fn check_cuda_graphs(device: Device) -> anyhow::Result<()> {
    if !device.is_cuda() {
        let name = base::device::name(device);
        let failure = Failure::new(format!("`--cuda-graph` is for CUDA devices, and the device is {name}"));
        return Err(failure.hint("leave it out: on the CPU there are no launches to save").into());
    }
    if !cuda_graph::built_in() {
        let failure =
            Failure::new("this program was built without CUDA graphs, as headers of CUDA were missing");
        return Err(failure.hint("`make libtorch` installs them; build `gen` again after it").into());
    }
    Ok(())
}

/// Bytes of memory that a device has to offer: all of a GPU's, what is available of the machine's within the limit of
/// this process's control group.
pub fn memory(device: Device) -> Option<u64> {
    if let Device::Cuda(index) = device {
        return Some(CudaDriver::open().ok()?.devices().ok()?.get(index)?.memory);
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let free = line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024;
    let number = |name: &str| {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok()
    };
    let limit = number("memory.max").map(|max| max.saturating_sub(number("memory.current").unwrap_or(0)));
    Some(limit.map_or(free, |limit| limit.min(free)))
}

/// Sets the threads of libtorch and of the image work. Without a number: `OMP_NUM_THREADS` where it is set,
/// else the physical cores, because two threads on one core's vector units only get in each other's way.
fn set_threads(asked: Option<u16>) {
    let threads = match asked {
        Some(n) => usize::from(n),
        None if std::env::var_os("OMP_NUM_THREADS").is_some() => return,
        None => physical_cores(),
    };
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    if asked.is_some() {
        // Fails only where the pool has started already, which no verb does before this.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
}

/// Physical cores, but no more than this process may use (affinity and cgroup limits).
pub fn physical_cores() -> usize {
    let usable = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let siblings: HashSet<String> = (0..usable)
        .map_while(|cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            std::fs::read_to_string(path).ok()
        })
        .collect();
    if siblings.is_empty() { usable } else { siblings.len() }
}
