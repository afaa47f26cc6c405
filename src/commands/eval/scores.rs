//! From what was gathered to scores.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use choices::Metric;
use eval::{FeatureAccumulator, FrechetReference, KidSettings, Statistics, jackknife};

use super::agreement;
use super::metrics::Plan;
use super::networks::{Networks, Role};
use super::reference::Reference;
use super::sets::{ADM_NEIGHBOURS, PRDC_NEIGHBOURS, Rows};
use super::state::State;
use super::tally::Tally;
use super::titles::PERCEPTUAL;
use super::values::{HIGHER, LOWER, Setting, Value};

/// Published FIDs are of this many images.
pub const PUBLISHED_IMAGES: u64 = 50_000;

/// What scores are computed from.
pub struct Scoring<'a> {
    /// Which.
    pub plan: &'a Plan,
    /// What was gathered.
    pub state: &'a State,
    /// Whose features.
    pub networks: &'a Networks,
    /// What is compared with.
    pub reference: Option<&'a Reference>,
    /// What the scores share.
    pub setting: Setting,
    /// Nearest neighbours, where given.
    pub neighbours: Option<i64>,
    /// KID's subsets.
    pub kid: KidSettings,
}

/// Scores, and series for plots.
#[derive(Debug, Default)]
pub struct Scores {
    /// In the plan's order.
    pub values: Vec<Value>,
    /// Name → numbers: scores of chunks and subsets.
    pub series: BTreeMap<String, Vec<f64>>,
    /// Scores that could not be had, and why.
    pub failed: BTreeMap<String, String>,
}

