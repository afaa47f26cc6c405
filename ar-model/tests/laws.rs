//! Properties of the transformer in every flavour.

mod flavours;

use ar_model::{ArConfig, AutoregressiveModel, Backend, Conditioning, Decoder};
use base::testing::{max_abs, recipe_integers, recipe_tensor};
use base::{Mode, Precision};
use flavours::{CLASS, TEXT, both_ways, build, condition, config};
use tch::{Device, Tensor};

fn flavours() -> Vec<ArConfig> {
    vec![
        config("learned", CLASS, ""),
        config("learned", CLASS, "qk_norm: true"),
        config("learned", CLASS, "modulation: ada_ln"),
        config("learned", CLASS, "modulation: simple_ada_ln"),
        config("rope_2d", CLASS, ""),
        config("rope_2d", TEXT, ""),
        config("rope_2d", TEXT, "kv_heads: 2\nfeed_forward_width: 88\nrope_base: 100\nnorm_eps: 0.01"),
        config("learned", CLASS, "kv_heads: 1\nqk_norm: true"),
        config("learned", TEXT, ""),
    ]
}

fn packed(config: &ArConfig, precision: Precision) -> Decoder {
    build(config).into_decoder(Backend::default_for(Device::Cpu, precision)).unwrap()
}

#[test]
fn prefill_and_steps_equal_teacher_forcing_at_every_position() {
    for config in flavours() {
        let gpt = build(&config);
        let cond = condition(&config, 3);
        let codes = recipe_integers("codes", 3, &[3, 16], 40);
        let expected = gpt.logits(&cond, &codes);
        let mut cache = gpt.new_cache(3);
        // Twice, since a cache is used again.
        for _ in 0..2 {
            let mut found = vec![gpt.prefill(&cond, &mut cache)];
            for t in 0..15 {
                found.push(gpt.decode_step(&codes.narrow(1, t, 1), gpt.spec().prefix_len + t, &mut cache));
            }
            let found = Tensor::stack(&found, 1);
            assert!(max_abs(&found, &expected) < 1e-5, "{config:?}: {}", max_abs(&found, &expected));
        }
    }
}

/// In fp32 up to the order of summation; in bf16 and int8 up to the rounding of weights (2⁻⁹ of
/// each, and 1/254 of a row's largest).
#[test]
fn a_packed_model_predicts_what_the_model_predicts() {
    for config in flavours() {
        let cond = condition(&config, 3);
        let codes = recipe_integers("codes", 3, &[3, 16], 40);
        let expected = build(&config).logits(&cond, &codes);
        let size = expected.abs().max().double_value(&[]);
        for (precision, bound) in [(Precision::Fp32, 1e-5), (Precision::Bf16, 0.03), (Precision::Int8, 0.03)]
        {
            let decoder = packed(&config, precision);
            let [forced, steps] = both_ways(&decoder, &cond, &codes);
            let off = max_abs(&forced, &expected) / size;
            assert!(off < bound, "{precision} {config:?}: {off}");
            assert_eq!(forced, steps, "{precision} {config:?}");
        }
    }
}

/// Bit by bit: an image sampled alone equals the same image in a batch, on any number of threads.
#[test]
fn a_packed_models_rows_depend_on_nothing_else() {
    let config = config("rope_2d", TEXT, "");
    let codes = recipe_integers("codes", 3, &[7, 16], 40);
    let cond = condition(&config, 7);
    let Conditioning::Text { features, mask } = &cond else { unreachable!() };
    let threads = tch::get_num_threads();
    for precision in [Precision::Fp32, Precision::Bf16, Precision::Int8] {
        let mut whole = vec![];
        for n in [1, 3] {
            tch::set_num_threads(n);
            let decoder = packed(&config, precision);
            let [_, together] = both_ways(&decoder, &cond, &codes);
            for i in 0..7 {
                let one =
                    Conditioning::Text { features: features.narrow(0, i, 1), mask: mask.narrow(0, i, 1) };
                let [_, alone] = both_ways(&decoder, &one, &codes.narrow(0, i, 1));
                assert_eq!(alone.get(0), together.get(i), "{precision}, {n} threads, row {i}");
            }
            whole.push(together);
        }
        assert_eq!(whole[0], whole[1], "{precision}");
    }
    tch::set_num_threads(threads);
}

#[test]
fn chunks_equal_teacher_forcing_and_overwrite_rejected_drafts() {
    for config in flavours() {
        let gpt = build(&config);
        let cond = condition(&config, 3);
        let codes = recipe_integers("codes", 3, &[3, 16], 40);
        let expected = gpt.logits(&cond, &codes);
        let mut cache = gpt.new_cache(3);
        let _ = gpt.prefill(&cond, &mut cache);
        let wrong = (codes.narrow(1, 0, 9) + 1).remainder(40);
        let _ = gpt.decode_chunk(&wrong, gpt.spec().prefix_len, &mut cache);
        for (from, k) in [(0, 4), (4, 1), (5, 7), (12, 3)] {
            let block = codes.narrow(1, from, k);
            let found = gpt.decode_chunk(&block, gpt.spec().prefix_len + from, &mut cache);
            let error = max_abs(&found, &expected.narrow(1, from + 1, k));
            assert!(error < 1e-5, "{config:?}, codes {from}..{}: {error}", from + k);
        }
    }
}

