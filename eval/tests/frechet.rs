//! The Fréchet distance and the moments it comes from, on cases whose answer is known.

use base::testing::recipe_tensor;
use eval::{FrechetReference, Moments, ReferenceFile, Statistics, frechet_distance, frechet_of_features};
use tch::{Kind, Tensor};

fn near(found: f64, expected: f64, bound: f64) {
    assert!((found - expected).abs() <= bound, "{found}, expected {expected} within {bound}");
}

fn double(values: &[f64]) -> Tensor {
    Tensor::from_slice(values)
}

fn gaussian(mean: &Tensor, covariance: &Tensor) -> Statistics {
    Statistics::new(mean, covariance).unwrap()
}

fn diagonal(mean: &[f64], variances: &[f64]) -> Statistics {
    gaussian(&double(mean), &double(variances).diag(0))
}

/// Rows that are neither centred nor uncorrelated.
fn features(name: &str, n: i64, d: i64) -> Tensor {
    let x = recipe_tensor(name, 3, &[n, d], -1.0, 1.0).to_kind(Kind::Double);
    let mix = recipe_tensor("mix", 3, &[d, d], -1.0, 1.0).to_kind(Kind::Double);
    x.matmul(&mix) + recipe_tensor("shift", 3, &[d], 0.0, 2.0).to_kind(Kind::Double)
}

fn rotation(d: i64) -> Tensor {
    Tensor::linalg_qr(&recipe_tensor("rotation", 4, &[d, d], -1.0, 1.0).to_kind(Kind::Double), "reduced").0
}

fn norm2(x: &Tensor) -> f64 {
    x.square().sum(Kind::Double).double_value(&[])
}

#[test]
fn closed_forms() {
    // One dimension.
    near(frechet_distance(&diagonal(&[1.5], &[4.0]), &diagonal(&[-0.5], &[0.25])).unwrap(), 6.25, 1e-12);
    // Diagonal ones, and the same turned by one rotation.
    let (a, b) = ([0.5, 2.0, 3.0, 9.0], [1.0, 0.25, 7.0, 4.0]);
    let (m, n) = ([1.0, 2.0, -1.0, 0.5], [0.0, 1.0, 1.0, 0.5]);
    let means: f64 = m.iter().zip(n).map(|(x, y)| (x - y) * (x - y)).sum();
    let expected =
        means + a.iter().zip(b).map(|(x, y): (&f64, f64)| (x.sqrt() - y.sqrt()).powi(2)).sum::<f64>();
    near(frechet_distance(&diagonal(&m, &a), &diagonal(&n, &b)).unwrap(), expected, 1e-12 * expected);
    let q = rotation(4);
    let turned = |mean: &[f64], v: &[f64]| {
        gaussian(
            &q.matmul(&double(mean).unsqueeze(1)).squeeze(),
            &q.matmul(&double(v).diag(0)).matmul(&q.tr()),
        )
    };
    near(frechet_distance(&turned(&m, &a), &turned(&n, &b)).unwrap(), expected, 1e-10 * expected);
    // Two dimensions that do not commute.
    let (s, t) = (double(&[2.0, 0.7, 0.7, 1.0]).view([2, 2]), double(&[1.5, -0.4, -0.4, 3.0]).view([2, 2]));
    let determinant = |x: &Tensor| x.det().double_value(&[]);
    let product = s.matmul(&t).trace().double_value(&[]);
    let root = (product + 2.0 * (determinant(&s) * determinant(&t)).sqrt()).sqrt();
    let zero = double(&[0.0, 0.0]);
    near(frechet_distance(&gaussian(&zero, &s), &gaussian(&zero, &t)).unwrap(), 7.5 - 2.0 * root, 1e-12);
}

#[test]
fn equal_scaled_and_vanishing_covariances() {
    let s = Moments::of(&features("a", 60, 8)).unwrap().statistics().unwrap();
    let trace = s.covariance.trace().double_value(&[]);
    near(frechet_distance(&s, &s).unwrap(), 0.0, 1e-8);
    let moved = gaussian(&(&s.mean + 3.0), &s.covariance);
    near(frechet_distance(&s, &moved).unwrap(), 72.0, 72.0 * 1e-10);
    let scaled = gaussian(&s.mean, &(&s.covariance * 6.25));
    near(frechet_distance(&s, &scaled).unwrap(), 2.25 * trace, 2.25 * trace * 1e-10);
    let none = gaussian(&(&s.mean + 1.0), &s.covariance.zeros_like());
    for found in [frechet_distance(&s, &none).unwrap(), frechet_distance(&none, &s).unwrap()] {
        near(found, 8.0 + trace, (8.0 + trace) * 1e-12);
    }
}

#[test]
fn swapping_rotating_permuting_scaling_and_shifting() {
    let (a, b) = (features("a", 80, 8), features("b", 70, 8) * 1.3);
    let expected = frechet_of_features(&a, &b).unwrap();
    let same = |found: f64| near(found, expected, expected * 1e-9);
    same(frechet_of_features(&b, &a).unwrap());
    let q = rotation(8);
    same(frechet_of_features(&a.matmul(&q), &b.matmul(&q)).unwrap());
    same(frechet_of_features(&a.flip([0]), &b).unwrap());
    same(frechet_of_features(&a.flip([1]), &b.flip([1])).unwrap());
    same(frechet_of_features(&(&a + 5.0), &(&b + 5.0)).unwrap());
    same(frechet_of_features(&(&a * 3.0), &(&b * 3.0)).unwrap() / 9.0);
}

