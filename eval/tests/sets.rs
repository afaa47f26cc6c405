//! Metrics of sets of features, logits and codes, on cases whose answer is known.

use base::Codes;
use base::testing::{recipe_integers, recipe_tensor};
use eval::{
    ADM_SPLIT_SIZE, CodebookUsage, Estimator, InceptionScore, KidSettings, Manifold, Splits, cmmd,
    inception_score, kid, kid_on, polynomial_mmd2, prdc, precision_recall,
};
use tch::{Device, Kind, Tensor};

fn near(found: f64, expected: f64, bound: f64) {
    assert!((found - expected).abs() <= bound, "{found}, expected {expected} within {bound}");
}

fn uniform(name: &str, n: i64, d: i64) -> Tensor {
    recipe_tensor(name, 5, &[n, d], -1.0, 1.0)
}

fn on_a_line(values: &[f64]) -> Tensor {
    Tensor::from_slice(values).view([-1, 1])
}

#[test]
fn inception_score_of_known_cases() {
    let adm = Splits::OfSize(ADM_SPLIT_SIZE);
    let score = |logits: &Tensor| inception_score(logits, &adm).unwrap().mean;
    near(score(&Tensor::ones([40, 8], (Kind::Float, Device::Cpu))), 1.0, 1e-12);
    let sure = Tensor::eye(6, (Kind::Double, Device::Cpu)) * 1e4;
    near(score(&sure.repeat([4, 1])), 6.0, 1e-11);
    near(score(&sure.narrow(0, 0, 2)), 2.0, 1e-12);
    let logits = uniform("logits", 30, 8).to_kind(Kind::Double) * 4.0;
    let shift = uniform("shift", 30, 1).to_kind(Kind::Double) * 9.0;
    near(score(&(&logits + shift)), score(&logits), 1e-12);
}

#[test]
fn chunks_are_of_five_thousand_rows() {
    let adm = Splits::OfSize(ADM_SPLIT_SIZE);
    let chunks: std::collections::BTreeSet<u64> = (0..50_000).map(|i| adm.chunk(i)).collect();
    assert_eq!(chunks.len(), 10);
    let scores = inception_score(&uniform("logits", 5001, 3), &adm).unwrap().chunks;
    assert_eq!(scores.len(), 2);
    near(scores[1], 1.0, 1e-12);
    // torch-fidelity's chunks differ by at most one row and hold each row once.
    let fidelity = Splits::fidelity(57, 10);
    let mut sizes = [0; 10];
    (0..57).for_each(|i| sizes[fidelity.chunk(i) as usize] += 1);
    assert_eq!(sizes, [5, 6, 6, 5, 6, 6, 5, 6, 6, 6]);
}

#[test]
fn inception_scores_merge_from_any_order_and_number_of_parts() {
    let logits = uniform("logits", 50, 8) * 5.0;
    let splits = Splits::OfSize(20);
    let whole = inception_score(&logits, &splits).unwrap();
    for world in [1, 2, 3, 7] {
        let mut merged = InceptionScore::default();
        for rank in (0..world).rev() {
            let mine: Vec<i64> = (0..50).filter(|i| i % world == rank).collect();
            let chunks: Vec<u64> = mine.iter().map(|&i| splits.chunk(i as u64)).collect();
            let mut part = InceptionScore::default();
            part.update(&logits.index_select(0, &Tensor::from_slice(&mine)), &chunks).unwrap();
            merged.merge(&part).unwrap();
        }
        near(merged.scores().unwrap().mean, whole.mean, 1e-12 * whole.mean);
    }
}

#[test]
fn identical_and_distant_sets() {
    let x = uniform("x", 60, 5);
    let here = Manifold::new(&x, 3).unwrap();
    let found = precision_recall(&here, &here).unwrap();
    assert_eq!((found.precision, found.recall), (1.0, 1.0));
    let far = Manifold::new(&(&x + 1e4), 3).unwrap();
    let found = precision_recall(&far, &here).unwrap();
    assert_eq!((found.precision, found.recall), (0.0, 0.0));
    let found = prdc(&far, &here).unwrap();
    assert_eq!((found.density, found.coverage), (0.0, 0.0));
}

#[test]
fn a_row_on_a_surface_is_inside_for_adm_and_outside_for_prdc() {
    let reference = Manifold::new(&on_a_line(&[0.0, 1.0, 2.0, 3.0]), 1).unwrap();
    let samples = Manifold::new(&on_a_line(&[-1.0, 4.5, 1.5]), 1).unwrap();
    assert_eq!(precision_recall(&samples, &reference).unwrap().precision, 2.0 / 3.0);
    assert_eq!(prdc(&samples, &reference).unwrap().precision, 1.0 / 3.0);
}

#[test]
fn copies_of_one_row_have_no_extent() {
    let reference = Tensor::cat(&[on_a_line(&[7.0, 7.0]), on_a_line(&[1.0, 2.0, 3.0, 4.0, 5.0, 9.0])], 0);
    let samples = Manifold::new(&on_a_line(&[7.0; 4]), 3).unwrap();
    let found = precision_recall(&samples, &Manifold::new(&reference, 3).unwrap()).unwrap();
    assert_eq!((found.precision, found.recall), (1.0, 0.25));
}

