//! MS-SSIM (Wang, Simoncelli and Bovik, 2003): the mean contrast and structure of SSIM at five
//! scales and its luminance at the coarsest, multiplied with exponents. As pytorch-msssim computes
//! it: Gaussian window, average pooling of 2 (odd sides are padded with zeros), negative means
//! count as 0, mean over channels last.
//!
//! Five scales take images of more than 160 pixels. Smaller ones get the scales that they have room
//! for, with the exponents scaled to sum 1, under a name of their own: `ms_ssim_3` of 64-pixel
//! images.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use settings::Metric;
use tch::{Kind, Tensor};

use super::pairs::{PairSums, ShowImages};
use crate::batch::{BatchFeatures, EvalBatch, Item, MetricValues};
use crate::math::pixels::{PixelPair, to_vec};
use crate::math::ssim::{Window, ssim_factors};
use crate::metric::{Distribution, MetricSpec, MetricState, Minimum, Needs, ScoreInputs};
use crate::score::{Better, Score};
use crate::{Error, Result};

/// Mean over images.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs::PAIRS,
    minimum: Minimum::any,
    start: |_| Ok(Box::new(MsSsim { scales: None, sums: PairSums::new(Some(SHOW.range)) })),
};

const SHOW: ShowImages =
    ShowImages { unit: "MS-SSIM", range: (0.0, 1.0), title: "MS-SSIM", suffix: "", digits: 4 };

/// Exponents of the scales, the finest first.
const WEIGHTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// Number of scales that images with this shorter side have room for.
fn scales(side: i64) -> usize {
    let border = Window::Gaussian.side() - 1;
    (0..WEIGHTS.len()).take_while(|&scale| side > border << scale).count()
}

/// MS-SSIM of each image, and the number of scales.
///
/// # Errors
/// Returns an error if the images are smaller than the window.
pub fn ms_ssim(pair: &PixelPair) -> Result<(Vec<f64>, usize)> {
    let (n, _, h, w) = pair.images.size4()?;
    let scales = scales(h.min(w)).max(1); // of none, the window's error says why
    // As published, the five do not sum to 1 exactly.
    let sum = if scales < WEIGHTS.len() { WEIGHTS[..scales].iter().sum() } else { 1.0 };
    let (mut a, mut b) = (pair.images.shallow_clone(), pair.originals.shallow_clone());
    let mut product = Tensor::ones([n, 3], (Kind::Double, a.device()));
    for (scale, weight) in (1..).zip(&WEIGHTS[..scales]) {
        let [luminance, contrast] = ssim_factors("MS-SSIM", &a, &b, Window::Gaussian)?;
        let map = if scale < scales { contrast } else { luminance * contrast };
        let mean = map.mean_dim([2i64, 3].as_slice(), false, Kind::Double).clamp_min(0.0);
        product *= mean.pow_tensor_scalar(weight / sum);
        (a, b) = (halved(&a)?, halved(&b)?);
    }
    Ok((to_vec(&product.mean_dim([1i64].as_slice(), false, Kind::Double))?, scales))
}

/// (B, 3, H, W) → (B, 3, ⌈H / 2⌉, ⌈W / 2⌉).
fn halved(images: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = images.size4()?;
    Ok(images.avg_pool2d([2, 2], [2, 2], [h % 2, w % 2], false, true, None))
}

/// Number of scales among the values of a batch.
const SCALES: &str = "scales";

#[derive(Serialize, Deserialize)]
struct MsSsim {
    /// Number of scales of the images so far, which all have one size.
    scales: Option<usize>,
    sums: PairSums,
}

impl MetricState for MsSsim {
    fn measure(&self, batch: &EvalBatch, _: &BatchFeatures) -> Result<MetricValues> {
        let Some(pair) = &batch.pair else { return Ok(MetricValues::new()) };
        let (scores, scales) = ms_ssim(&pair.pixels)?;
        let mut values = PairSums::values(&scores);
        values.insert(SCALES.into(), Tensor::from(scales as i64));
        Ok(values)
    }

    fn add(&mut self, values: &MetricValues, items: &[Item]) -> Result<()> {
        if let Some(scales) = values.get(SCALES) {
            self.scales = usize::try_from(scales.int64_value(&[])).ok();
        }
        self.sums.add_values(values, items)
    }

