//! Number of slots that fit into memory.

use ar_model::{ArConfig, AutoregressiveModel as _, Decoder};
use tch::Device;

/// Most slots on the CPU, whose steps get no faster by image beyond.
const MOST_ON_CPU: u64 = 64;
/// Most slots on a GPU.
const MOST_ON_GPU: u64 = 256;
/// Slots where the free memory is not known.
const UNKNOWN: u64 = 8;

/// Slots that half of the free memory holds, at least one: two rows of keys and values each, and
/// the activations of their prefill.
pub(crate) fn slots(model: &Decoder, device: Device) -> usize {
    let row = model.new_cache(1).bytes() + activations(model.config());
    let most = if device == Device::Cpu { MOST_ON_CPU } else { MOST_ON_GPU };
    let fit = base::device::memory(device).map_or(UNKNOWN, |free| free / 2 / (2 * row));
    fit.clamp(1, most) as usize
}

/// Bytes of a row's activations in fp32: a few tensors of each width are alive at a time.
fn activations(config: &ArConfig) -> u64 {
    let width = 8 * config.width + 3 * config.feed_forward_width();
    let numbers = width * config.conditioning.prefix_len() + 4 * config.vocab_size;
    4 * u64::try_from(numbers).unwrap_or(0)
}
