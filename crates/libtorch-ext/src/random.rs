//! Random numbers for training, from libtorch's global generator, or on the CPU from a thread-local
//! one ([`seeded`]), whose numbers do not depend on other threads. Both give the same numbers after
//! the same seed.

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::fused::{checked, made};

unsafe extern "C" {
    fn ext_random_begin(seed: i64) -> *mut c_char;
    fn ext_random_end();
    fn ext_random_seed(seed: i64) -> bool;
    fn ext_random_uniform(out: *mut *mut C_tensor, shape: *const i64, axes: usize, wide: bool)
    -> *mut c_char;
    fn ext_random_integer(out: *mut i64) -> *mut c_char;
    fn ext_random_dropout(out: *mut *mut C_tensor, x: *const C_tensor, p: f64) -> *mut c_char;
}

/// Runs `work` with a fresh seed: on the CPU with a generator of this thread for the duration of
/// the call; on a GPU with the global ones. Calls must not be nested.
pub fn seeded<R>(device: Device, seed: i64, work: impl FnOnce() -> R) -> R {
    struct Own;
    impl Drop for Own {
        fn drop(&mut self) {
            // SAFETY: drops this thread's generator.
            unsafe { ext_random_end() }
        }
    }
    if device != Device::Cpu {
        tch::manual_seed(seed);
        return work();
    }
    // SAFETY: creates a generator for this thread.
    checked(unsafe { ext_random_begin(seed) });
    let _own = Own;
    work()
}

/// Seeds the thread's generator within [`seeded`], the global ones otherwise.
pub fn seed(seed: i64) {
    // SAFETY: accesses this thread's generator only.
    if !unsafe { ext_random_seed(seed) } {
        tch::manual_seed(seed);
    }
}

/// Uniform in [0, 1), fp32 or fp64.
pub fn uniform(shape: &[i64], (kind, device): (Kind, Device)) -> Tensor {
    if device != Device::Cpu {
        return Tensor::rand(shape, (kind, device));
    }
    assert!(matches!(kind, Kind::Float | Kind::Double), "uniform numbers are fp32 or fp64");
    // SAFETY: a shape and its length.
    made(|out| unsafe { ext_random_uniform(out, shape.as_ptr(), shape.len(), kind == Kind::Double) })
}

/// A random seed, without synchronising with a device.
pub fn draw_seed() -> u64 {
    let mut drawn = 0;
    // SAFETY: writes one number.
    checked(unsafe { ext_random_integer(&mut drawn) });
    drawn.cast_unsigned()
}

/// Dropout: sets each value to 0 with probability `p` < 1, and divides the others by 1 - `p`.
pub fn dropout(x: &Tensor, p: f64) -> Tensor {
    if x.device() != Device::Cpu {
        return x.dropout(p, true);
    }
    // SAFETY: a live tensor on a CPU.
    made(|out| unsafe { ext_random_dropout(out, x.as_ptr(), p) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn all() -> Vec<Tensor> {
        let number = Tensor::from(draw_seed().cast_signed());
        let dropped = dropout(&Tensor::ones([3, 700], CPU), 0.3);
        vec![uniform(&[5], CPU), number, dropped, uniform(&[2, 2], (Kind::Double, Device::Cpu))]
    }

    #[test]
    fn a_threads_numbers_follow_from_its_seed_whatever_others_draw() {
        let first = seeded(Device::Cpu, 7, all);
        let other = std::thread::spawn(|| seeded(Device::Cpu, 8, || (0..50).fold(all(), |_, _| all())));
        assert!(seeded(Device::Cpu, 7, all) == first);
        assert!(other.join().unwrap() != first);
        let again = seeded(Device::Cpu, 1, || {
            seed(7);
            all()
        });
        assert!(again == first);
        let kept = first[2].gt(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!((kept - 0.7).abs() < 0.04 && (first[2].max().double_value(&[]) - 1.0 / 0.7).abs() < 1e-6);
    }

    #[test]
    fn they_are_pytorchs_after_the_same_seed() {
        // torch.manual_seed(7); torch.rand(5); torch.randint(2**63 - 1, (1,))
        let numbers = [0.534_922_54, 0.198_803_19, 0.659_211_7, 0.656_890_3, 0.232_761_56f32];
        let drawn = seeded(Device::Cpu, 7, || (uniform(&[5], CPU), draw_seed()));
        assert!(drawn == (Tensor::from_slice(&numbers), 8_821_655_377_875_895_192));
    }
}
