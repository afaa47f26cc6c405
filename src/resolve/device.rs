//! `--device` and `--threads`.

use std::collections::BTreeSet;

use base::DeviceChoice;
use cli::DeviceArgs;
use libtorch_ext::{CudaDriver, runtime, tf32};
use settings::Launch;
use tch::Device;

use crate::error::UserError;

/// Applies `--threads` and `--tf32`, and picks the device. Must come before the first tensor: see
/// [`libtorch_ext::runtime::load_cuda`].
pub fn resolve(args: &DeviceArgs) -> anyhow::Result<Device> {
    let launch = Launch::from_env()?;
    let device = match (args.device, &launch) {
        (DeviceChoice::Cpu, _) => Device::Cpu,
        (DeviceChoice::Cuda(_), Some(_)) => return Err(one_device_for_all(args.device).into()),
        (DeviceChoice::Cuda(index), None) => cuda(index)?,
        (DeviceChoice::Auto, None) => any_cuda().unwrap_or(Device::Cpu),
        (DeviceChoice::Auto, Some(launch)) if any_cuda().is_ok() => own_gpu(launch)?,
        (DeviceChoice::Auto, Some(_)) => Device::Cpu,
    };
    set_threads(args.threads, launch.map_or(1, |launch| launch.local_world_size));
    if args.tf32 && !device.is_cuda() {
        let name = base::device::name(device);
        let error = UserError::new(format!("`--tf32` is for CUDA devices, and the device is {name}"));
        return Err(error.hint("leave it out: on the CPU fp32 is fp32").into());
    }
    tf32::set(args.tf32)?; // off, too: libtorch starts with convolutions in TF32
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

fn one_device_for_all(device: DeviceChoice) -> UserError {
    UserError::new(format!("`--device {device}` would put all processes on one GPU"))
        .hint("leave it out: each process takes the GPU of its number on its machine")
}

/// GPU of one of several processes: the one with its number on its machine, or the only one visible
/// to it.
fn own_gpu(launch: &Launch) -> anyhow::Result<Device> {
    let (rank, count) = (launch.local_rank, usize::try_from(tch::Cuda::device_count()).unwrap_or(0));
    let given = count == 1 && std::env::var_os("CUDA_VISIBLE_DEVICES").is_some();
    if rank < count {
        return Ok(Device::Cuda(rank));
    }
    if given {
        return Ok(Device::Cuda(0));
    }
    let n = launch.local_world_size;
    let error = UserError::new(format!("{n} processes run on this machine, which has {count} GPUs"));
    Err(error.hint("start as many processes as there are GPUs, or use `--device cpu`").into())
}

fn cuda(index: usize) -> anyhow::Result<Device> {
    let refuse = |e: libtorch_ext::Error| UserError::new(format!("cannot use `cuda:{index}`: {e}"));
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
    let error = UserError::new(format!("cannot use `cuda:{index}`: libtorch finds {found}"));
    Err(error.hint("`gen doctor` lists the devices").into())
}

/// Name and version of the program, for reports; marked if fp32 on a GPU is TF32, which changes the
/// figures.
pub fn program() -> String {
    let tf32 = tf32::get().is_ok_and(|on| on.contains(&true));
    format!("gen {}{}", env!("CARGO_PKG_VERSION"), if tf32 { ", TF32" } else { "" })
}

/// Sets the threads of libtorch and of the image work. Without a number: `OMP_NUM_THREADS` if it is
/// set, else this process's share of the physical cores, because two threads slow each other down
/// on one core's vector units.
fn set_threads(asked: Option<u16>, processes: usize) {
    let threads = match asked {
        Some(n) => usize::from(n),
        None if std::env::var_os("OMP_NUM_THREADS").is_some() => return,
        None => (physical_cores() / processes).max(1),
    };
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    if asked.is_some() || processes > 1 {
        // Fails only where the pool has started already, which no verb does before this.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
}

/// Number of physical cores, at most as many as this process may use: those of its affinity mask
/// (`taskset`, cpusets), and no more than its control group's quota.
pub fn physical_cores() -> usize {
    let usable = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let siblings = |cpu: usize| {
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))
            .ok()
    };
    match allowed.and_then(|list| cores_of(list, siblings)) {
        Some(cores) => cores.min(usable),
        None => usable,
    }
}

/// Number of cores of the processors in a list such as `0-3,8`; `siblings` returns the processors
/// that share a core with one.
fn cores_of(list: &str, siblings: impl Fn(usize) -> Option<String>) -> Option<usize> {
    let mut cores = BTreeSet::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        for cpu in first.parse::<usize>().ok()?..=last.parse::<usize>().ok()? {
            cores.insert(siblings(cpu)?);
        }
    }
    Some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight cores of two threads each, number n beside n + 8.
    #[test]
    fn cores_are_those_of_the_affinity_mask() {
        let siblings = |cpu: usize| (cpu < 16).then(|| format!("{},{}", cpu % 8, cpu % 8 + 8));
        for (list, cores) in
            [("0-15", 8), ("\t0-3,8-11\n", 4), ("5", 1), ("12-15", 4), ("0,8", 1), ("6-9", 4)]
        {
            assert_eq!(cores_of(list, siblings), Some(cores), "{list}");
        }
        assert_eq!(cores_of("0-16", siblings), None);
        assert_eq!(cores_of("", siblings), None);
        assert!(physical_cores() >= 1);
    }
}
