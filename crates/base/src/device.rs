//! Describing devices.

use libtorch_ext::CudaDriver;
use tch::Device;

/// `cpu` or `cuda:N`, as the command line spells it.
pub fn name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(n) => format!("cuda:{n}"),
        other => format!("{other:?}"),
    }
}

/// Bytes of memory of a device: all of a GPU's; for a CPU, the machine's available memory within
/// the limit of this process's control group.
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
