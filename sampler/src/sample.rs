//! Sampling: logits and random numbers → codes.
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
    /// One stream per image: image i is the same at any batch size, in any process and after any restart.
    /// With `top_k` 1 the best code is taken and no number used.
    Streams(&'a [SampleStream]),
    /// As `Streams`, by the Gumbel-max trick: every code has a random number of its own at every step, and
    /// the code is the best one after they are added. Each step costs V numbers an image instead of one, but
    /// a small change of the logits seldom changes the code, on which [`crate::DecodeMode::Speculative`]
    /// rests.
    Gumbel(&'a [SampleStream]),
    /// One `multinomial` per step on libtorch's global generator, as the official scripts draw; seed it with
    /// `tch::manual_seed`. It reproduces an official run of the same batches on the same kind of device, and
    /// ties the images of a batch together.
    Torch,
}

impl RandomSource<'_> {
    /// The number of the batch's image `i` in the run, where streams have one.
    pub(crate) fn image(&self, i: usize) -> u64 {
        match self {
            RandomSource::Streams(streams) | RandomSource::Gumbel(streams) => {
                streams.get(i).map_or(i as u64, |s| s.index)
            }
            RandomSource::Torch => i as u64,
        }
    }
}

/// The "code" of a row of logits that is no distribution: NaN or +inf among them, or −inf throughout. It is
/// put in place where the logits are, without waiting for the host, and becomes an error once the codes are
/// there.
pub const NOT_FINITE: i64 = -1;

/// Codes (B, 1) with [`NOT_FINITE`] where the logits (B, V) they were drawn from are no distribution.
pub(crate) fn marked(codes: &Tensor, logits: &Tensor) -> Tensor {
    codes.masked_fill(&is_no_distribution(logits), NOT_FINITE)
}

/// (B, V) → (B, 1) bool. The largest of a row is NaN where one of it is.
fn is_no_distribution(logits: &Tensor) -> Tensor {
    logits.amax([-1i64].as_slice(), true).isfinite().logical_not()
}

/// Refuses codes (B, N) that were drawn from logits that are not finite; `image` is an image's number in the
/// run.
pub(crate) fn check(codes: &Tensor, image: impl Fn(usize) -> u64) -> Result<()> {
    let (_, n) = codes.size2().expect("codes are (B, N)");
    let wrong = Vec::<i64>::try_from(codes.eq(NOT_FINITE).view(-1).nonzero().view(-1));
    let wrong = wrong.expect("places are int64");
    match wrong.into_iter().map(|place| (place % n, place / n)).min() {
        Some((step, i)) => Err(Error::NotFinite { image: image(i as usize), step: step as usize }),
        None => Ok(()),
    }
}

/// The largest double below 1: `u · total` then stays below `total`, so that some code always has a larger
/// sum.
const BELOW_ONE: f64 = 1.0 - f64::EPSILON;

/// The uniforms of all images and steps at once, (B, steps) float64, so that a step never waits for the host.
pub fn uniforms(streams: &[SampleStream], steps: usize, device: Device) -> Tensor {
    let values: Vec<f64> =
        streams.iter().flat_map(|s| (0..steps).map(move |t| s.uniform(t as u64).min(BELOW_ONE))).collect();
    Tensor::from_slice(&values).view([streams.len() as i64, steps as i64]).to_device(device)
}

/// The Gumbel-max trick: (B, V) logits and the places their codes have, B of them → (B, 1) codes, the best
/// ones of what the filters leave after noise of the place and the code is added; or [`NOT_FINITE`].
pub fn gumbel_max(logits: &Tensor, places: &[CodeStream], config: &SamplingConfig) -> Tensor {
    gumbel_max_on_cpu(logits, places, config)
        .unwrap_or_else(|| marked(&gumbel_max_by_tensors(&config.filtered(logits), places), logits))
}

/// (B, V) filtered logits → (B, 1) codes, on any device.
fn gumbel_max_by_tensors(filtered: &Tensor, places: &[CodeStream]) -> Tensor {
    let (b, v) = filtered.size2().expect("logits are (B, V)");
    let uniforms: Vec<f64> = places.iter().flat_map(|p| (0..v as u64).map(|c| p.uniform(c))).collect();
    let noise = -(-Tensor::from_slice(&uniforms).view([b, v]).to_device(filtered.device()).log()).log();
    greedy(&(filtered + noise))
}