#[test]
fn both_routes_agree_where_covariances_are_singular() {
    let (a, b) = (features("a", 30, 96), features("b", 25, 96) * 1.2);
    let nuclear = frechet_of_features(&a, &b).unwrap();
    let of = |x: &Tensor| Moments::of(x).unwrap().statistics().unwrap();
    let reference = FrechetReference::new(&of(&a)).unwrap();
    assert_eq!(reference.rank(), 29);
    near(reference.distance(&of(&b)).unwrap(), nuclear, 2e-5);
    near(reference.distance(&of(&a)).unwrap(), 0.0, 2e-5);
    near(
        frechet_of_features(&a, &features("c", 300, 96)).unwrap(),
        frechet_distance(&of(&a), &of(&features("c", 300, 96))).unwrap(),
        2e-5,
    );
}

#[test]
fn the_covariance_is_unbiased_and_stands_large_offsets() {
    let x = double(&[0.0, 2.0, 2.0, 0.0]).view([2, 2]);
    let s = Moments::of(&x).unwrap().statistics().unwrap();
    assert_eq!(Vec::<f64>::try_from(s.covariance.view(-1)).unwrap(), [2.0, -2.0, -2.0, 2.0]);
    let x = features("a", 50, 6);
    let of = |x: &Tensor| Moments::of(x).unwrap().statistics().unwrap().covariance;
    let off = (of(&(&x + 1e4)) - of(&x)).abs().max().double_value(&[]);
    assert!(off < 1e-7, "{off}");
}

#[test]
fn shards_of_any_size_merge_to_the_whole() {
    let x = features("a", 41, 6);
    let whole = Moments::of(&x).unwrap().statistics().unwrap();
    for sizes in [vec![41], vec![40, 1], vec![0, 20, 21], vec![1, 1, 0, 9, 10, 19, 1]] {
        let mut merged = Moments::new(6);
        let mut at = 0;
        for n in sizes {
            merged.merge(&Moments::of(&x.narrow(0, at, n)).unwrap()).unwrap();
            at += n;
        }
        assert_eq!(merged.count(), 41);
        let found = merged.statistics().unwrap();
        assert!(norm2(&(found.mean - &whole.mean)) < 1e-24);
        assert!((found.covariance - &whole.covariance).abs().max().double_value(&[]) < 1e-9);
    }
}

#[test]
fn the_distance_between_halves_of_one_sample_falls_like_one_over_n() {
    let halves = |n: i64| {
        let x = features("sample", 2 * n, 4);
        frechet_of_features(&x.narrow(0, 0, n), &x.narrow(0, n, n)).unwrap() * n as f64
    };
    let (few, many) = (halves(100), halves(1600));
    assert!(few > 0.0 && many > 0.0 && many / few < 8.0 && few / many < 8.0, "{few} {many}");
}

#[test]
fn one_image_unlike_dimensions_and_numbers_that_are_none_are_refused() {
    let x = features("a", 5, 6);
    let one = Moments::of(&x.narrow(0, 0, 1)).unwrap();
    assert!(one.statistics().unwrap_err().to_string().contains("at least 2, found 1"));
    let error = frechet_of_features(&x, &x.narrow(1, 0, 5)).unwrap_err().to_string();
    assert!(error.contains('6') && error.contains('5'), "{error}");
    let holed = Tensor::cat(&[x.narrow(0, 0, 2), x.narrow(0, 2, 3) / 0.0], 0);
    assert!(Moments::of(&holed).unwrap_err().to_string().contains("row 2"));
    assert!(Moments::of(&x.get(0)).is_err());
    assert!(Statistics::new(&x.get(0), &x).is_err());
}

#[test]
fn statistics_that_are_none_are_refused_by_file_and_member() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let good = diagonal(&[0.0, 1.0, 2.0], &[1.0, 2.0, 0.0]);
    let open = |mean: &Tensor, covariance: &Tensor| {
        base::npz::write(&path, &[("mu", mean), ("sigma", covariance)]).unwrap();
        ReferenceFile::open_checked(&path).map_err(|e| e.to_string())
    };
    assert_eq!(open(&good.mean, &good.covariance).unwrap().pool.unwrap().dimension(), 3);
    // What rounding to float32 leaves is let pass.
    let x = features("singular", 5, 12);
    let rounded = Moments::of(&x).unwrap().statistics().unwrap();
    assert!(open(&rounded.mean.to_kind(Kind::Float), &rounded.covariance.to_kind(Kind::Float)).is_ok());
    let upper = Tensor::ones([3, 3], (Kind::Double, tch::Device::Cpu)).triu(1) * 0.5;
    let cases = [
        (good.mean.copy(), -&good.covariance, "`sigma` has negative variances"),
        (good.mean.copy(), &good.covariance + &upper + upper.tr() * 5.0, "`sigma` is not symmetric"),
        (good.mean.copy(), &good.covariance + (&upper + upper.tr()) * 5.0, "`sigma` has negative variances"),
        (good.mean.copy(), &good.covariance * f64::NAN, "`sigma` holds values that are not finite"),
        (&good.mean / 0.0, good.covariance.copy(), "`mu` holds values that are not finite"),
        (double(&[1.0]), good.covariance.copy(), "expected a mean (D)"),
    ];
    for (mean, covariance, expected) in cases {
        let found = open(&mean, &covariance).unwrap_err();
        assert!(found.contains("x.npz") && found.contains(expected), "expected {expected}: {found}");
    }
}
