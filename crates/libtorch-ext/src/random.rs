//! Random numbers in training. They come from libtorch's global generator, or on the CPU from one of the thread's own
//! ([`seeded`]), so that threads draw side by side and each the same as it would alone. Both kinds give the same
//! numbers after the same seed.

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

/// Runs `work` with a fresh seed: on the CPU that of a generator which only this thread draws from and only meanwhile;
/// on a GPU that of the global ones. Not to be nested.
pub fn seeded<R>(device: Device, seed: i64, work: impl FnOnce() -> R) -> R {
    struct Own;
    impl Drop for Own {
        fn drop(&mut self) {
            // SAFETY: forgets this thread's generator.
            unsafe { ext_random_end() }
        }
    }
    if device != Device::Cpu {
        tch::manual_seed(seed);
        return work();
    }
    // SAFETY: makes a generator for this thread.
    checked(unsafe { ext_random_begin(seed) });
    let _own = Own;
    work()
}

/// Begins anew with `seed`: the thread's own generator within [`seeded`], the global ones otherwise.
pub fn seed(seed: i64) {
    // SAFETY: looks at this thread's generator only.
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

/// A seed for something else, without waiting for a device.
pub fn draw_seed() -> u64 {
    let mut drawn = 0;
    // SAFETY: writes one number.
    checked(unsafe { ext_random_integer(&mut drawn) });
    drawn.cast_unsigned()
}

/// Each value 0 with probability `p` < 1, and the others divided by 1 - `p`.
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

    fn draws() -> Vec<Tensor> {
        let x = Tensor::ones([3, 700], CPU);
        let number = Tensor::from(draw_seed() as i64);
        vec![uniform(&[5], CPU), number, dropout(&x, 0.3), uniform(&[2, 2], (Kind::Double, Device::Cpu))]
    }

    #[test]
    fn a_threads_own_numbers_are_those_of_libtorch_and_nobody_elses_draws_change_them() {
        let own = || seeded(Device::Cpu, 7, draws);
        let other = std::thread::spawn(|| seeded(Device::Cpu, 8, || (0..50).map(|_| draws()).last()));
        let first = own();
        assert!(first == own() && other.join().unwrap().unwrap() != first);
        let again = seeded(Device::Cpu, 1, || {
            seed(7);
            draws()
        });
        assert!(again == first);

        // No other test here draws from the global generator while this looks, or it would look again.
        let global = (0..20).any(|_| {
            tch::manual_seed(7);
            let x = Tensor::ones([3, 700], CPU);
            let number = |t: Tensor| Tensor::from(t.int64_value(&[0]));
            let expected = [
                Tensor::rand([5], CPU),
                number(Tensor::randint(i64::MAX, [1], (Kind::Int64, Device::Cpu))),
                x.dropout(0.3, true),
                Tensor::rand([2, 2], (Kind::Double, Device::Cpu)),
            ];
            tch::manual_seed(7);
            expected[..] == first[..] && draws() == first
        });
        assert!(global);
    }
}
