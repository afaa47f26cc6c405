//! Properties of sampling, with a mock model of known logits.

use ar_model::{ArConfig, ArSpec, AutoregressiveModel, Backend, Conditioning, Decoder, Gpt, GpuFormats};
use base::config::Document;
use base::testing::recipe_tensor;
use base::{Build, Precision, SampleStream, Vars};
use cuda_kernels::Format;
use libtorch_ext::cuda_kernel::CpuEmulator;
use sampler::DecodeMode::{CudaGraph, Speculative, Stepwise};
use sampler::RandomSource::{Gumbel, Streams, Torch};
use sampler::{Filter, Generation, Guidance, GuidanceSchedule, Sampler, SamplingConfig};
use tch::{Device, Kind, Tensor};

const V: i64 = 12;
const N: i64 = 16;
const CLASSES: i64 = 3;

/// Logits are the sum of a table over (class, position) and one over the previous code, so that
/// every wrong input shows: a code in the wrong row, a wrong position, swapped halves.
struct Mock {
    spec: ArSpec,
    by_class: Tensor, // (CLASSES + 1, N, V)
    by_code: Tensor,  // (V, V)
    caches: std::cell::Cell<usize>,
}

/// Classes of the batch, and the next position.
struct MockCache {
    rows: i64,
    classes: Option<Tensor>,
    next: i64,
}

fn mock() -> Mock {
    Mock {
        spec: ArSpec { vocab_size: V, num_tokens: N, prefix_len: 1, num_classes: Some(CLASSES) },
        by_class: recipe_tensor("by_class", 1, &[CLASSES + 1, N, V], -2.0, 2.0),
        by_code: recipe_tensor("by_code", 1, &[V, V], -2.0, 2.0),
        caches: std::cell::Cell::new(0),
    }
}

impl AutoregressiveModel for Mock {
    type Cache = MockCache;

    fn spec(&self) -> &ArSpec {
        &self.spec
    }

    fn check_conditioning(&self, _cond: &Conditioning) -> ar_model::Result<()> {
        Ok(())
    }

    fn null_conditioning(&self, like: &Conditioning) -> Conditioning {
        Conditioning::Class(ids(like).full_like(CLASSES))
    }

    fn new_cache(&self, batch: i64) -> MockCache {
        self.caches.set(self.caches.get() + 1);
        MockCache { rows: batch, classes: None, next: 0 }
    }

    fn prefill(&self, cond: &Conditioning, cache: &mut MockCache) -> Tensor {
        let classes = ids(cond).shallow_clone();
        assert_eq!(classes.size(), [cache.rows], "the cache has the batch's size");
        let logits = self.by_class.index_select(0, &classes).select(1, 0);
        cache.classes = Some(classes);
        cache.next = self.spec.prefix_len;
        logits
    }

    fn decode_chunk(&self, codes: &Tensor, position: i64, cache: &mut MockCache) -> Tensor {
        assert!(position <= cache.next, "no position is left out");
        let (rows, k) = codes.size2().unwrap();
        cache.next = position + k;
        let t = position - self.spec.prefix_len + 1;
        let classes = cache.classes.as_ref().expect("prefill comes first");
        let by_code = self.by_code.index_select(0, &codes.reshape([-1])).view([rows, k, V]);
        self.by_class.index_select(0, classes).narrow(1, t, k) + by_code
    }

    fn logits(&self, cond: &Conditioning, codes: &Tensor) -> Tensor {
        let first = self.by_class.index_select(0, ids(cond));
        let before = codes.narrow(1, 0, N - 1).contiguous().view(-1);
        let by_code = self.by_code.index_select(0, &before).view([-1, N - 1, V]);
        let zero = Tensor::zeros([codes.size()[0], 1, V], (Kind::Float, Device::Cpu));
        first + Tensor::cat(&[zero, by_code], 1)
    }
}

fn ids(cond: &Conditioning) -> &Tensor {
    match cond {
        Conditioning::Class(ids) => ids,
        Conditioning::Text { .. } => panic!("the mock knows classes only"),
    }
}

