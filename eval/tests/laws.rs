//! Properties of the pixel metrics, and SSIM against a direct implementation of its definition.

use base::testing::{recipe_integers, recipe_tensor};
use base::{Images, ImagesU8};
use eval::{DataRange, PixelMetrics, PixelPair, Reconstruction, Window, psnr, ssim};
use tch::{Kind, Tensor};

const SHAPE: [i64; 4] = [3, 3, 13, 9];

fn pair() -> (ImagesU8, Images) {
    let original = recipe_tensor("original", 1, &SHAPE, -1.0, 1.0);
    let noise = recipe_integers("noise", 2, &SHAPE, 41) - 20;
    let shifted = Images::new(original.copy()).unwrap().to_u8().into_tensor().to_kind(Kind::Int64) + noise;
    let rounded = ImagesU8::new(shifted.clamp(0, 255).to_kind(Kind::Uint8)).unwrap();
    (rounded, Images::new(original).unwrap())
}

fn published(pair: &(ImagesU8, Images)) -> PixelPair {
    PixelPair::published(&pair.0, &pair.1).unwrap()
}

fn rows(pair: &(ImagesU8, Images), from: i64, n: i64) -> (ImagesU8, Images) {
    let a = ImagesU8::new(pair.0.tensor().narrow(0, from, n)).unwrap();
    (a, Images::new(pair.1.tensor().narrow(0, from, n)).unwrap())
}

fn grey(v: i64) -> ImagesU8 {
    ImagesU8::new(Tensor::full([1, 3, 8, 8], v, (Kind::Uint8, tch::Device::Cpu))).unwrap()
}

/// One channel, by the formula, with loops.
fn plain_ssim(a: &[f64], b: &[f64], height: usize, width: usize, range: f64) -> f64 {
    let (mut total, mut windows) = (0.0, 0.0);
    for y in 0..=height - 7 {
        for x in 0..=width - 7 {
            let at =
                |v: &[f64]| -> Vec<f64> { (0..49).map(|i| v[(y + i / 7) * width + x + i % 7]).collect() };
            let (p, q) = (at(a), at(b));
            let mean = |v: &[f64]| v.iter().sum::<f64>() / 49.0;
            let (mp, mq) = (mean(&p), mean(&q));
            let cov = |u: &[f64], mu: f64, v: &[f64], mv: f64| {
                u.iter().zip(v).map(|(s, t)| (s - mu) * (t - mv)).sum::<f64>() / 48.0
            };
            let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
            total += (2.0 * mp * mq + c1) * (2.0 * cov(&p, mp, &q, mq) + c2)
                / ((mp * mp + mq * mq + c1) * (cov(&p, mp, &p, mp) + cov(&q, mq, &q, mq) + c2));
            windows += 1.0;
        }
    }
    total / windows
}

