//! The tokenizer's own phase.

use base::{Mode, TensorKind};
use tch::Tensor;

use super::losses::{FeatureDistance, TokenizerLosses};
use super::{TokenizerBatch, TokenizerTask};
use crate::Losses;
use crate::losses::reconstruction;

impl TokenizerTask {
    /// Losses of the tokenizer; stores its reconstructions in `batch`.
    pub(super) fn generator(&self, batch: &mut TokenizerBatch, step: u64) -> Losses {
        let weights = &self.recipe.losses;
        let auxiliary = weights.auxiliary.as_ref().filter(|a| step < a.end_step);
        let skip_quantizer = auxiliary.is_some_and(|a| a.skip_quantizer);
        let kind = self.recipe.optimization.precision.kind();
        let out = self.model.forward_train(&batch.images.to_kind(kind), Mode::Train, skip_quantizer);
        let mut losses = Losses::new();
        pixels(&mut losses, weights, &batch.images, &out.reconstruction, ["l2", "l1"]);
        if let Some(direct) = &out.direct {
            pixels(&mut losses, weights, &batch.images, direct, ["direct_l2", "direct_l1"]);
        }
        self.networks.perceptual(&mut losses, "perceptual", &batch.images, &out.reconstruction);
        // For the adaptive weight; as upstream, without the perceptual term below.
        let nll = losses.total().map(Tensor::shallow_clone);
        if let Some(direct) = &out.direct {
            self.networks.perceptual(&mut losses, "direct_perceptual", &batch.images, direct);
        }
        for (name, loss) in out.losses {
            losses.add(name, loss, 1.0);
        }
        if let Some(a) = auxiliary.filter(|a| a.feature_weight != 0.0) {
            let distance = match a.feature_distance {
                FeatureDistance::Mse => reconstruction::features(&out.cnn_features, &out.decoder_features),
                FeatureDistance::Cosine => {
                    reconstruction::features_cosine(&out.cnn_features, &out.decoder_features)
                }
            };
            losses.add("feature", distance, a.feature_weight);
        }
        self.networks.semantic(&mut losses, &batch.images, out.vision.as_ref(), out.aligned.as_ref());
        batch.fake = vec![out.reconstruction];
        batch.fake.extend(out.direct);
        if let Some(phase) = self.discriminator.as_ref().filter(|a| step >= a.start_step()) {
            let nll = nll.as_ref().map(|nll| (nll, self.model.last_layer()));
            phase.generator(&mut losses, &batch.images, &batch.fake, kind, step, nll);
        }
        for fake in &mut batch.fake {
            *fake = fake.detach();
        }
        losses
    }
}

/// Adds the pixel losses of one reconstruction under two names.
fn pixels(
    losses: &mut Losses,
    weights: &TokenizerLosses,
    target: &Tensor,
    image: &Tensor,
    names: [&'static str; 2],
) {
    if weights.l2 != 0.0 {
        losses.add(names[0], reconstruction::l2(target, image), weights.l2);
    }
    if weights.l1 != 0.0 {
        losses.add(names[1], reconstruction::l1(target, image), weights.l1);
    }
}