fn classes(ids: &[i64]) -> Conditioning {
    Conditioning::Class(Tensor::from_slice(ids))
}

fn streams(from: u64, n: usize) -> Vec<SampleStream> {
    (from..from + n as u64).map(|index| SampleStream { seed: 3, index }).collect()
}

/// Codes of images `from..` of these classes.
fn codes(model: &Mock, ids: &[i64], from: u64, config: &SamplingConfig) -> Vec<Vec<i64>> {
    let streams = streams(from, ids.len());
    let codes = Sampler::new(model).generate(&classes(ids), config, Streams(&streams), Stepwise).unwrap();
    Vec::<Vec<i64>>::try_from(codes.codes.tensor()).unwrap()
}

fn guided(scale: f64) -> SamplingConfig {
    SamplingConfig { guidance: Guidance::constant(scale), ..Default::default() }
}

#[test]
fn scale_1_equals_the_conditional_model() {
    let model = mock();
    let cond = classes(&[0, 2]);
    for scale in [0.0, 1.0] {
        let mut sampler = Sampler::new(&model);
        let s = streams(0, 2);
        let (codes, logits) =
            sampler.generate_with_logits(&cond, &guided(scale), Streams(&s), N as usize).unwrap();
        assert_eq!(logits, model.logits(&cond, codes.tensor()));
    }
}

#[test]
fn guidance_mixes_the_conditional_and_the_null_logits_of_the_same_codes() {
    let model = mock();
    let cond = classes(&[0, 1, 2]);
    let null = model.null_conditioning(&cond);
    let guidance = Guidance { scale: 4.0, schedule: GuidanceSchedule::Linear, interval: Some(9) };
    let config = SamplingConfig { guidance, ..Default::default() };
    let s = streams(0, 3);
    let (codes, logits) =
        Sampler::new(&model).generate_with_logits(&cond, &config, Streams(&s), N as usize).unwrap();
    let with = model.logits(&cond, codes.tensor());
    let without = model.logits(&null, codes.tensor());
    for t in 0..N {
        let (a, b) = (with.select(1, t), without.select(1, t));
        let c = guidance.at(t as usize, N as usize);
        let expected = if c > 1.0 { &b + (&a - &b) * c } else { a };
        let error = (logits.select(1, t) - expected).abs().max().double_value(&[]);
        assert!(error < 1e-5, "code {t}: {error}");
    }
}

#[test]
fn top_k_1_is_argmax() {
    let model = mock();
    let config = SamplingConfig { filters: vec![Filter::TopK(1)], ..guided(3.0) };
    let cond = classes(&[1, 1]);
    for draw in [Streams(&streams(0, 2)), Torch] {
        let (codes, logits) =
            Sampler::new(&model).generate_with_logits(&cond, &config, draw, N as usize).unwrap();
        assert_eq!(*codes.tensor(), logits.argmax(-1, false));
    }
}

#[test]
fn top_k_v_and_top_p_1_change_nothing() {
    let model = mock();
    let open = guided(2.0);
    let wide = SamplingConfig {
        filters: vec![Filter::TopK(V), Filter::TopP(1.0), Filter::MinP(0.0), Filter::TypicalP(1.0)],
        ..open.clone()
    };
    assert_eq!(codes(&model, &[0, 1, 2], 0, &open), codes(&model, &[0, 1, 2], 0, &wide));
}

#[test]
fn image_i_is_the_same_at_any_batch_size_and_after_any_start() {
    let model = mock();
    let ids: Vec<i64> = (0..14).map(|i| i % CLASSES).collect();
    let config = SamplingConfig { filters: vec![Filter::TopP(0.9)], ..guided(2.0) };
    let whole = codes(&model, &ids, 0, &config);
    assert_ne!(whole[0], whole[3], "images of one class differ");
    for batch in [1, 3, 7] {
        let pieces: Vec<Vec<i64>> = (0..14)
            .step_by(batch)
            .flat_map(|from| codes(&model, &ids[from..14.min(from + batch)], from as u64, &config))
            .collect();
        assert_eq!(pieces, whole, "batches of {batch}");
    }
}