impl Scoring<'_> {
    /// All of the plan's scores. One that cannot be had takes none of the others with it.
    ///
    /// # Errors
    /// None can be had.
    pub fn all(&self) -> Result<Scores> {
        let mut scores = Scores::default();
        let mut seen = vec![];
        let mut first = None;
        for &metric in &self.plan.metrics {
            let found = self.one(metric, &mut scores.series).and_then(|values| {
                values.iter().try_for_each(Value::must_be_a_number)?;
                Ok(values)
            });
            match found.with_context(|| format!("cannot compute {}", metric.name())) {
                // Precision and recall come together, as do density and coverage.
                Ok(values) => values.into_iter().for_each(|value| {
                    if !seen.contains(&value.name) {
                        seen.push(value.name.clone());
                        scores.values.push(value);
                    }
                }),
                Err(error) => {
                    scores.failed.insert(metric.name().to_owned(), error.root_cause().to_string());
                    first.get_or_insert(error);
                }
            }
        }
        match first {
            Some(error) if scores.values.is_empty() => Err(error),
            _ => Ok(scores),
        }
    }

    fn one(&self, metric: Metric, series: &mut BTreeMap<String, Vec<f64>>) -> Result<Vec<Value>> {
        let tally = &self.state.tally;
        let unscored = || self.setting.clone();
        Ok(match metric {
            Metric::Psnr | Metric::Ssim | Metric::SsimDr2 | Metric::Lpips | Metric::Perceptual => {
                vec![self.pair(metric, tally)?]
            }
            Metric::Codebook => codebook(tally, &unscored())?,
            Metric::ArLoss => likelihood(tally, &unscored())?,
            Metric::ClipScore => self.clip_score(tally)?,
            Metric::ClassAgreement => self.class_agreement(tally)?,
            Metric::Fid => vec![self.frechet(Role::Main, "fid", false)?],
            Metric::Sfid => vec![self.frechet(Role::Main, "sfid", true)?],
            Metric::Fdd => vec![self.frechet(Role::Dino, "fdd", false)?],
            Metric::Is | Metric::IsFidelity => vec![self.inception_score(metric, series)?],
            Metric::Precision | Metric::Recall => self.rows(Role::Main, |rows| {
                Ok(rows.precision_recall(self.neighbours.unwrap_or(ADM_NEIGHBOURS))?.into())
            })?,
            Metric::Density | Metric::Coverage => self.rows(Role::Main, |rows| {
                Ok(rows.density_coverage(self.neighbours.unwrap_or(PRDC_NEIGHBOURS))?.into())
            })?,
            Metric::Kid => self.rows(Role::Main, |rows| {
                let (value, subsets) = rows.kid(&self.kid)?;
                series.insert(value.label(), subsets);
                Ok(vec![value])
            })?,
            Metric::Cmmd => self.rows(Role::Clip, |rows| Ok(vec![rows.cmmd()?]))?,
        })
    }

    fn pair(&self, metric: Metric, tally: &Tally) -> Result<Value> {
        let means = tally.pairs.means().context("no pair of images was compared")?;
        let exact = tally.pairs.identical();
        let value = match metric {
            Metric::Psnr => {
                let value = self.setting.value(
                    "psnr",
                    means.psnr,
                    HIGHER,
                    "mean over images of the dB of each, data range 1",
                );
                match exact {
                    0 => value,
                    n => value.noted(format!("{n} identical pairs are infinite and left out of the mean")),
                }
            }
            Metric::Ssim => self.setting.value(
                "ssim",
                means.ssim.context("SSIM was not taken")?,
                HIGHER,
                "scikit-image's defaults: 7x7 window, data range 1",
            ),
            Metric::SsimDr2 => {
                let variant = "GigaTok and LlamaGen: as ssim, with data range 2 on images in [0, 1]";
                let value = means.ssim_published.context("SSIM was not taken")?;
                self.setting.value("ssim_dr2", value, HIGHER, variant)
            }
            Metric::Perceptual => {
                let (_, id) = self.networks.perceptual.as_ref().context("the network was not opened")?;
                let value = tally.perceptual.value().context("no pair of images was compared")?;
                let variant =
                    "squared distance of features at unit length, mean over blocks, places and images";
                self.setting.value(PERCEPTUAL, value, LOWER, variant).of(Some(id))
            }
            _ => {
                let (_, id) = self.networks.lpips.as_ref().context("LPIPS was not opened")?;
                let value = tally.lpips.value().context("no pair of images was compared")?;
                self.setting.value("lpips", value, LOWER, "v0.1, mean over images").of(Some(id))
            }
        };
        Ok(value.against(Some(tally.pairs.count())))
    }

    fn clip_score(&self, tally: &Tally) -> Result<Vec<Value>> {
        let found = tally.clip_score.scores().context("no image was compared with its prompt")?;
        let id = self.networks.clip_score.as_ref().map(|clip| &clip.id);
        let value = |name: &str, value: f64, variant: &str| {
            self.setting.value(name, value, HIGHER, variant).of(id).alone()
        };
        Ok(vec![
            value(
                "clip_score",
                found.hessel,
                "Hessel et al.: 2.5 max(cos, 0), text behind \"A photo depicts\"",
            ),
            value("clip_cosine", found.cosine, "GigaGAN, LlamaGen: cos, text behind \"A photo depicts\""),
            value(
                "clip_score_100",
                found.torchmetrics,
                "torchmetrics: 100 cos of the bare text, mean clipped at 0",
            ),
        ])
    }

    fn class_agreement(&self, tally: &Tally) -> Result<Vec<Value>> {
        let role = self.networks.classifier.context("internal error: no classifier was opened")?;
        let id = self.networks.features[&role].id();
        Ok(agreement::values(tally, &self.setting).into_iter().map(|value| value.of(Some(id))).collect())
    }

    fn collected(&self, role: Role) -> Result<&FeatureAccumulator> {
        self.state.samples.get(&role).context("no image was scored")
    }

    fn frechet(&self, role: Role, name: &str, spatial: bool) -> Result<Value> {
        let samples = self.collected(role)?;
        let (statistics, count) = self.reference_statistics(role, spatial)?;
        let reference = FrechetReference::new(&statistics)?;
        let mine =
            if spatial { samples.spatial()?.statistics()? } else { samples.moments()?.statistics()? };
        let value = reference.distance(&mine)?;
        let interval = match self.plan.interval && !spatial {
            true => Some(jackknife(&reference, samples)?),
            false => None,
        };
        let d = mine.dimension();
        let variant = match spatial {
            true => format!("ADM: {d} features of places, float64 moments"),
            false => format!("{d} features, float64 moments"),
        };
        let value = self.setting.value(name, value, LOWER, &variant).of(Some(samples.id()));
        let value = value.within(interval).against(count);
        Ok(match samples.count() {
            n if n < PUBLISHED_IMAGES && samples.id().is_inception() => {
                value.noted(format!("{n} images; published values are of 50,000 and not comparable"))
            }
            n if n < PUBLISHED_IMAGES => value.noted(format!("compare with values of {n} images only")),
            _ => value,
        })
    }

    /// Of the file, else of the images that were read; and of how many images they are.
    fn reference_statistics(&self, role: Role, spatial: bool) -> Result<(Statistics, Option<u64>)> {
        let id = self.networks.features[&role].id();
        if let Some(reference) = self.reference
            && let Some(stored) = reference.stored(id, spatial)?
        {
            let images = reference.file.as_ref().and_then(|f| f.tag.as_ref()).map(|t| t.images);
            return Ok((stored.clone(), images));
        }
        let collected = self.state.reference.get(&role).context("there is no reference")?;
        let statistics =
            if spatial { collected.spatial()?.statistics()? } else { collected.moments()?.statistics()? };
        Ok((statistics, Some(collected.count())))
    }

    fn inception_score(&self, metric: Metric, series: &mut BTreeMap<String, Vec<f64>>) -> Result<Value> {
        let samples = self.collected(Role::Main)?;
        // In the order in which the plan asks for them.
        let place = usize::from(metric == Metric::IsFidelity && self.plan.has(Metric::Is));
        let found = samples.scores().get(place).context("no logits were gathered")?.scores()?;
        let (name, variant) = match metric {
            Metric::Is => ("is", "ADM: chunks of 5,000 in file order, mean over chunks"),
            _ => (
                "is_fidelity",
                "torch-fidelity: 10 chunks in the order of RandomState(2020), mean over chunks",
            ),
        };
        let value = self.setting.value(name, found.mean, HIGHER, variant).of(Some(samples.id()));
        let value = if found.chunks.len() > 1 { value.spread(found.std) } else { value };
        series.insert(value.label(), found.chunks);
        Ok(value.alone())
    }

    fn rows(&self, role: Role, score: impl FnOnce(&Rows) -> Result<Vec<Value>>) -> Result<Vec<Value>> {
        let samples = self.collected(role)?;
        let reference = self.state.reference.get(&role).context("there are no images of the reference")?;
        let (a, b) = (samples.rows()?, reference.rows()?);
        score(&Rows { samples: &a, reference: &b, network: Some(samples.id()), setting: &self.setting })
    }
}

