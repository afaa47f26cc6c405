//! All metrics, one file each (or one for a family), and the registry.

pub mod ar_loss;
pub mod class_agreement;
pub mod clip_score;
pub mod cmmd;
pub mod codebook;
pub mod density_coverage;
pub mod frechet;
pub mod inception_score;
pub mod kid;
pub mod lpips;
pub mod ms_ssim;
pub mod pairs;
pub mod perceptual;
pub mod precision_recall;
pub mod psnr;
pub mod ssim;

use settings::Metric;

use crate::metric::MetricSpec;

/// Registry: one line for each metric.
pub fn spec(metric: Metric) -> MetricSpec {
    match metric {
        Metric::Psnr => psnr::SPEC,
        Metric::Ssim => ssim::SPEC,
        Metric::SsimDr2 => ssim::SPEC_DR2,
        Metric::MsSsim => ms_ssim::SPEC,
        Metric::Lpips => lpips::SPEC,
        Metric::Perceptual => perceptual::SPEC,
        Metric::Fid => frechet::FID,
        Metric::Sfid => frechet::SFID,
        Metric::Fdd => frechet::FDD,
        Metric::Is => inception_score::SPEC,
        Metric::IsFidelity => inception_score::FIDELITY,
        Metric::Precision | Metric::Recall => precision_recall::SPEC,
        Metric::Density | Metric::Coverage => density_coverage::SPEC,
        Metric::Kid => kid::SPEC,
        Metric::Cmmd => cmmd::SPEC,
        Metric::ClipScore => clip_score::SPEC,
        Metric::ClassAgreement => class_agreement::SPEC,
        Metric::Codebook => codebook::SPEC,
        Metric::ArLoss => ar_loss::SPEC,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use backbones::{ClipModel, EfficientNetSize, InputPath, LpipsNet, Network};
    use base::ImagesU8;
    use base::testing::recipe_integers;
    use tch::{Device, Kind};

    use super::*;
    use crate::batch::{BatchFeatures, EvalBatch, ImagePair, Item};
    use crate::math::pixels::PixelPair;
    use crate::metric::{MetricOptions, MetricSetup, MetricState, ScoreInputs};
    use crate::networks::NetworkOptions;
    use crate::score::ScoreContext;

    fn start(metric: Metric) -> Box<dyn MetricState> {
        let clip = Network::Clip(ClipModel::B32);
        let networks = NetworkOptions {
            models: "nowhere".into(),
            network: None,
            network_weights: None,
            network_input: None,
            inception_weights: None,
            inception_input: InputPath::Tf,
            dino: clip,
            dino_weights: None,
            clip,
            clip_weights: None,
            clip_score: ClipModel::B32,
            clip_score_weights: None,
            clip_text: None,
            lpips: LpipsNet::ALL[0],
            lpips_trunk: None,
            lpips_heads: None,
            perceptual: EfficientNetSize::Lite0,
            perceptual_weights: None,
        };
        let setup = MetricSetup {
            options: &MetricOptions::default(),
            networks: &networks,
            role: None,
            device: Device::Cpu,
            codebook_size: None,
            classes: &[],
        };
        (spec(metric).start)(&setup).unwrap()
    }

    /// Pairs of 24 x 24 pixels; the last is of equal images.
    fn batch(indices: std::ops::Range<i64>) -> EvalBatch {
        let images = |name: &str| recipe_integers(name, 3, &[4, 3, 24, 24], 256).to_kind(Kind::Uint8);
        let (originals, samples) = (images("originals"), images("samples"));
        samples.get(3).copy_(&originals.get(3));
        let (at, n) = (indices.start, indices.end - indices.start);
        let part = |all: &tch::Tensor| ImagesU8::new(all.narrow(0, at, n)).unwrap();
        let (samples, originals) = (part(&samples), part(&originals));
        let item = |i: i64| Item { index: i as u64, name: i.to_string(), class: Some(i % 2), prompt: None };
        let pair = ImagePair {
            pixels: PixelPair::stored(&samples, &originals).unwrap(),
            judged: samples.to_float(),
            originals: originals.to_float(),
        };
        EvalBatch { pair: Some(pair), ..EvalBatch::of_sets(indices.map(item).collect(), None, None) }
    }

    fn update(state: &mut dyn MetricState, batch: &EvalBatch) {
        let values = state.measure(batch, &BatchFeatures::default()).unwrap();
        state.add(&values, &batch.items).unwrap();
    }

    fn scores(state: &dyn MetricState) -> Vec<(String, Option<f64>)> {
        let (context, none) = (ScoreContext::default(), BTreeMap::new());
        let options = MetricOptions::default();
        let inputs = ScoreInputs {
            context: &context,
            options: &options,
            samples: &none,
            reference: &none,
            stored: None,
        };
        state.scores(&inputs).unwrap().into_iter().map(|score| (score.name, score.value)).collect()
    }

    #[test]
    fn saved_parts_of_pixel_metrics_give_the_whole() {
        let of_pixels = [Metric::Psnr, Metric::Ssim, Metric::SsimDr2, Metric::MsSsim];
        for metric in of_pixels {
            let mut whole = start(metric);
            update(whole.as_mut(), &batch(0..4));
            let mut merged = start(metric);
            for part in [0..1, 1..4] {
                let mut state = start(metric);
                update(state.as_mut(), &batch(part));
                merged.merge(&state.save().unwrap()).unwrap();
            }
            let (whole, merged) = (scores(whole.as_ref()), scores(merged.as_ref()));
            assert_eq!(whole.len(), 1, "{metric}");
            assert_eq!(whole[0].0, merged[0].0);
            let (a, b) = (whole[0].1.unwrap(), merged[0].1.unwrap());
            assert!((a - b).abs() < 1e-12 * a, "{metric}: {a} {b}");
        }
    }

    #[test]
    fn equal_pairs_are_counted_and_left_out_of_psnr() {
        let mut state = start(Metric::Psnr);
        update(state.as_mut(), &batch(0..4));
        assert!(state.warnings()[0].starts_with("1 pairs are identical: their infinite PSNR"));
        assert!(state.class_figure(1).unwrap().starts_with("PSNR ") && state.class_figure(2).is_none());
    }

    #[test]
    fn what_compares_needs_a_reference() {
        for &metric in Metric::ALL {
            let needs = spec(metric).needs;
            let compares = needs.pairs || needs.moments || needs.spatial || needs.rows;
            assert_eq!(compares, needs.reference, "{metric}");
            assert!(needs.features.is_some() || !(needs.logits || needs.rows || needs.moments), "{metric}");
        }
    }
}