#[test]
fn the_cache_is_kept_between_batches_of_one_size() {
    let model = mock();
    let mut sampler = Sampler::new(&model);
    // Rows are padded to whole tiles of 8, so 2 and 5 guided images need caches of 8 and 16 rows.
    for n in [2, 2, 2, 5] {
        let s = streams(0, n);
        sampler.generate(&classes(&vec![0; n]), &guided(2.0), Streams(&s), Stepwise).unwrap();
    }
    assert_eq!(model.caches.get(), 2);
}

/// Chi-squared of 20,000 first codes against the filtered distribution, for every source of
/// randomness.
#[test]
fn frequencies_match_probabilities() {
    const DRAWS: usize = 20_000;
    let mut model = mock();
    model.spec.num_tokens = 1;
    let config = SamplingConfig { filters: vec![Filter::TopK(9)], temperature: 1.5, ..Default::default() };
    let logits = model.by_class.select(0, 1).narrow(0, 0, 1); // class 1, first code
    let p = Vec::<f64>::try_from(config.filtered(&logits).softmax(-1, Kind::Double).view(-1)).unwrap();
    tch::manual_seed(5);
    let streams = streams(0, DRAWS);
    for draw in [Streams(&streams), Gumbel(&streams), Torch] {
        let drawn = Sampler::new(&model).generate(&classes(&[1; DRAWS]), &config, draw, Stepwise).unwrap();
        let first = Vec::<i64>::try_from(drawn.codes.tensor().select(1, 0)).unwrap();
        let mut counts = [0usize; V as usize];
        first.iter().for_each(|&c| counts[c as usize] += 1);
        let mut chi2 = 0.0;
        for (count, p) in counts.iter().zip(&p) {
            let expected = p * DRAWS as f64;
            if *p == 0.0 {
                assert_eq!(*count, 0, "a removed code was drawn");
            } else {
                chi2 += (*count as f64 - expected).powi(2) / expected;
            }
        }
        assert!(chi2 < 26.1, "chi-squared {chi2} with 8 degrees of freedom (p = 0.001)");
    }
}

/// The kept set is the smallest in the order of typicality whose probability reaches p.
#[test]
fn typical_p_keeps_the_smallest_typical_set() {
    let logits = recipe_tensor("typical", 7, &[50, V], -3.0, 3.0);
    let rows = Vec::<Vec<f64>>::try_from(logits.softmax(-1, Kind::Double)).unwrap();
    for mass in [0.2, 0.5, 0.9] {
        let config = SamplingConfig { filters: vec![Filter::TypicalP(mass)], ..Default::default() };
        let kept = Vec::<Vec<bool>>::try_from(config.filtered(&logits).isfinite()).unwrap();
        for (p, kept) in rows.iter().zip(&kept) {
            let entropy: f64 = p.iter().map(|p| -p * p.ln()).sum();
            let mut order: Vec<usize> = (0..p.len()).collect();
            order.sort_by(|&a, &b| (-p[a].ln() - entropy).abs().total_cmp(&(-p[b].ln() - entropy).abs()));
            let mut sum = 0.0;
            let below = |code: &&usize| {
                let before = sum;
                sum += p[**code];
                before < mass
            };
            let mut expected = vec![false; p.len()];
            order.iter().take_while(below).for_each(|&code| expected[code] = true);
            assert_eq!(*kept, expected, "{mass}");
        }
    }
}

#[test]
fn streams_and_conditions_must_be_as_many() {
    let model = mock();
    let s = streams(0, 3);
    let e =
        Sampler::new(&model).generate(&classes(&[0, 1]), &guided(1.0), Streams(&s), Stepwise).unwrap_err();
    assert_eq!(e.to_string(), "2 conditions need as many random streams, found 3");
    assert!(Sampler::new(&model).generate(&classes(&[]), &guided(1.0), Torch, Stepwise).is_err());
}

/// A transformer in float64, so that rounding does not matter.
fn gpt() -> Gpt {
    gpt_of("num_tokens: 16\nposition: rope_2d\nconditioning: { type: text, length: 5, feature_width: 12 }\n")
}

