//! Source of the training features of each step.

use std::sync::Arc;

use base::{Mode, rng};
use data::{Dataset, Loader, LoaderConfig, Reading, Schedule, Transform};
use tch::{Device, Tensor};

use super::cache::Features;
use super::classes::ClassMap;
use super::config::ProbeConfig;
use super::subject::Subject;
use crate::Result;

/// Training features. A batch is a function of the seed, the epoch and its number, so resuming
/// needs no saved position.
pub(super) enum Training<'a> {
    /// Fixed views from stored features.
    Cached { features: Features, order: Order },
    /// Fresh crops in each epoch, as in the protocol.
    Fresh { subject: &'a Subject, loader: Box<Loader>, seed: u64 },
}

/// The order of an epoch's images, cached during the epoch.
pub(super) struct Order {
    schedule: Schedule,
    current: Option<(u64, Vec<usize>)>,
}

impl Order {
    fn batch(&mut self, epoch: u64, number: usize) -> Vec<usize> {
        if self.current.as_ref().is_none_or(|(e, _)| *e != epoch) {
            self.current = Some((epoch, self.schedule.order(epoch)));
        }
        let order = self.current.as_ref().map_or(&[][..], |(_, order)| order);
        self.schedule.batch(order, self.schedule.step(epoch, number as u64).records).to_vec()
    }
}

impl<'a> Training<'a> {
    pub fn cached(features: Features, config: &ProbeConfig) -> Self {
        let schedule = Reading::training(config.batch_size, config.seed).schedule(features.labels().len());
        Training::Cached { features, order: Order { schedule, current: None } }
    }

    pub fn fresh(
        subject: &'a Subject,
        images: Arc<dyn Dataset>,
        config: &ProbeConfig,
        max_corrupt: usize,
    ) -> Result<Self> {
        let mut settings = LoaderConfig::training(config.batch_size, config.seed);
        settings.max_corrupt = max_corrupt;
        let loader = Loader::new(images, Transform::random(subject.image_size()), settings)?;
        Ok(Training::Fresh { subject, loader: Box::new(loader), seed: config.seed })
    }

    /// Images to train on.
    pub fn images(&self) -> usize {
        match self {
            Training::Cached { features, .. } => features.labels().len(),
            Training::Fresh { loader, .. } => loader.dataset().len(),
        }
    }

    /// Images that could not be decoded.
    pub fn skipped(&self) -> usize {
        match self {
            Training::Cached { features, .. } => features.skipped,
            Training::Fresh { loader, .. } => loader.corrupt().len(),
        }
    }

    /// Features (B, D) and outputs (B) of batch `number` of an epoch.
    pub fn batch(
        &mut self,
        epoch: u64,
        number: usize,
        classes: &ClassMap,
        device: Device,
    ) -> Result<(Tensor, Tensor)> {
        let (x, labels) = match self {
            Training::Cached { features, order } => {
                let images = order.batch(epoch, number);
                let labels: Vec<i64> = images.iter().map(|&i| features.labels()[i]).collect();
                // Each image cycles through its views; neighbours start at different ones.
                let view = |i: usize| (epoch as usize + i) % features.views();
                (features.rows(images.into_iter().map(|i| (i, view(i))))?, labels)
            }
            Training::Fresh { subject, loader, seed } => {
                let wanted = loader.place_of(epoch, number as u64);
                if loader.state() != wanted {
                    loader.restore(wanted)?;
                }
                let batch = loader.next()?.ok_or(data::Error::LoaderStopped)?;
                tch::manual_seed(rng::hash(*seed, &[DROPOUT, epoch, number as u64]) as i64);
                (subject.features(&batch.images, Mode::Train)?, batch.labels)
            }
        };
        Ok((x.to_device(device), classes.outputs(&labels)?.to_device(device)))
    }
}

const DROPOUT: u64 = 0xF2E54;