#[test]
fn the_future_does_not_influence_the_past() {
    for config in flavours() {
        let gpt = build(&config);
        let cond = condition(&config, 2);
        let codes = recipe_integers("codes", 3, &[2, 16], 40);
        let changed = codes.copy();
        changed.narrow(1, 7, 9).copy_(&((codes.narrow(1, 7, 9) + 1).remainder(40)));
        let (a, b) = (gpt.logits(&cond, &codes), gpt.logits(&cond, &changed));
        assert!(max_abs(&a.narrow(1, 0, 8), &b.narrow(1, 0, 8)) < 1e-6);
        assert!(max_abs(&a.narrow(1, 8, 8), &b.narrow(1, 8, 8)) > 1e-3);
    }
}

#[test]
fn a_sample_does_not_depend_on_its_neighbours() {
    for config in flavours() {
        let gpt = build(&config);
        let codes = recipe_integers("codes", 3, &[4, 16], 40);
        let together = gpt.logits(&condition(&config, 4), &codes);
        let alone = gpt.logits(&condition(&config, 1), &codes.narrow(0, 0, 1));
        assert!(max_abs(&together.narrow(0, 0, 1), &alone) < 1e-5);
    }
}

#[test]
fn padding_of_a_text_leaks_nothing() {
    for config in flavours().into_iter().filter(|c| c.conditioning.prefix_len() > 1) {
        let gpt = build(&config);
        let codes = recipe_integers("codes", 3, &[3, 16], 40);
        let Conditioning::Text { features, mask } = condition(&config, 3) else { panic!("a text") };
        let noise = recipe_tensor("noise", 5, &[3, 5, 12], -9.0, 9.0) * mask.logical_not().unsqueeze(2);
        let noisy = Conditioning::Text { features: &features + noise, mask: mask.shallow_clone() };
        let clean = Conditioning::Text { features, mask };
        let logits = |cond: &Conditioning| gpt.logits(cond, &codes);
        assert!(max_abs(&logits(&clean), &logits(&noisy)) < 1e-6);
        let first = |cond: &Conditioning| gpt.prefill(cond, &mut gpt.new_cache(3));
        assert!(max_abs(&first(&clean), &first(&noisy)) < 1e-6);
    }
}

#[test]
fn conditions_are_joined_dropped_and_checked() {
    for config in flavours() {
        let gpt = build(&config);
        let cond = condition(&config, 2);
        let null = gpt.null_conditioning(&cond);
        let both = Conditioning::cat(&[&cond, &null]).unwrap();
        assert_eq!(both.batch_size(), 4);
        gpt.check_conditioning(&both).unwrap();
        let drop = Tensor::from_slice(&[true, false]);
        let embedded = gpt.embed_condition(&cond, Some(&drop));
        assert!(max_abs(&embedded.get(0), &gpt.embed_condition(&null, None).get(0)) < 1e-6);
        assert!(max_abs(&embedded.get(1), &gpt.embed_condition(&cond, None).get(1)) < 1e-6);
    }
    let gpt = build(&flavours()[0]);
    let error = gpt.check_conditioning(&Conditioning::Class(Tensor::from_slice(&[11i64]))).unwrap_err();
    assert!(error.to_string().contains("0..=10"), "{error}");
    assert!(gpt.check_conditioning(&condition(&flavours()[5], 2)).is_err());
}

#[test]
fn hidden_states_of_the_last_layer_lead_to_the_logits() {
    let config = &flavours()[0];
    let gpt = build(config);
    let cond = condition(config, 2);
    let codes = recipe_integers("codes", 3, &[2, 16], 40);
    assert_eq!(gpt.hidden(&cond, &codes, 2, Mode::Eval).size(), [2, 16, 32]);
    assert!(
        max_abs(&gpt.hidden(&cond, &codes, 1, Mode::Eval), &gpt.hidden(&cond, &codes, 2, Mode::Eval)) > 1e-3
    );
}

#[test]
fn rotary_positions_follow_the_grid_of_any_size_behind_the_text() {
    const PREFIX: i64 = 120;
    let head_width = 8; // θ = 1 and 10000^(-1/2), once for the row and once for the column
    for (side, cells) in [(16, 256), (32, 1024)] {
        let table = ar_model::rope_2d(PREFIX, cells, head_width, 1e4);
        assert_eq!(table.size(), [PREFIX + cells, head_width / 2, 2]);
        assert_eq!(table.narrow(0, 0, PREFIX).abs().max().double_value(&[]), 0.0);
        for (r, c) in [(0, 0), (0, side - 1), (1, 0), (side - 1, side - 2)] {
            let row = table.get(PREFIX + r * side + c);
            let angles = [r as f64, r as f64 / 100.0, c as f64, c as f64 / 100.0];
            for (i, angle) in angles.iter().enumerate() {
                let found = [0, 1].map(|k| row.double_value(&[i as i64, k]));
                let near = (found[0] - angle.cos()).abs() < 1e-5 && (found[1] - angle.sin()).abs() < 1e-5;
                assert!(near, "cell ({r}, {c}), pair {i}: {found:?}, angle {angle}");
            }
        }
    }
}