fn gpt_of(rest: &str) -> Gpt {
    gpt_with(rest, |_| ())
}

fn gpt_with(rest: &str, change: impl Fn(&Vars)) -> Gpt {
    let text = format!("type: gpt\nwidth: 32\nlayers: 2\nheads: 4\nvocab_size: 12\n{rest}");
    let config = ArConfig::from_document(&Document::parse("test", &text).unwrap()).unwrap();
    let vars = Vars::new(Device::Cpu, Kind::Double, Build::Random);
    let gpt = Gpt::new(&vars.root(), &config).unwrap();
    let _guard = tch::no_grad_guard();
    for mut var in vars.all() {
        let shape = var.tensor.size();
        var.tensor.copy_(&recipe_tensor(&var.name, 4, &shape, -0.4, 0.4));
    }
    change(&vars);
    gpt
}

#[test]
fn speculative_codes_are_those_of_one_at_a_time() {
    let settings = [
        guided(1.0),
        guided(3.0),
        SamplingConfig { filters: vec![Filter::TopK(1)], ..guided(2.0) },
        SamplingConfig { filters: vec![Filter::TopP(0.8)], temperature: 0.7, ..guided(2.0) },
        SamplingConfig { filters: vec![Filter::TypicalP(0.7)], ..guided(2.0) },
    ];
    for config in settings {
        equal_at_any_window(&mock(), &classes(&[0, 1, 2]), &config);
        equal_at_any_window(&gpt(), &texts(2), &config);
    }
}

/// Three texts, of different lengths, for [`gpt`].
fn texts(seed: u64) -> Conditioning {
    let features = recipe_tensor("features", seed, &[3, 5, 12], -1.0, 1.0).to_kind(Kind::Double);
    let starts = Tensor::from_slice(&[0i64, 2, 4]).view([3, 1]);
    let starts = (starts + seed as i64).remainder(5);
    let mask = starts.le_tensor(&Tensor::arange(5, (Kind::Int64, Device::Cpu)));
    Conditioning::Text { features, mask }
}

/// With more codes than one graph serves, and everything that a step may depend on: learned
/// positions, rotary positions, masks, conditions of adaptive norms, guidance schedules; and for
/// consecutive batches, which reuse state.
#[test]
fn codes_of_a_captured_step_equal_those_of_plain_steps() {
    let class = "num_tokens: 81\nposition: learned\nconditioning: { type: class, num_classes: 3 }\n";
    let adaptive = format!("{class}modulation: ada_ln\n");
    let text =
        "num_tokens: 81\nposition: rope_2d\nconditioning: { type: text, length: 5, feature_width: 12 }\n";
    let cosine = Guidance { schedule: GuidanceSchedule::Cosine, interval: Some(50), scale: 3.0 };
    let scheduled = SamplingConfig { filters: vec![Filter::TopK(5)], guidance: cosine, ..Default::default() };
    let narrowed = SamplingConfig { filters: vec![Filter::TopP(0.8)], temperature: 0.7, ..guided(2.0) };
    let greedy = SamplingConfig { filters: vec![Filter::TopK(1)], ..guided(2.0) };
    let labels = || [classes(&[0, 1, 2]), classes(&[2, 2, 1])];
    equal_when_captured(&gpt_of(class), labels(), &guided(1.0));
    equal_when_captured(&gpt_of(class), labels(), &scheduled);
    equal_when_captured(&gpt_of(&adaptive), labels(), &greedy);
    equal_when_captured(&gpt_of(text), [texts(2), texts(3)], &narrowed);
}

