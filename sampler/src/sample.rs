//! Sampling: logits and random numbers → codes.
//!
//! `sample` is the one entry. Inverse-CDF sampling and the Gumbel-max trick have a form for tensors
//! on any device and one for rows on the CPU, which neither sorts nor allocates more than a copy of
//! the row; a captured step samples by the kernel of `cuda_kernels` instead. The tests of this file
//! compare all forms.
//!
//! B batch, V vocabulary

use base::SampleStream;
use base::rng::CodeStream;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::config::SamplingConfig;
use crate::error::{Error, Result};
use crate::filter::RowFilters;

/// Source of a run's random numbers.
#[derive(Debug, Clone, Copy)]
pub enum RandomSource<'a> {
    /// One stream per image, by inverse-CDF sampling: image i is the same at any batch size, in any
    /// process and after any restart. With `top_k` 1 the most probable code is taken.
    Streams(&'a [SampleStream]),
    /// One stream per image, by the Gumbel-max trick: every code has its own random number at every
    /// step, and the code with the largest sum of logit and noise is taken. Each step costs V
    /// numbers per image instead of one, but a small change of the logits seldom changes the code,
    /// on which [`crate::DecodeMode::Speculative`] relies.
    Gumbel(&'a [SampleStream]),
    /// One `multinomial` per step on libtorch's global generator, like the official scripts; seed
    /// it with `tch::manual_seed`. Reproduces an official run of the same batches on the same type
    /// of device; an image depends on its batch.
    Torch,
}

impl RandomSource<'_> {
    /// Index in the run of the batch's image `i`, if streams have one.
    pub(crate) fn image(&self, i: usize) -> u64 {
        match self {
            RandomSource::Streams(streams) | RandomSource::Gumbel(streams) => {
                streams.get(i).map_or(i as u64, |s| s.index)
            }
            RandomSource::Torch => i as u64,
        }
    }
}

/// Random numbers of one step, for B images.
#[derive(Debug)]
pub(crate) enum RandomInputs {
    /// Uniforms (B, 1) float64, for inverse-CDF sampling.
    Uniforms(Tensor),
    /// Streams of noise, B of them, for the Gumbel-max trick.
    Gumbel(Vec<CodeStream>),
    /// libtorch's global generator.
    Torch,
}

/// Guided logits (B, V) → codes (B, 1), with [`NOT_FINITE`] among them.
pub(crate) fn sample(guided: &Tensor, config: &SamplingConfig, inputs: &RandomInputs) -> Tensor {
    match inputs {
        RandomInputs::Torch => mark_not_finite(&multinomial(&config.filtered(guided)), guided),
        _ if config.is_greedy() => mark_not_finite(&greedy(guided), guided),
        RandomInputs::Uniforms(uniforms) => inverse_cdf_rows(guided, uniforms, config).unwrap_or_else(|| {
            mark_not_finite(&inverse_cdf_sample(&config.filtered(guided), uniforms), guided)
        }),
        RandomInputs::Gumbel(streams) => gumbel_max_rows(guided, streams, config)
            .unwrap_or_else(|| mark_not_finite(&gumbel_max(&config.filtered(guided), streams), guided)),
    }
}

/// Guided logits (V) on the CPU, which it may change, and a uniform → the code of [`sample`].
pub(crate) fn sample_row(row: &mut [f32], config: &SamplingConfig, uniform: f64) -> i64 {
    match config.row_filters().filter(|_| !config.is_greedy()) {
        Some(filters) => inverse_cdf_row(row, &filters, uniform),
        None => {
            let guided = Tensor::from_slice(row).unsqueeze(0);
            let uniforms = Tensor::from_slice(&[uniform]).unsqueeze(0);
            sample(&guided, config, &RandomInputs::Uniforms(uniforms)).int64_value(&[0, 0])
        }
    }
}

/// Filters and inverse-CDF sampling of a row, in place.
fn inverse_cdf_row(row: &mut [f32], filters: &RowFilters, uniform: f64) -> i64 {
    let isa = cpu_kernels::Isa::best(cpu_kernels::Format::F32);
    filters.apply(row);
    cpu_kernels::sample::inverse_cdf_sample(isa, row, uniform).map_or(NOT_FINITE, |code| code as i64)
}

