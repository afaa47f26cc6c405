//! Sampling: logits and uniforms → codes.
//!
//! B images, R rows of the network, N codes an image, V vocabulary

use libtorch_ext::cuda_kernel::{Arg, KernelLauncher};
use tch::Tensor;

use crate::{Result, sources};

/// Inputs, outputs and settings of a sampling step. All tensors are on the kernels' device.
#[derive(Debug, Clone, Copy)]
pub struct SampleArgs<'a> {
    /// (R, V) fp32; R is B, or under guidance 2 B, the conditional rows first.
    pub logits: &'a Tensor,
    /// (N) fp32 guidance scales; 1 or less disables guidance at that step. `None`: R is B.
    pub scales: Option<&'a Tensor>,
    /// (B, N) float64, below 1.
    pub uniforms: &'a Tensor,
    /// (1) int64, position of the last input code.
    pub position: &'a Tensor,
    /// (B, N) int64, one code of each row is written; −1 if the logits are no distribution (NaN,
    /// +inf, or −inf throughout), with 0 as the next input.
    pub codes: &'a Tensor,
    /// (R, 1) int64, the next step's input codes.
    pub input: &'a Tensor,
    /// Position whose logits give the first code.
    pub before: i64,
    /// Keeps the k largest logits, and ties with the k-th; 0: all.
    pub top_k: i64,
    /// Takes the most probable code, without randomness.
    pub greedy: bool,
    /// Divisor of the logits.
    pub temperature: f64,
    /// Removes codes less than this times as probable as the most probable one; 0: none.
    pub min_p: f64,
}

/// Samples the next code of each image.
///
/// # Errors
/// Returns an error if the kernel does not compile or cannot be launched.
pub fn sample(launcher: &dyn KernelLauncher, d: &SampleArgs) -> Result<()> {
    let (images, steps) = d.codes.size2().expect("codes are (B, N)");
    let vocabulary = d.logits.size()[1];
    let margin = if d.min_p > 0.0 { -d.min_p.min(1.0).ln() } else { -1.0 };
    let args = [
        Arg::Tensor(d.logits),
        d.scales.into(),
        Arg::Tensor(d.uniforms),
        Arg::Tensor(d.position),
        Arg::Tensor(d.codes),
        Arg::Tensor(d.input),
        Arg::Int(images),
        Arg::Int(steps),
        Arg::Int(d.before),
        Arg::Int(d.top_k.clamp(0, vocabulary)),
        Arg::Int(d.greedy.into()),
        Arg::Float(d.temperature),
        Arg::Float(margin),
    ];
    launcher.launch(&sources::sample(vocabulary), "sample", [images, 1], &args)
}

#[cfg(test)]
mod tests {
    use libtorch_ext::cuda_kernel::CpuEmulator;
    use tch::{Device, Kind};

    use super::*;

    const IMAGES: i64 = 6;
    const STEPS: i64 = 4;