/// The kernels for a GPU, sampling included, run on the CPU.
#[test]
fn codes_sampled_by_a_gpus_kernel_equal_those_of_the_plain_loop() {
    let class = "num_tokens: 5\nposition: learned\nconditioning: { type: class, num_classes: 3 }\n";
    let cosine = Guidance { schedule: GuidanceSchedule::Cosine, interval: Some(3), scale: 3.0 };
    let formats = GpuFormats { weights: Format::Bf16, cache: Format::Int8 };
    let backend = Backend::Gpu { formats, launcher: &CpuEmulator };
    let model = gpt_of(class).into_decoder(backend).unwrap();
    for config in [
        guided(1.0),
        SamplingConfig { filters: vec![Filter::TopK(5)], temperature: 0.7, guidance: cosine },
        SamplingConfig { filters: vec![Filter::MinP(0.3)], ..guided(2.0) },
        SamplingConfig { filters: vec![Filter::MinP(1.0)], ..guided(2.0) },
        SamplingConfig { filters: vec![Filter::TopK(1)], ..guided(2.0) },
        SamplingConfig { filters: vec![Filter::MinP(0.1), Filter::TypicalP(0.8)], ..guided(2.0) },
    ] {
        equal_when_captured(&model, [classes(&[0, 1, 2]), classes(&[2, 2, 1])], &config);
    }
}

fn equal_when_captured<M: AutoregressiveModel>(
    model: &M,
    batches: [Conditioning; 2],
    config: &SamplingConfig,
) {
    let (mut plain, mut captured) = (Sampler::new(model), Sampler::new(model));
    for (seed, cond) in batches.iter().enumerate() {
        let streams = streams(seed as u64, 3);
        let draw = Streams(&streams);
        let expected = plain.generate(cond, config, draw, Stepwise).unwrap();
        let found = captured.generate(cond, config, draw, CudaGraph).unwrap();
        assert_eq!(found.codes.tensor(), expected.codes.tensor(), "{config:?}");
    }
    assert!(captured.generate(&batches[0], config, Torch, CudaGraph).is_err());
}

fn equal_at_any_window<M: AutoregressiveModel>(model: &M, cond: &Conditioning, config: &SamplingConfig) {
    let streams = streams(0, 3);
    let mut sampler = Sampler::new(model);
    let expected = sampler.generate(cond, config, Gumbel(&streams), Stepwise).unwrap();
    for window in [1, 2, 5, 99] {
        let Generation { codes, passes } =
            sampler.generate(cond, config, Gumbel(&streams), Speculative { window }).unwrap();
        assert_eq!(codes.tensor(), expected.codes.tensor(), "window {window}, {config:?}");
        let range = if window == 1 { 3 * N as usize..=3 * N as usize } else { 6..=3 * N as usize };
        assert!(range.contains(&passes), "{passes} passes of window {window}");
    }
    assert!(sampler.generate(cond, config, Gumbel(&streams), Speculative { window: 0 }).is_err());
}

/// Image and step of a [`sampler::Error::NotFinite`].
fn refused<T>(result: Result<T, sampler::Error>) -> (u64, usize) {
    match result {
        Err(sampler::Error::NotFinite { image, step }) => (image, step),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("codes were drawn"),
    }
}

/// With every source of randomness and mode, for NaN and infinity.
#[test]
fn a_row_that_is_not_finite_is_an_error_that_names_image_and_step() {
    for wrong in [f64::NAN, f64::INFINITY] {
        let model = mock();
        let _ = model.by_class.get(2).get(5).narrow(0, 3, 1).fill_(wrong); // of the third image, at its sixth step
        let cond = classes(&[0, 1, 2]);
        let streams = streams(40, 3);
        let plain = SamplingConfig::default();
        for config in [
            plain.clone(),
            SamplingConfig { filters: vec![Filter::TopK(1)], ..plain.clone() },
            SamplingConfig { filters: vec![Filter::TopK(4), Filter::MinP(0.1)], ..plain.clone() },
            SamplingConfig { filters: vec![Filter::TopP(0.9)], ..plain.clone() },
            SamplingConfig { filters: vec![Filter::TypicalP(0.9)], ..plain.clone() },
            guided(2.0),
        ] {
            let mut sampler = Sampler::new(&model);
            assert_eq!(
                refused(sampler.generate(&cond, &config, Streams(&streams), Stepwise)),
                (42, 5),
                "{config:?}"
            );
            assert_eq!(
                refused(sampler.generate(&cond, &config, Gumbel(&streams), Stepwise)),
                (42, 5),
                "{config:?}"
            );
            assert_eq!(refused(sampler.generate(&cond, &config, Torch, Stepwise)), (2, 5), "{config:?}");
            for window in [1, 7] {
                let found = sampler.generate(&cond, &config, Gumbel(&streams), Speculative { window });
                assert_eq!(refused(found), (42, 5), "window {window}, {config:?}");
            }
        }
    }
    // Guidance makes infinities of numbers.
    let model = mock();
    let found = Sampler::new(&model).generate(&classes(&[0]), &guided(3e38), Torch, Stepwise);
    assert_eq!(refused(found), (0, 0));
}

