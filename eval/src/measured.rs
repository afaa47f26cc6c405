//! Everything that the sums of a run take from a batch: without its pixels, so that it travels
//! between processes.

use std::collections::BTreeMap;

use backbones::Features;
use base::Skipped;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tch::Tensor;
use weights::Parcel;

use crate::batch::{BatchFeatures, Item, MetricValues};
use crate::gallery::Thumb;
use crate::networks::Role;
use crate::totals::SideStats;
use crate::{Error, Result};

/// Results of a batch by the process that has its images, for the process that has the sums.
#[derive(Debug, Default)]
pub struct MeasuredBatch {
    /// Counts and texts.
    pub facts: BatchFacts,
    /// Features that are summed.
    pub features: BatchFeatures,
    /// Values of each metric, by its name.
    pub metrics: BTreeMap<String, MetricValues>,
}

/// Counts and texts of a batch.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct BatchFacts {
    /// Number of images, skipped ones included.
    pub images: u64,
    /// The images that are scored.
    pub items: Vec<Item>,
    /// Whether they are judged, rather than only compared with.
    pub judged: bool,
    /// Images that could not be read.
    pub skipped: Vec<Skipped>,
    /// Images read or made that are judged.
    pub samples: SideStats,
    /// Images read that are compared with.
    pub reference: SideStats,
    /// The first image and its size, and the first one with another size.
    pub sizes: Vec<(String, (u32, u32))>,
    /// Thumbnails and the classes of their images.
    pub thumbs: Vec<(Option<i64>, Thumb)>,
}

const SAMPLES: &str = "samples";
const REFERENCE: &str = "reference";
const METRIC: &str = "metric";
const POOL: &str = "pool";
const LOGITS: &str = "logits";
const SPATIAL: &str = "spatial";

impl MeasuredBatch {
    /// The batch as bytes, values bit for bit.
    ///
    /// # Errors
    /// Returns an error if a tensor cannot be copied.
    pub fn pack(&self) -> Result<Vec<u8>> {
        let mut tensors = BTreeMap::new();
        let sides = [(SAMPLES, &self.features.samples), (REFERENCE, &self.features.reference)];
        for (side, by_role) in sides {
            for (role, Features { pool, logits, spatial }) in by_role {
                let parts = [(POOL, Some(pool)), (LOGITS, logits.as_ref()), (SPATIAL, spatial.as_ref())];
                for (part, tensor) in parts.into_iter().filter_map(|(part, t)| Some((part, t?))) {
                    tensors.insert(format!("{side}.{}.{part}", role.name()), tensor.shallow_clone());
                }
            }
        }
        for (metric, values) in &self.metrics {
            let named =
                values.iter().map(|(name, t)| (format!("{METRIC}.{metric}.{name}"), t.shallow_clone()));
            tensors.extend(named);
        }
        Ok(Parcel { tensors, text: serde_json::to_string(&self.facts)? }.to_bytes()?)
    }

    /// Reads what [`MeasuredBatch::pack`] wrote.
    ///
    /// # Errors
    /// Returns an error if the bytes are something else.
    pub fn unpack(bytes: &[u8]) -> Result<Self> {
        let Parcel { tensors, text } = Parcel::from_bytes(bytes)?;
        let mut batch = MeasuredBatch { facts: serde_json::from_str(&text)?, ..MeasuredBatch::default() };
        let mut sides: BTreeMap<(String, Role), MetricValues> = BTreeMap::new();
        for (name, tensor) in tensors {
            let mut parts = name.splitn(3, '.').map(str::to_owned);
            let [Some(side), Some(of), Some(part)] = [parts.next(), parts.next(), parts.next()] else {
                return Err(Error::Internal("a tensor of a batch without its place"));
            };
            let values = match side.as_str() {
                METRIC => batch.metrics.entry(of).or_default(),
                _ => sides.entry((side, Role::deserialize(Json::from(of))?)).or_default(),
            };
            values.insert(part, tensor);
        }
        for ((side, role), values) in sides {
            let of_side =
                if side == SAMPLES { &mut batch.features.samples } else { &mut batch.features.reference };
            of_side.insert(role, features(values)?);
        }
        Ok(batch)
    }
}

fn features(mut values: BTreeMap<String, Tensor>) -> Result<Features> {
    let pool = values.remove(POOL).ok_or(Error::Internal("a batch without its features"))?;
    Ok(Features { pool, logits: values.remove(LOGITS), spatial: values.remove(SPATIAL) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_arrives_as_it_was_sent() {
        let pool = || Tensor::from_slice(&[0.1f32, -0.0, f32::MIN_POSITIVE, 3.0]).view([2, 2]);
        let of = |logits: Option<Tensor>, spatial| Features { pool: pool(), logits, spatial };
        let scores = Tensor::from_slice(&[f64::INFINITY, 0.1]);
        let sent = MeasuredBatch {
            facts: BatchFacts {
                images: 3,
                items: vec![Item { index: 7, name: "a.b".into(), class: Some(3), prompt: None }],
                sizes: vec![("a".into(), (3, 4))],
                ..BatchFacts::default()
            },
            features: BatchFeatures {
                samples: [(Role::Main, of(Some(pool() * 2), None)), (Role::Dino, of(None, None))].into(),
                reference: [(Role::Main, of(None, Some(pool() * 3)))].into(),
            },
            metrics: [("psnr".to_owned(), [("scores".to_owned(), scores.shallow_clone())].into())].into(),
        };
        let found = MeasuredBatch::unpack(&sent.pack().unwrap()).unwrap();
        let facts = |batch: &MeasuredBatch| serde_json::to_string(&batch.facts).unwrap();
        assert_eq!(facts(&found), facts(&sent));
        let main = &found.features.samples[&Role::Main];
        assert!(main.pool.equal(&pool()) && main.logits.as_ref().unwrap().equal(&(pool() * 2)));
        assert!(main.spatial.is_none() && found.features.samples.len() == 2);
        assert!(found.features.reference[&Role::Main].spatial.as_ref().unwrap().equal(&(pool() * 3)));
        assert!(found.metrics["psnr"]["scores"].equal(&scores));
    }
}