/// [`gumbel_max`] row by row, with noise for those codes only that the filters leave; `None` as of
/// [`inverse_cdf_on_cpu`].
fn gumbel_max_on_cpu(logits: &Tensor, places: &[CodeStream], config: &SamplingConfig) -> Option<Tensor> {
    let (mut rows, v, filters) = rows_on_cpu(logits, config)?;
    let sample = |(row, place): (&mut [f32], &CodeStream)| {
        let largest = row.iter().fold(f32::NEG_INFINITY, |m, &l| m.max(l));
        if !largest.is_finite() || row.iter().any(|l| l.is_nan()) {
            return NOT_FINITE;
        }
        filters.apply(row);
        let left = row.iter().enumerate().filter(|(_, logit)| logit.is_finite());
        let score = |c: usize, logit: f32| f64::from(logit) - (-place.uniform(c as u64).ln()).ln();
        let scored = left.map(|(c, &logit)| (c as i64, score(c, logit)));
        scored.fold((0, f64::NEG_INFINITY), |best, one| if one.1 > best.1 { one } else { best }).0
    };
    Some(each_row(&mut rows, v, places, sample))
}

/// Logits on the CPU, row after row, the rows' length, and the filters for them; `None` on other devices, and
/// where a filter has no form for rows.
fn rows_on_cpu(logits: &Tensor, config: &SamplingConfig) -> Option<(Vec<f32>, usize, RowFilters)> {
    if logits.device() != Device::Cpu {
        return None;
    }
    let filters = config.row_filters()?;
    let v = usize::try_from(logits.size()[1]).ok()?;
    Some((Vec::<f32>::try_from(logits.to_kind(Kind::Float).contiguous().view(-1)).ok()?, v, filters))
}

/// Inverts the cumulative distribution in float64: (B, V) filtered logits and (B, 1) uniforms → (B, 1) codes,
/// the first whose cumulative probability exceeds the uniform. Entries at -inf are never chosen.
pub fn inverse_cdf_sample(logits: &Tensor, uniforms: &Tensor) -> Tensor {
    let v = logits.size()[1];
    let cdf = logits.softmax(-1, Kind::Double).cumsum(-1, Kind::Double); // (B, V)
    let target = uniforms * cdf.narrow(1, v - 1, 1); // the sum is 1 up to rounding
    cdf.le_tensor(&target).sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64)
}

/// [`SamplingConfig::filtered`] and [`inverse_cdf_sample`] in one pass over each row, for logits on the CPU:
/// (B, V) and (B, 1) → (B, 1). Nothing is sorted, and rows are sampled side by side. Sums are formed in
/// another order than libtorch's, in double precision: the code is the same unless the uniform lies within
/// 1e-13 of the edge between two codes; or it is [`NOT_FINITE`]. `None` where a filter has no form for rows
/// (top-p, which needs the order of all logits).
pub fn inverse_cdf_on_cpu(logits: &Tensor, uniforms: &Tensor, config: &SamplingConfig) -> Option<Tensor> {
    let (mut rows, v, filters) = rows_on_cpu(logits, config)?;
    let uniforms = Vec::<f64>::try_from(uniforms.contiguous().view(-1)).ok()?;
    let isa = kernels::Isa::best(kernels::Format::F32);
    let sample = |(row, u): (&mut [f32], &f64)| {
        filters.apply(row);
        kernels::choose::invert(isa, row, *u).map_or(NOT_FINITE, |code| code as i64)
    };
    Some(each_row(&mut rows, v, &uniforms, sample))
}

/// The codes (B, 1) of B rows of `v` logits with a number each; side by side, unless handing them to other
/// threads takes longer than sampling.
fn each_row<N: Sync>(
    rows: &mut [f32],
    v: usize,
    numbers: &[N],
    sample: impl Fn((&mut [f32], &N)) -> i64 + Sync + Send,
) -> Tensor {
    const FEW: usize = 4;
    let codes: Vec<i64> = match numbers.len() {
        ..=FEW => rows.chunks_mut(v).zip(numbers).map(sample).collect(),
        _ => rows.par_chunks_mut(v).zip(numbers).map(sample).collect(),
    };
    Tensor::from_slice(&codes).unsqueeze(1)
}