    /// Inverse-CDF sampling from filtered, guided logits, by tensors.
    fn expected(logits: &Tensor, uniforms: &Tensor, top_k: i64, min_p: f64) -> Tensor {
        let v = logits.size()[1];
        let lowest = if top_k > 0 {
            logits.topk(top_k.min(v), -1, true, true).0.narrow(1, top_k.min(v) - 1, 1)
        } else {
            logits.amin([1], true)
        };
        let near = logits.amax([1], true) + if min_p > 0.0 { min_p.ln() } else { f64::NEG_INFINITY };
        let removed = logits.lt_tensor(&lowest).logical_or(&logits.lt_tensor(&near));
        let cdf = logits
            .masked_fill(&removed, f64::NEG_INFINITY)
            .softmax(-1, Kind::Double)
            .cumsum(-1, Kind::Double);
        cdf.le_tensor(uniforms).sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64)
    }

    #[test]
    fn codes_are_those_of_the_cumulative_distribution() {
        tch::manual_seed(4);
        // Several codes a thread, and fewer codes than threads.
        for v in [2500, 40] {
            // Half-integers, so that many are equal, and sums of them exact.
            let logits = (Tensor::randn([2 * IMAGES, v], (Kind::Float, Device::Cpu)) * 4.0).round() * 0.5;
            let uniforms = Tensor::rand([IMAGES, STEPS], (Kind::Double, Device::Cpu));
            let (step, before) = (2, 5);
            let u = uniforms.narrow(1, step, 1);
            let (with, without) = (logits.narrow(0, 0, IMAGES), logits.narrow(0, IMAGES, IMAGES));
            for (scale, top_k, min_p, temperature) in [
                (None, 0, 0.0, 1.0),
                (Some(3.0), 7, 0.0, 1.0),
                (Some(0.5), 0, 0.2, 2.0),
                (Some(2.0), v + 9, 0.1, 0.5),
                (None, 0, 1.0, 1.0),
            ] {
                let scales = scale.map(|s| Tensor::from_slice(&[9.0f32, 9.0, s, 9.0]));
                let guided = match scale {
                    Some(s) if s > 1.0 => &without + (&with - &without) * f64::from(s),
                    _ => with.shallow_clone(),
                } / temperature;
                let codes = Tensor::zeros([IMAGES, STEPS], (Kind::Int64, Device::Cpu));
                let rows = if scale.is_some() { 2 * IMAGES } else { IMAGES };
                let input = Tensor::zeros([rows, 1], (Kind::Int64, Device::Cpu));
                let position = Tensor::from_slice(&[before + step]);
                let d = SampleArgs {
                    logits: &logits,
                    scales: scales.as_ref(),
                    uniforms: &uniforms,
                    position: &position,
                    codes: &codes,
                    input: &input,
                    before,
                    top_k,
                    greedy: false,
                    temperature,
                    min_p,
                };
                sample(&CpuEmulator, &d).unwrap();
                let found = codes.select(1, step);
                assert_eq!(found, expected(&guided, &u, top_k, min_p), "{v} {scale:?} {top_k} {min_p}");
                assert_eq!(input.view([-1, IMAGES]).get(0), found);
                assert_eq!(input.view([-1, IMAGES]).get(rows / IMAGES - 1), found);
                assert_eq!(codes.sum(Kind::Int64), found.sum(Kind::Int64)); // nothing else is written

                sample(&CpuEmulator, &SampleArgs { greedy: true, ..d }).unwrap();
                let best = guided.eq_tensor(&guided.amax([1], true)).to_kind(Kind::Int64).argmax(1, false);
                assert_eq!(codes.select(1, step), best);
            }
        }
    }

    #[test]
    fn no_code_is_sampled_from_a_row_that_is_not_finite() {
        let v = 40;
        let logits = Tensor::zeros([4, v], (Kind::Float, Device::Cpu));
        for (row, wrong) in [(0, f64::NAN), (2, f64::INFINITY)] {
            let _ = logits.get(row).narrow(0, 7 + row, 1).fill_(wrong);
        }
        let _ = logits.get(3).fill_(f64::NEG_INFINITY);
        let [codes, input] = [(); 2].map(|()| Tensor::full([4, 1], 5i64, (Kind::Int64, Device::Cpu)));
        for (top_k, greedy) in [(0, false), (3, false), (1, true)] {
            let d = SampleArgs {
                logits: &logits,
                scales: None,
                uniforms: &Tensor::full([4, 1], 0.99, (Kind::Double, Device::Cpu)),
                position: &Tensor::from_slice(&[0i64]),
                codes: &codes,
                input: &input,
                before: 0,
                top_k,
                greedy,
                temperature: 1.0,
                min_p: 0.0,
            };
            sample(&CpuEmulator, &d).unwrap();
            let code = if greedy { 0 } else { 39 };
            assert_eq!(Vec::<i64>::try_from(codes.view(-1)).unwrap(), [-1, code, -1, -1], "{top_k}");
            assert_eq!(Vec::<i64>::try_from(input.view(-1)).unwrap(), [0, code, 0, 0], "{top_k}");
        }
    }
}