/// The "code" sampled from a row of logits that is no distribution: NaN or +inf among them, or
/// −inf throughout. Stays on the device of the logits, without synchronisation, until `check`
/// turns it into an error.
pub const NOT_FINITE: i64 = -1;

/// Codes (B, 1) with [`NOT_FINITE`] where the logits (B, V) are no distribution.
fn mark_not_finite(codes: &Tensor, logits: &Tensor) -> Tensor {
    codes.masked_fill(&is_not_finite(logits), NOT_FINITE)
}

/// (B, V) → (B, 1) bool. The largest of a row is NaN if one of it is.
fn is_not_finite(logits: &Tensor) -> Tensor {
    logits.amax([-1i64].as_slice(), true).isfinite().logical_not()
}

/// Returns an error if one of the codes (B, N) was sampled from logits that are not finite; `image`
/// gives an image's index in the run.
pub(crate) fn check(codes: &Tensor, image: impl Fn(usize) -> u64) -> Result<()> {
    let (_, n) = codes.size2().expect("codes are (B, N)");
    let wrong = Vec::<i64>::try_from(codes.eq(NOT_FINITE).view(-1).nonzero().view(-1));
    let wrong = wrong.expect("indices are int64");
    match wrong.into_iter().map(|index| (index % n, index / n)).min() {
        Some((step, i)) => Err(Error::NotFinite { image: image(i as usize), step: step as usize }),
        None => Ok(()),
    }
}

/// The largest double below 1: `u · total` then stays below `total`, so that some code always has
/// a larger sum.
const BELOW_ONE: f64 = 1.0 - f64::EPSILON;

/// The uniform that decides code number `step` of an image.
pub(crate) fn uniform(stream: SampleStream, step: usize) -> f64 {
    stream.uniform(step as u64).min(BELOW_ONE)
}

/// Uniforms of all images and steps at once, (B, steps) float64, so that a step never waits for the
/// host.
pub(crate) fn uniforms(streams: &[SampleStream], steps: usize, device: Device) -> Tensor {
    let values: Vec<f64> = streams.iter().flat_map(|&s| (0..steps).map(move |t| uniform(s, t))).collect();
    Tensor::from_slice(&values).view([streams.len() as i64, steps as i64]).to_device(device)
}

/// Inverse-CDF sampling in float64, on any device. Filtered logits (B, V) and uniforms (B, 1) →
/// codes (B, 1), the first whose cumulative probability exceeds the uniform. Entries at -inf are
/// never sampled.
fn inverse_cdf_sample(logits: &Tensor, uniforms: &Tensor) -> Tensor {
    let v = logits.size()[1];
    let cdf = logits.softmax(-1, Kind::Double).cumsum(-1, Kind::Double); // (B, V)
    let target = uniforms * cdf.narrow(1, v - 1, 1); // the sum is 1 up to rounding
    cdf.le_tensor(&target).sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64)
}

/// Filters and [`inverse_cdf_sample`] in one pass over each row, for logits on the CPU: (B, V) and
/// (B, 1) → (B, 1), with [`NOT_FINITE`]. Nothing is sorted, and rows are sampled in parallel.
/// Sums are formed in another order than libtorch's, in double precision: the code is the same
/// unless the uniform is within 1e-13 of the edge between two codes. `None` as of [`rows_on_cpu`].
fn inverse_cdf_rows(logits: &Tensor, uniforms: &Tensor, config: &SamplingConfig) -> Option<Tensor> {
    let (mut rows, v, filters) = rows_on_cpu(logits, config)?;
    let uniforms = Vec::<f64>::try_from(uniforms.contiguous().view(-1)).ok()?;
    let sample = |(row, u): (&mut [f32], &f64)| inverse_cdf_row(row, &filters, *u);
    Some(each_row(&mut rows, v, &uniforms, sample))
}