fn codebook(tally: &Tally, setting: &Setting) -> Result<Vec<Value>> {
    let s = tally.codebook.as_ref().context("no image was encoded")?.scores()?;
    let value = |name: &str, value: f64, variant: &str| setting.value(name, value, HIGHER, variant).alone();
    Ok(vec![
        value("codebook_usage", s.usage, "distinct codes over all images / codebook size")
            .noted(format!("{} of {} codes occur", s.used, s.codebook_size)),
        value("codebook_perplexity", s.perplexity, "exp of the entropy of all codes"),
        value("codebook_entropy_bits", s.entropy_bits, "of all codes, 0 log 0 = 0"),
        value(
            "codebook_usage_per_image",
            s.usage_per_image,
            "mean share of the codebook that one image uses",
        ),
    ])
}

fn likelihood(tally: &Tally, setting: &Setting) -> Result<Vec<Value>> {
    let s = tally.likelihood.scores().context("no codes were predicted")?;
    let value = |name: &str, value: f64, variant: &str| setting.value(name, value, LOWER, variant).alone();
    Ok(vec![
        value(
            "ar_loss",
            s.nats_per_code,
            "cross-entropy in nats, mean over all codes; class given, dropout off",
        )
        .noted("another tokenizer's codes have another loss"),
        value(
            "ar_bits_per_image",
            s.bits_per_image,
            "cross-entropy of all codes of an image, mean over images",
        ),
        value("ar_perplexity", s.perplexity, "exp of ar_loss"),
    ])
}