/// The best code, the lowest index among equals: (B, V) → (B, 1). (libtorch's `argmax` promises no order.)
pub fn greedy(logits: &Tensor) -> Tensor {
    let best = logits.amax([-1i64].as_slice(), true);
    // The running maximum of "is the best" counts positions from the first best one on.
    let from_first = logits.ge_tensor(&best).to_kind(Kind::Int64).cumsum(-1, Kind::Int64).gt(0);
    logits.size()[1] - from_first.sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64)
}

/// One draw per row on libtorch's global generator: (B, V) → (B, 1). Rows that are no distribution, with
/// which libtorch ends the program on a GPU, draw any code.
pub fn multinomial(logits: &Tensor) -> Tensor {
    let drawable = logits.masked_fill(&is_no_distribution(logits), 0.0);
    drawable.softmax(-1, Kind::Float).multinomial(1, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;

    fn codes(t: &Tensor) -> Vec<i64> {
        Vec::<i64>::try_from(t.view(-1)).unwrap()
    }

    #[test]
    fn inversion_takes_the_first_code_whose_sum_exceeds_the_uniform() {
        let p = [0.0f32, 0.25, 0.0, 0.5, 0.25, 0.0];
        let logits = Tensor::from_slice(&p).log().unsqueeze(0);
        let at = |u: f64| codes(&inverse_cdf_sample(&logits, &Tensor::from_slice(&[u]).unsqueeze(0)))[0];
        assert_eq!([at(0.0), at(0.2499), at(0.2501), at(0.7499), at(0.7501)], [1, 1, 3, 3, 4]);
        assert_eq!(at(BELOW_ONE), 4, "neither past the end nor on a removed entry");
    }

    #[test]
    fn a_pass_over_rows_samples_what_the_tensors_sample() {
        tch::manual_seed(1);
        let logits = Tensor::randn([200, 700], (Kind::Float, Device::Cpu)) * 4.0;
        let uniforms = Tensor::rand([200, 1], (Kind::Double, Device::Cpu));
        for (top_k, min_p, temperature) in
            [(None, None, 1.0), (Some(1), None, 1.0), (Some(40), None, 0.7), (Some(900), Some(0.05), 1.3)]
        {
            let filters = [top_k.map(Filter::TopK), min_p.map(Filter::MinP)].into_iter().flatten().collect();
            let config = SamplingConfig { temperature, filters, ..Default::default() };
            let expected = inverse_cdf_sample(&config.filtered(&logits), &uniforms);
            assert_eq!(inverse_cdf_on_cpu(&logits, &uniforms, &config).unwrap(), expected, "{config:?}");
        }
        let config = SamplingConfig { filters: vec![Filter::TopP(0.9)], ..Default::default() };
        assert!(inverse_cdf_on_cpu(&logits, &uniforms, &config).is_none());
    }

    #[test]
    fn noise_makes_the_same_choice_row_by_row_and_by_tensors() {
        let logits = base::testing::recipe_tensor("logits", 3, &[40, 300], -4.0, 4.0);
        let places: Vec<CodeStream> = (0..40).map(|i| SampleStream { seed: 1, index: 2 }.codes(i)).collect();
        for top_k in [None, Some(1), Some(20)] {
            let filters = top_k.map(Filter::TopK).into_iter().collect();
            let config = SamplingConfig { filters, temperature: 0.8, ..Default::default() };
            let found = gumbel_max_on_cpu(&logits, &places, &config).unwrap();
            assert_eq!(found, gumbel_max_by_tensors(&config.filtered(&logits), &places));
        }
    }

    #[test]
    fn greedy_takes_the_lowest_index_of_a_tie() {
        let logits = Tensor::from_slice(&[1.0f32, 3.0, 3.0, 0.0, 5.0, 5.0, 5.0, 5.0]).view([2, 4]);
        assert_eq!(codes(&greedy(&logits)), [1, 0]);
    }
}