/// The Gumbel-max trick on any device: (B, V) filtered logits and B streams → (B, 1) codes with
/// the largest sum of logit and noise.
fn gumbel_max(filtered: &Tensor, streams: &[CodeStream]) -> Tensor {
    let (b, v) = filtered.size2().expect("logits are (B, V)");
    let uniforms: Vec<f64> = streams.iter().flat_map(|s| (0..v as u64).map(|c| s.uniform(c))).collect();
    let noise = -(-Tensor::from_slice(&uniforms).view([b, v]).to_device(filtered.device()).log()).log();
    greedy(&(filtered + noise))
}

/// Filters and [`gumbel_max`] row by row, with noise for the remaining codes only, and
/// [`NOT_FINITE`]; `None` as of [`rows_on_cpu`].
fn gumbel_max_rows(logits: &Tensor, streams: &[CodeStream], config: &SamplingConfig) -> Option<Tensor> {
    let (mut rows, v, filters) = rows_on_cpu(logits, config)?;
    let sample = |(row, stream): (&mut [f32], &CodeStream)| {
        let largest = row.iter().fold(f32::NEG_INFINITY, |m, &l| m.max(l));
        if !largest.is_finite() || row.iter().any(|l| l.is_nan()) {
            return NOT_FINITE;
        }
        filters.apply(row);
        let left = row.iter().enumerate().filter(|(_, logit)| logit.is_finite());
        let score = |c: usize, logit: f32| f64::from(logit) - (-stream.uniform(c as u64).ln()).ln();
        let scored = left.map(|(c, &logit)| (c as i64, score(c, logit)));
        scored.fold((0, f64::NEG_INFINITY), |best, one| if one.1 > best.1 { one } else { best }).0
    };
    Some(each_row(&mut rows, v, streams, sample))
}

/// Contiguous rows of logits on the CPU, their length, and the filters in their form for rows;
/// `None` on other devices, and if a filter has no form for rows, as those that need the order of
/// all logits.
fn rows_on_cpu(logits: &Tensor, config: &SamplingConfig) -> Option<(Vec<f32>, usize, RowFilters)> {
    if logits.device() != Device::Cpu {
        return None;
    }
    let filters = config.row_filters()?;
    let v = usize::try_from(logits.size()[1]).ok()?;
    Some((Vec::<f32>::try_from(logits.to_kind(Kind::Float).contiguous().view(-1)).ok()?, v, filters))
}

/// Codes (B, 1) of B rows of `v` logits with one random input each. Runs in parallel, unless
/// handing rows to other threads takes longer than sampling.
fn each_row<N: Sync>(
    rows: &mut [f32],
    v: usize,
    inputs: &[N],
    sample: impl Fn((&mut [f32], &N)) -> i64 + Sync + Send,
) -> Tensor {
    const FEW: usize = 4;
    let codes: Vec<i64> = match inputs.len() {
        ..=FEW => rows.chunks_mut(v).zip(inputs).map(sample).collect(),
        _ => rows.par_chunks_mut(v).zip(inputs).map(sample).collect(),
    };
    Tensor::from_slice(&codes).unsqueeze(1)
}

/// The most probable code, the lowest index among equals: (B, V) → (B, 1). (libtorch's `argmax`
/// promises no order.)
fn greedy(logits: &Tensor) -> Tensor {
    let best = logits.amax([-1i64].as_slice(), true);
    // The running maximum of "is the best" counts positions from the first best one on.
    let from_first = logits.ge_tensor(&best).to_kind(Kind::Int64).cumsum(-1, Kind::Int64).gt(0);
    logits.size()[1] - from_first.sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64)
}

/// One sample per row from libtorch's global generator: (B, V) → (B, 1). Rows that are no
/// distribution, for which libtorch aborts on a GPU, give any code.
fn multinomial(logits: &Tensor) -> Tensor {
    let finite = logits.masked_fill(&is_not_finite(logits), 0.0);
    finite.softmax(-1, Kind::Float).multinomial(1, false)
}

#[cfg(test)]
mod tests {
    use libtorch_ext::cuda_kernel::CpuEmulator;

    use super::*;
    use crate::filter::{Filter, KernelFilters};

    fn codes(t: &Tensor) -> Vec<i64> {
        Vec::<i64>::try_from(t.view(-1)).unwrap()
    }