fn channel(t: &Tensor, image: i64, channel: i64) -> Vec<f64> {
    Vec::<f64>::try_from(t.get(image).get(channel).to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

#[test]
fn ssim_is_its_definition() {
    let (a, b) = pair();
    for (range, l) in [(DataRange::Unit, 1.0), (DataRange::Published, 2.0)] {
        let found = ssim(&PixelPair::published(&a, &b).unwrap(), range, Window::Uniform).unwrap();
        for (image, found) in found.iter().enumerate() {
            let expected: f64 = (0..3)
                .map(|c| {
                    let p: Vec<f64> =
                        channel(a.tensor(), image as i64, c).iter().map(|v| v / 255.0).collect();
                    let q: Vec<f64> =
                        channel(b.tensor(), image as i64, c).iter().map(|v| (v + 1.0) / 2.0).collect();
                    plain_ssim(&p, &q, 13, 9, l)
                })
                .sum::<f64>()
                / 3.0;
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}

#[test]
fn psnr_of_a_constant_error_is_known() {
    let found = psnr(&PixelPair::stored(&grey(100), &grey(110)).unwrap()).unwrap()[0];
    assert!((found - 28.130_803_608_679_1).abs() < 1e-9, "{found}");
    assert_eq!(psnr(&PixelPair::stored(&grey(100), &grey(100)).unwrap()).unwrap()[0], f64::INFINITY);
}

#[test]
fn ssim_of_constants_is_known_and_of_an_image_with_itself_one() {
    let (a, b) = (100.0 / 255.0, 110.0 / 255.0);
    let c1 = 1e-4;
    let expected = (2.0 * a * b + c1) / (a * a + b * b + c1);
    let pair = PixelPair::stored(&grey(100), &grey(110)).unwrap();
    assert!((ssim(&pair, DataRange::Unit, Window::Uniform).unwrap()[0] - expected).abs() < 1e-12);
    let noisy = self::pair().0;
    let same = PixelPair::stored(&noisy, &noisy).unwrap();
    for value in ssim(&same, DataRange::Unit, Window::Uniform).unwrap() {
        assert!((value - 1.0).abs() < 1e-12, "{value}");
    }
}

#[test]
fn ssim_is_symmetric_and_does_not_see_flips_and_transposition() {
    let (a, original) = pair();
    let b = original.to_u8();
    let score = |a: &Tensor, b: &Tensor| {
        let images = |t: &Tensor| ImagesU8::new(t.contiguous()).unwrap();
        ssim(&PixelPair::stored(&images(a), &images(b)).unwrap(), DataRange::Unit, Window::Uniform).unwrap()
    };
    let (a, b) = (a.tensor(), b.tensor());
    let expected = score(a, b);
    let others = [score(b, a), score(&a.flip([2]), &b.flip([2])), score(&a.flip([3]), &b.flip([3])), {
        score(&a.transpose(2, 3), &b.transpose(2, 3))
    }];
    for other in others {
        assert!(expected.iter().zip(other).all(|(x, y)| (x - y).abs() < 1e-10));
    }
}

#[test]
fn identical_pairs_are_counted_and_left_out_of_the_mean_psnr() {
    let mut scores = Reconstruction::default();
    scores.update(&PixelPair::stored(&grey(100), &grey(110)).unwrap(), PixelMetrics::ALL).unwrap();
    scores.update(&PixelPair::stored(&grey(7), &grey(7)).unwrap(), PixelMetrics::ALL).unwrap();
    assert_eq!((scores.count(), scores.identical()), (2, 1));
    assert!((scores.means().unwrap().psnr - 28.130_803_608_679_1).abs() < 1e-9);
    let mut only = Reconstruction::default();
    only.update(&PixelPair::stored(&grey(7), &grey(7)).unwrap(), PixelMetrics::ALL).unwrap();
    assert_eq!(only.means().unwrap().psnr, f64::INFINITY);
}

#[test]
fn batching_and_merging_do_not_matter() {
    let all = pair();
    let mut whole = Reconstruction::default();
    whole.update(&published(&all), PixelMetrics::ALL).unwrap();
    let (mut first, mut rest) = (Reconstruction::default(), Reconstruction::default());
    let (head, tail) = (rows(&all, 0, 1), rows(&all, 1, 2));
    rest.update(&published(&tail), PixelMetrics::ALL).unwrap();
    first.update(&published(&head), PixelMetrics::ALL).unwrap();
    first.merge(&rest);
    let (a, b) = (whole.means().unwrap(), first.means().unwrap());
    assert_eq!(first.count(), 3);
    assert!((a.psnr - b.psnr).abs() < 1e-12 && (a.ssim.unwrap() - b.ssim.unwrap()).abs() < 1e-12);
    assert!(a.ssim_published > a.ssim, "the published data range flatters");
}

#[test]
fn unlike_shapes_and_tiny_images_are_refused() {
    let all = pair();
    let one = rows(&all, 0, 1);
    assert!(PixelPair::published(&one.0, &all.1).is_err());
    let tiny = ImagesU8::new(Tensor::zeros([1, 3, 6, 9], (Kind::Uint8, tch::Device::Cpu))).unwrap();
    let pair = PixelPair::stored(&tiny, &tiny).unwrap();
    let error = ssim(&pair, DataRange::Unit, Window::Uniform).unwrap_err();
    assert!(error.to_string().contains("6x9"), "{error}");
    // PSNR has no window, and alone it computes no SSIM.
    let alone = PixelMetrics { ssim: false, ssim_published: false };
    let scores = Reconstruction::default().update(&pair, alone).unwrap();
    assert_eq!((scores[0].psnr, scores[0].ssim, scores[0].ssim_published), (f64::INFINITY, None, None));
    assert!(Reconstruction::default().update(&pair, PixelMetrics::ALL).is_err());
}
