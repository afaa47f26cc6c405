//! Sampling of a code, compared with a naive loop.

use cpu_kernels::sample::{inverse_cdf_sample, top_k_mask};
use cpu_kernels::{Format, Isa};

fn noise(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 11) as f64 / (1u64 << 53) as f64
}

#[test]
fn the_largest_stay_with_their_ties() {
    let row = [1.0f32, 3.0, 2.0, 3.0, 3.0, f32::NEG_INFINITY];
    let kept = |k| {
        let mut row = row.to_vec();
        top_k_mask(&mut row, k);
        row.iter().filter(|l| l.is_finite()).count()
    };
    assert_eq!([1, 2, 3, 4, 5, 0, 6, 99].map(kept), [3, 3, 3, 4, 5, 5, 5, 5]);
}

#[test]
fn inversion_takes_the_first_entry_whose_sum_exceeds_the_uniform() {
    let p = [0.0f32, 0.25, 0.0, 0.5, 0.25, 0.0];
    let logits = p.map(f32::ln);
    for isa in Isa::available(Format::F32) {
        let at = |u: f64| inverse_cdf_sample(isa, &logits, u).unwrap();
        assert_eq!([0.0, 0.2499, 0.2501, 0.7499, 0.7501].map(at), [1, 1, 3, 3, 4]);
        assert_eq!(at(1.0 - f64::EPSILON), 4, "neither past the end nor on a removed entry");
    }
}

#[test]
fn inversion_agrees_with_the_obvious_loop_on_long_rows() {
    let mut state = 1;
    for isa in Isa::available(Format::F32) {
        for _ in 0..50 {
            let logits: Vec<f32> = (0..3000).map(|_| (noise(&mut state) * 20.0 - 10.0) as f32).collect();
            let weights: Vec<f64> = logits.iter().map(|l| f64::from(*l).exp()).collect();
            let total: f64 = weights.iter().sum();
            let u = noise(&mut state);
            let mut sum = 0.0;
            let expected = weights.iter().position(|w| {
                sum += w;
                sum > u * total
            });
            assert_eq!(inverse_cdf_sample(isa, &logits, u), expected);
        }
    }
}

/// At the start, within a vector, and in the remainder after the vectors.
#[test]
fn no_entry_is_taken_from_a_row_that_is_no_distribution() {
    for isa in Isa::available(Format::F32) {
        for place in [0, 17, 200, 300] {
            for wrong in [f32::NAN, -f32::NAN, f32::INFINITY] {
                let mut row = vec![0.5f32; 301];
                row[place] = wrong;
                assert_eq!(inverse_cdf_sample(isa, &row, 0.5), None, "{wrong} at {place}");
                top_k_mask(&mut row, 7);
                assert_eq!(inverse_cdf_sample(isa, &row, 0.5), None, "{wrong} at {place}, after a filter");
            }
        }
        assert_eq!(inverse_cdf_sample(isa, &[f32::NEG_INFINITY; 40], 0.5), None);
    }
}