#[test]
fn manifolds_do_not_see_rotation_by_a_right_angle_and_scale() {
    let lattice = |name, n| recipe_integers(name, 6, &[n, 4], 5).to_kind(Kind::Float);
    let (a, b) = (lattice("a", 70), lattice("b", 50));
    let of = |a: &Tensor, b: &Tensor| {
        let (a, b) = (Manifold::new(a, 3).unwrap(), Manifold::new(b, 3).unwrap());
        (precision_recall(&a, &b).unwrap(), prdc(&a, &b).unwrap())
    };
    let expected = of(&a, &b);
    assert_eq!(of(&a.flip([1]), &b.flip([1])), expected);
    assert_eq!(of(&(&a * -4.0), &(&b * -4.0)), expected);
    // Any order of rows, and sets larger than a tile.
    assert_eq!(of(&a.flip([0]), &b), expected);
    let (many, few) = (uniform("many", 5000, 2), uniform("few", 40, 2));
    let (large, small) = (Manifold::new(&many, 3).unwrap(), Manifold::new(&few, 3).unwrap());
    let plain = |q: &Tensor, m: &Tensor, r: &Tensor| {
        let q: Vec<Vec<f64>> =
            (0..q.size()[0]).map(|i| Vec::try_from(q.get(i).to_kind(Kind::Double)).unwrap()).collect();
        let m: Vec<Vec<f64>> =
            (0..m.size()[0]).map(|i| Vec::try_from(m.get(i).to_kind(Kind::Double)).unwrap()).collect();
        let r = Vec::<f64>::try_from(r).unwrap();
        let d2 = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(x, y)| (x - y) * (x - y)).sum::<f64>();
        q.iter().map(|q| m.iter().zip(&r).any(|(m, r)| d2(q, m) <= *r)).collect::<Vec<bool>>()
    };
    assert_eq!(large.membership(&few).unwrap().within, plain(&few, &many, large.squared_radii()));
    assert_eq!(small.membership(&many).unwrap().within, plain(&many, &few, small.squared_radii()));
}

#[test]
fn kernel_distances_of_known_cases() {
    let (x, y) = (uniform("x", 2, 3).to_kind(Kind::Double), uniform("y", 2, 3).to_kind(Kind::Double));
    let k = |a: Tensor, b: Tensor| (a.dot(&b).double_value(&[]) / 3.0 + 1.0).powi(3);
    let cross: f64 = (0..4).map(|i| k(x.get(i / 2), y.get(i % 2))).sum();
    let expected = k(x.get(0), x.get(1)) + k(y.get(0), y.get(1)) - cross / 2.0;
    near(polynomial_mmd2(&x, &y, Estimator::Unbiased).unwrap(), expected, 1e-12);
    let x = uniform("x", 40, 6);
    near(polynomial_mmd2(&x, &x, Estimator::Biased).unwrap(), 0.0, 1e-12);
    near(cmmd(&x, &x).unwrap(), 0.0, 1e-9);
    assert!(kid(&x, &x, &KidSettings::default()).unwrap_err().to_string().contains("1000"));
    assert!(kid_on(&x, &x, &[(vec![0, 1], vec![0, 40])]).unwrap_err().to_string().contains("40"));
}

#[test]
fn kid_of_one_distribution_is_zero_on_average() {
    let draws = 200;
    let x = uniform("x", 40 * draws, 4);
    let one = |i: i64| {
        let (a, b) = (x.narrow(0, 40 * i, 20), x.narrow(0, 40 * i + 20, 20));
        polynomial_mmd2(&a, &b, Estimator::Unbiased).unwrap()
    };
    let values: Vec<f64> = (0..draws).map(one).collect();
    let mean = values.iter().sum::<f64>() / draws as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (draws - 1) as f64;
    assert!(mean.abs() < 3.0 * (variance / draws as f64).sqrt(), "{mean}");
}

#[test]
fn codebook_usage_of_known_cases() {
    let usage = |codes: Tensor| {
        let mut usage = CodebookUsage::new(8);
        usage.update(&Codes::new(codes).unwrap()).unwrap();
        usage.scores().unwrap()
    };
    let every = usage(Tensor::arange(8, (Kind::Int64, Device::Cpu)).view([2, 4]));
    near(every.perplexity, 8.0, 1e-12 * 8.0);
    assert_eq!((every.usage, every.dead, every.usage_per_image), (1.0, 0, 0.5));
    let one = usage(Tensor::zeros([2, 4], (Kind::Int64, Device::Cpu)));
    assert_eq!((one.usage, one.perplexity), (0.125, 1.0));
    let outside = Codes::new(Tensor::full([1, 2], 8i64, (Kind::Int64, Device::Cpu))).unwrap();
    assert!(CodebookUsage::new(8).update(&outside).unwrap_err().to_string().contains("0..8"));
    assert!(CodebookUsage::new(8).scores().is_err());
}