    #[test]
    fn inverse_cdf_takes_the_first_code_whose_sum_exceeds_the_uniform() {
        let p = [0.0f32, 0.25, 0.0, 0.5, 0.25, 0.0];
        let logits = Tensor::from_slice(&p).log().unsqueeze(0);
        let at = |u: f64| codes(&inverse_cdf_sample(&logits, &Tensor::from_slice(&[u]).unsqueeze(0)))[0];
        assert_eq!([at(0.0), at(0.2499), at(0.2501), at(0.7499), at(0.7501)], [1, 1, 3, 3, 4]);
        assert_eq!(at(BELOW_ONE), 4, "neither past the end nor on a removed entry");
    }

    /// Codes by the GPU's kernel, on the CPU; `None` if it does not support the filters.
    fn by_kernel(logits: &Tensor, uniforms: &Tensor, config: &SamplingConfig) -> Option<Tensor> {
        let KernelFilters { temperature, top_k, min_p } = config.kernel_filters()?;
        let [codes, input] = [(); 2].map(|()| uniforms.zeros_like().to_kind(Kind::Int64));
        let args = cuda_kernels::SampleArgs {
            logits,
            scales: None,
            uniforms,
            position: &Tensor::from_slice(&[0i64]),
            codes: &codes,
            input: &input,
            before: 0,
            top_k,
            greedy: config.is_greedy(),
            temperature,
            min_p,
        };
        cuda_kernels::sample(&CpuEmulator, &args).unwrap();
        Some(codes)
    }

    /// Tensors, rows on the CPU and the GPU's kernel, where the last two support the filters.
    #[test]
    fn every_form_of_inverse_cdf_sampling_gives_the_same_codes() {
        tch::manual_seed(1);
        let logits = Tensor::randn([200, 700], (Kind::Float, Device::Cpu)) * 4.0;
        let uniforms = Tensor::rand([200, 1], (Kind::Double, Device::Cpu));
        for (filters, temperature) in [
            (vec![], 1.0),
            (vec![Filter::TopK(1)], 1.0),
            (vec![Filter::TopK(40)], 0.7),
            (vec![Filter::TopK(900), Filter::MinP(0.05)], 1.3),
            (vec![Filter::TopP(0.9)], 1.0),
            (vec![Filter::TypicalP(0.9)], 1.0),
        ] {
            let sorts = filters.iter().any(|f| matches!(f, Filter::TopP(_) | Filter::TypicalP(_)));
            let config = SamplingConfig { temperature, filters, ..Default::default() };
            let expected = inverse_cdf_sample(&config.filtered(&logits), &uniforms);
            let rows = inverse_cdf_rows(&logits, &uniforms, &config);
            let kernel = by_kernel(&logits, &uniforms, &config);
            assert_eq!((rows.is_none(), kernel.is_none()), (sorts, sorts), "{config:?}");
            for found in rows.into_iter().chain(kernel) {
                assert_eq!(found, expected, "{config:?}");
            }
            let found = sample(&logits, &config, &RandomInputs::Uniforms(uniforms.shallow_clone()));
            assert_eq!(found, expected, "{config:?}");
        }
    }

    #[test]
    fn both_forms_of_gumbel_max_give_the_same_codes() {
        let logits = base::testing::recipe_tensor("logits", 3, &[40, 300], -4.0, 4.0);
        let streams: Vec<CodeStream> = (0..40).map(|i| SampleStream { seed: 1, index: 2 }.codes(i)).collect();
        for top_k in [None, Some(1), Some(20)] {
            let filters = top_k.map(Filter::TopK).into_iter().collect();
            let config = SamplingConfig { filters, temperature: 0.8, ..Default::default() };
            let found = gumbel_max_rows(&logits, &streams, &config).unwrap();
            assert_eq!(found, gumbel_max(&config.filtered(&logits), &streams));
        }
    }

    #[test]
    fn greedy_takes_the_lowest_index_of_a_tie() {
        let logits = Tensor::from_slice(&[1.0f32, 3.0, 3.0, 0.0, 5.0, 5.0, 5.0, 5.0]).view([2, 4]);
        assert_eq!(codes(&greedy(&logits)), [1, 0]);
    }
}