/// One NaN among the weights, in each backend.
#[test]
fn a_weight_that_is_not_finite_is_an_error_in_every_backend() {
    const REST: &str = "num_tokens: 4\nposition: learned\nconditioning: { type: class, num_classes: 3 }\n";
    let streams = streams(40, 2);
    let cond = classes(&[0, 1]);
    for name in ["layers.0.attention.wqkv.weight", "layers.1.feed_forward.w2.weight", "output.weight"] {
        let broken =
            || gpt_with(REST, |vars| drop(vars.get(name).unwrap().get(-1).narrow(0, 3, 1).fill_(f64::NAN)));
        let drawn = |model: Decoder| {
            let mut sampler = Sampler::new(&model);
            let draw = Streams(&streams);
            assert_eq!(refused(sampler.generate(&cond, &guided(2.0), draw, Stepwise)), (40, 0), "{name}");
            if model.capturable().is_some() {
                assert_eq!(
                    refused(sampler.generate(&cond, &guided(2.0), draw, CudaGraph)),
                    (40, 0),
                    "{name}"
                );
            }
        };
        drawn(broken().into_decoder(Backend::Torch).unwrap());
        for precision in [Precision::Fp32, Precision::Bf16, Precision::Int8] {
            let backend = Backend::default_for(Device::Cpu, precision);
            drawn(broken().into_decoder(backend).unwrap());
        }
        for format in [Format::Bf16, Format::Int8] {
            let formats = GpuFormats { weights: format, cache: format };
            let backend = Backend::Gpu { formats, launcher: &CpuEmulator };
            drawn(broken().into_decoder(backend).unwrap());
        }
    }
}

/// Chi-squared of 4,000 pairs of the first two codes, sampled speculatively.
#[test]
fn speculation_leaves_the_distribution_alone() {
    const DRAWS: usize = 4_000;
    let mut model = mock();
    model.spec.num_tokens = 2;
    let config = SamplingConfig { filters: vec![Filter::TopK(3)], ..Default::default() };
    let Generation { codes, .. } = Sampler::new(&model)
        .generate(&classes(&[1; DRAWS]), &config, Gumbel(&streams(0, DRAWS)), Speculative { window: 2 })
        .unwrap();
    let pairs = Vec::<i64>::try_from(codes.tensor().select(1, 0) * V + codes.tensor().select(1, 1)).unwrap();
    let p = |logits: &Tensor| config.filtered(logits).softmax(-1, Kind::Double);
    let first = p(&model.by_class.select(0, 1).narrow(0, 0, 1)); // (1, V)
    let second = p(&(model.by_class.select(0, 1).narrow(0, 1, 1) + &model.by_code)); // (V, V)
    let joint = Vec::<f64>::try_from((first.transpose(0, 1) * second).view(-1)).unwrap();
    let mut counts = vec![0usize; (V * V) as usize];
    pairs.iter().for_each(|&pair| counts[pair as usize] += 1);
    let cells = joint.iter().zip(&counts).filter(|(p, _)| **p > 0.0);
    let chi2: f64 = cells.map(|(p, &n)| (n as f64 - p * DRAWS as f64).powi(2) / (p * DRAWS as f64)).sum();
    assert_eq!(joint.iter().zip(&counts).filter(|(p, n)| **p == 0.0 && **n > 0).count(), 0);
    assert!(chi2 < 26.1, "chi-squared {chi2} with 8 degrees of freedom (p = 0.001)");
}
