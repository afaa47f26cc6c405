//! From what is scored into the sums.

use anyhow::{Context as _, Result};
use backbones::{FeatureId, Features};
use base::{Images, ImagesU8};
use eval::ClassAgreement;
use generate::Picture;
use tch::{Device, Kind, Tensor};

use super::Walk;
use super::step::{Item, Step};
use crate::commands::eval::state::State;
use crate::commands::eval::thumbs::{Thumb, encode};
use crate::finite;

impl Walk<'_> {
    /// Into the sums.
    pub(super) fn feed(&self, step: Step, state: &mut State) -> Result<()> {
        let indices: Vec<u64> = step.items.iter().map(|i| i.index).collect();
        let State { samples, reference, tally } = &mut *state;
        let sides = [
            (&step.samples, samples, &mut tally.agreement),
            (&step.reference, reference, &mut tally.reference_agreement),
        ];
        for (images, collectors, agreement) in sides {
            let Some(images) = images else { continue };
            for (role, collector) in collectors {
                let network = &self.networks.features[role];
                let features = network.extract(images)?;
                let parts = [
                    ("the features", Some(&features.pool)),
                    ("the features of places", features.spatial.as_ref()),
                    ("the class logits", features.logits.as_ref()),
                ];
                for (what, values) in parts {
                    if let Some(values) = values {
                        finite::check(values, step.names(), what, &network.id().to_string())?;
                    }
                }
                collector.update(&features, &indices)?;
                if self.networks.classifier == Some(*role)
                    && let Some(agreement) = agreement
                {
                    agree(agreement, &features, &step.items)?;
                }
            }
        }
        if let (Some(codes), Some(usage)) = (&step.codes, &mut state.tally.codebook) {
            usage.update(codes)?;
        }
        if step.samples.is_some() || step.nats.is_some() {
            for class in step.items.iter().filter_map(|item| item.class) {
                state.tally.classes.entry(class).or_default().images += 1;
            }
        }
        self.suit(&step, state)?;
        predicted(&step, state)?;
        show(&step, state)?;
        self.compare(&step, state)
    }

    /// How well images suit their prompts.
    fn suit(&self, step: &Step, state: &mut State) -> Result<()> {
        let (Some(scorer), Some(images)) = (&self.networks.clip_score, &step.samples) else { return Ok(()) };
        let prompt = |item: &Item| item.prompt.clone();
        let prompts: Option<Vec<String>> = step.items.iter().map(prompt).collect();
        let prompts = prompts.context("internal error: an image without its prompt")?;
        let embedded = scorer.embed(images, &prompts)?;
        for (what, values) in [
            ("the embedding", &embedded.images),
            ("the embedding of its prompt", &embedded.prefixed),
            ("the embedding of its prompt", &embedded.bare),
        ] {
            finite::check(values, step.names(), what, &scorer.id.to_string())?;
        }
        state.tally.clip_score.update(&embedded.images, &embedded.prefixed, &embedded.bare)?;
        Ok(())
    }

    fn compare(&self, step: &Step, state: &mut State) -> Result<()> {
        let Some(pair) = &step.pair else { return Ok(()) };
        let tally = &mut state.tally;
        let scores = tally.pairs.update(&pair.pixels, self.pixels)?;
        let to = |x: &Images| Images::new(x.tensor().to_device(self.device));
        let on_cpu = |distance: Tensor, id: &FeatureId| -> Result<Vec<f64>> {
            finite::check(&distance, step.names(), "the distance", &id.to_string())?;
            Ok(Vec::<f64>::try_from(distance.to_kind(Kind::Double).to_device(Device::Cpu))?)
        };
        let (judged, originals) = (to(&pair.judged)?, to(&pair.originals)?);
        let lpips = match &self.networks.lpips {
            Some((network, id)) => Some(on_cpu(network.distance(&judged, &originals)?, id)?),
            None => None,
        };
        let perceptual = match &self.networks.perceptual {
            Some((network, id)) => {
                let distance = tch::no_grad(|| network.distance(originals.tensor(), judged.tensor()));
                Some(on_cpu(distance, id)?)
            }
            None => None,
        };
        for (i, (score, item)) in scores.iter().zip(&step.items).enumerate() {
            let of_pair = |all: &Option<Vec<f64>>| all.as_ref().map(|all| all[i]);
            let (distance, perceptual) = (of_pair(&lpips), of_pair(&perceptual));
            let values = [
                ("psnr", Some(score.psnr)),
                ("ssim", score.ssim),
                ("lpips", distance),
                ("perceptual", perceptual),
            ];
            for (name, value) in values {
                if let (Some(value), Some(histogram)) = (value, tally.spread.get_mut(name)) {
                    histogram.add(value);
                }
            }
            distance.into_iter().for_each(|d| tally.lpips.add(d));
            perceptual.into_iter().for_each(|d| tally.perceptual.add(d));
            if let Some(class) = item.class {
                let mine = tally.classes.entry(class).or_default();
                if score.psnr.is_finite() {
                    mine.psnr.add(score.psnr);
                }
                score.ssim.into_iter().for_each(|s| mine.ssim.add(s));
                distance.into_iter().for_each(|d| mine.lpips.add(d));
                perceptual.into_iter().for_each(|d| mine.perceptual.add(d));
            }
        }
        Ok(())
    }
}

/// Whether the classifier names images right; a reference's images may be without classes.
fn agree(agreement: &mut ClassAgreement, features: &Features, items: &[Item]) -> Result<()> {
    let classes: Option<Vec<i64>> = items.iter().map(|item| item.class).collect();
    let Some(classes) = classes else { return Ok(()) };
    let logits = features.logits.as_ref().context("internal error: a classifier without logits")?;
    Ok(agreement.update(logits, &classes)?)
}

fn predicted(step: &Step, state: &mut State) -> Result<()> {
    let Some(nats) = &step.nats else { return Ok(()) };
    for (nats, item) in Vec::<f64>::try_from(nats)?.into_iter().zip(&step.items) {
        state.tally.likelihood.add(nats, step.num_tokens);
        if let Some(class) = item.class {
            state.tally.classes.entry(class).or_default().likelihood.add(nats, step.num_tokens);
        }
    }
    Ok(())
}

/// Keeps some images to look at.
fn show(step: &Step, state: &mut State) -> Result<()> {
    let Some(samples) = &step.samples else { return Ok(()) };
    let gallery = &mut state.tally.gallery;
    for (i, item) in step.items.iter().enumerate() {
        if gallery.wants(item.class) {
            let one = |images: &Tensor| -> Result<String> {
                let image = ImagesU8::new(images.narrow(0, i as i64, 1))?;
                let picture = Picture::from_batch(&image)?.pop();
                encode(picture.ok_or_else(|| anyhow::anyhow!("internal error: an empty batch"))?)
            };
            let original = step.pair.as_ref().map(|p| one(p.originals.to_u8().tensor())).transpose()?;
            let thumb = Thumb {
                index: item.index,
                name: item.prompt.clone().unwrap_or_else(|| item.name.clone()),
                image: one(samples.tensor())?,
                original,
            };
            gallery.keep(thumb, item.class);
        }
    }
    Ok(())
}
