//! Describing devices.

use tch::Device;

/// `cpu` or `cuda:N`, as the command line spells it.
pub fn name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(n) => format!("cuda:{n}"),
        other => format!("{other:?}"),
    }
}