    fn save(&self) -> Result<Json> {
        Ok(serde_json::to_value(self)?)
    }

    fn merge(&mut self, saved: &Json) -> Result<()> {
        let other = MsSsim::deserialize(saved)?;
        self.scales = self.scales.or(other.scales);
        self.sums.merge(&other.sums);
        Ok(())
    }

    fn scores(&self, inputs: &ScoreInputs) -> Result<Vec<Score>> {
        let scales = self.scales.ok_or(Error::Nothing("no pair of images was compared"))?;
        let (name, variant) = match WEIGHTS.len() - scales {
            0 => ("ms_ssim".to_owned(), "5 scales, 11x11 Gaussian window, data range 1".to_owned()),
            _ => (
                format!("ms_ssim_{scales}"),
                format!(
                    "the finest {scales} of 5 scales, their exponents scaled to sum 1; 11x11 Gaussian window, \
                     data range 1"
                ),
            ),
        };
        let score = inputs.context.score(&name, self.sums.mean()?, Better::Higher, &variant);
        Ok(vec![score.against(Some(self.sums.count()))])
    }

    fn distribution(&self) -> Option<Distribution> {
        self.sums.distribution(Metric::MsSsim, &SHOW)
    }

    fn class_figure(&self, class: i64) -> Option<String> {
        self.sums.class_figure(class, &SHOW)
    }
}

#[cfg(test)]
mod tests {
    use base::ImagesU8;

    use super::*;

    /// An image, and the same with noise of `k` times 20 levels at most.
    fn pair(height: i64, width: i64, k: i64) -> PixelPair {
        let pixel = |i: i64, noise: i64| {
            let (c, y, x) = (i / (height * width), i / width % height, i % width);
            let value = (x * x / 7 + y * 5 + 40 * c + (x * y) % 31) % 256;
            (value + ((x * 13 + y * 29 + c * 7) % 41 - 20) * noise).clamp(0, 255) as u8
        };
        let image = |noise: i64| {
            let bytes: Vec<u8> = (0..3 * height * width).map(|i| pixel(i, noise)).collect();
            ImagesU8::new(Tensor::from_slice(&bytes).view([1, 3, height, width])).unwrap()
        };
        PixelPair::stored(&image(k), &image(0)).unwrap()
    }

    #[test]
    fn identical_images_score_one() {
        for side in [11, 64, 176] {
            let found = ms_ssim(&pair(side, side, 0)).unwrap().0[0];
            assert!((found - 1.0).abs() < 1e-12, "{side}: {found}");
        }
    }

    /// Values of a NumPy program that follows pytorch-msssim 1.0.0, in float64.
    #[test]
    fn values_are_those_of_another_program() {
        let known = [
            ((192, 176), 5, [0.9954404406553454, 0.9707702770655134]),
            ((165, 161), 5, [0.9952403794141075, 0.9699186383138317]), // odd sides
            ((96, 88), 4, [0.9918970059290725, 0.952753354194997]),
            ((64, 64), 3, [0.985597386924995, 0.9193615095313064]),
            ((12, 16), 1, [0.7000240100505231, 0.19801670220316767]),
        ];
        for ((height, width), scales, expected) in known {
            for (k, expected) in [1, 3].into_iter().zip(expected) {
                let (found, used) = ms_ssim(&pair(height, width, k)).unwrap();
                assert_eq!(used, scales);
                assert!((found[0] - expected).abs() < 1e-10, "{height}x{width}: {found:?}, not {expected}");
            }
        }
    }

    #[test]
    fn more_noise_scores_lower() {
        let scores = [0, 1, 2, 4].map(|k| ms_ssim(&pair(64, 80, k)).unwrap().0[0]);
        assert!(scores.windows(2).all(|two| two[0] > two[1]), "{scores:?}");
    }

    #[test]
    fn scales_go_by_the_shorter_side() {
        assert_eq!([11, 20, 21, 64, 160, 161, 512].map(scales), [1, 1, 2, 3, 4, 5, 5]);
        let error = ms_ssim(&pair(10, 64, 1)).unwrap_err().to_string();
        assert!(error.contains("MS-SSIM") && error.contains("10x64"), "{error}");
    }
}
