//! The kernels for a GPU, run on the CPU: the same source and the same forward pass.

mod flavours;

use ar_model::{ArConfig, AutoregressiveModel, Backend, Decoder, GpuFormats};
use base::testing::{max_abs, recipe_integers};
use cuda_kernels::Format::{self, Bf16, Int8};
use flavours::{CLASS, TEXT, both_ways, build, condition, config};
use libtorch_ext::cuda_kernel::CpuEmulator;
use tch::{Kind, Tensor};

fn backend(weights: Format, cache: Format) -> Backend {
    Backend::Gpu { formats: GpuFormats { weights, cache }, launcher: &CpuEmulator }
}

fn packed(config: &ArConfig, weights: Format, cache: Format) -> Decoder {
    build(config).into_decoder(backend(weights, cache)).unwrap()
}

/// As small as possible, since the emulator runs threads one after the other.
fn small(position: &str, conditioning: &str, extra: &str) -> ArConfig {
    config(position, conditioning, &format!("layers: 2\n{extra}"))
}

/// Up to the rounding of weights and cache (2⁻⁹ of each number; 1/254 of the largest of a row,
/// or of a head), in products of few rows and in libtorch's of many, whose inputs are bf16.
#[test]
fn a_model_packed_for_a_gpu_predicts_what_the_model_predicts() {
    let flavours = [
        small("learned", CLASS, ""),
        small("rope_2d", TEXT, "width: 48\nheads: 4"), // heads of 12, stored as 16
        small("rope_2d", CLASS, "kv_heads: 2\nfeed_forward_width: 48\nnorm_eps: 0.01"),
        small("rope_2d", CLASS, "kv_heads: 2\nqk_norm: true"),
        small("learned", CLASS, "width: 48\nheads: 4\nqk_norm: true"), // norms of 12 channels
    ];
    for config in flavours {
        for batch in [2, 9] {
            let cond = condition(&config, batch);
            let codes = recipe_integers("codes", 3, &[batch, 16], 40);
            let expected = build(&config).logits(&cond, &codes);
            let size = expected.abs().max().double_value(&[]);
            for formats in [[Bf16, Bf16], [Int8, Int8]] {
                let [forced, steps] = both_ways(&packed(&config, formats[0], formats[1]), &cond, &codes);
                for found in [forced, steps] {
                    let off = max_abs(&found, &expected) / size;
                    assert!(off < 0.03, "{formats:?} {batch} {config:?}: {off}");
                }
            }
        }
    }
}

/// A captured step, with its position in a tensor, equals the plain step, and a chunk of codes
/// equals its steps.
#[test]
fn captured_steps_and_chunks_equal_plain_steps() {
    let config = small("rope_2d", TEXT, "");
    let (gpt, cond) = (packed(&config, Int8, Int8), condition(&config, 2));
    let codes = recipe_integers("codes", 3, &[2, 16], 40);
    let [mut steps, mut captured, mut chunks] = [(); 3].map(|()| gpt.new_cache(2));
    for cache in [&mut steps, &mut captured, &mut chunks] {
        let _ = gpt.prefill(&cond, cache);
    }
    let step = gpt.capturable().unwrap();
    let mut found: Vec<Tensor> = vec![];
    for t in 0..4 {
        let (code, position) = (codes.narrow(1, t, 1), 5 + t);
        let expected = gpt.decode_step(&code, position, &mut steps);
        let tensor = Tensor::from_slice(&[position]);
        assert_eq!(step.decode_step_at(&code, &tensor, 21, &mut captured), expected, "{t}");
        found.push(expected);
    }
    let chunk = gpt.decode_chunk(&codes.narrow(1, 0, 4), 5, &mut chunks);
    assert_eq!(chunk, Tensor::stack(&found, 1));
}

#[test]
fn few_rows_depend_on_nothing_else() {
    let config = small("rope_2d", CLASS, "");
    let gpt = packed(&config, Bf16, Int8);
    let cond = condition(&config, 7);
    let mut cache = gpt.new_cache(7);
    let together = gpt.prefill(&cond, &mut cache);
    for i in 0..7 {
        let one = cond.select(&Tensor::from_slice(&[i]));
        let alone = gpt.prefill(&one, &mut gpt.new_cache(1)).get(0);
        assert_eq!(alone, together.get(i), "{}", max_abs(&alone, &together.get(i)));
    }
}

#[test]
fn the_8_bit_cache_is_half_as_large() {
    let config = small("learned", CLASS, "width: 256\nheads: 4");
    let [bf16, int8] = [Bf16, Int8].map(|cache| packed(&config, Bf16, cache).new_cache(2).bytes());
    assert_eq!((int8 * 64, 64 + 4), (bf16 / 2 * (64 + 4), 68)); // plus a scale per head
    assert_eq!(bf16, 2 * 2 * 2 * 17 * 256 * Kind::BFloat16.elt_size_in_bytes() as u64);
}

#[test]
fn unsupported_options_are_refused() {
    for (extra, what) in
        [("modulation: ada_ln", "adaptive norms"), ("vocab_size: 41", "an odd number of codes")]
    {
        let gpt = build(&config("learned", CLASS, extra));
        let error = gpt.into_decoder(backend(Bf16, Bf16)).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}
