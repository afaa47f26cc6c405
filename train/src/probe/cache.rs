//! Stored features: a folder for each (model, layer, images, views), in shards, so that an
//! interrupted extraction can continue.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::hash::fnv1a;
use base::resume::{Claim, ShardPlan};
use base::{ImagesU8, Mode, Progress, rng};
use data::{Augment, Dataset, Loader, LoaderConfig, RandomViews, Subset, Transform, sort_corrupt_list};
use dist::World;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, TensorSource};

use super::subject::{Subject, SubjectId};
use crate::{Error, Result};

/// Images of a shard.
const SHARD: usize = 4096;
const PLAN: &str = "plan.json";

/// Everything that decides the stored features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturePlan {
    /// Version of the layout.
    pub format: u32,
    /// The model and the layer.
    pub subject: SubjectId,
    /// Views of each image.
    pub views: FeatureViews,
    /// The number of images.
    pub records: usize,
    /// Hash of the images' names and labels.
    pub data_fingerprint: String,
}

/// Stored views of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FeatureViews {
    /// The centre crop, without dropout.
    Center,
    /// Random crops of at least 0.8 of the short side and flips.
    Random {
        /// Views of each image.
        views: usize,
        /// Seed of the views.
        seed: u64,
        /// With dropout, the batch size of the forward pass, on which its noise depends.
        dropout: Option<usize>,
    },
}

impl FeaturePlan {
    /// Plan for the features of a subject on `images`.
    pub fn new(subject: SubjectId, views: FeatureViews, images: &dyn Dataset) -> Self {
        let data_fingerprint = data::content_fingerprint(images);
        FeaturePlan { format: 1, subject, views, records: images.len(), data_fingerprint }
    }

    fn views(&self) -> usize {
        match self.views {
            FeatureViews::Center => 1,
            FeatureViews::Random { views, .. } => views,
        }
    }
}

/// A folder of features.
#[derive(Debug)]
pub struct FeatureCache {
    plan: FeaturePlan,
    shards: ShardPlan,
}

impl FeatureCache {
    /// Opens or creates the folder of these features in `root`, named by a hash of the plan, beside
    /// those of other plans.
    ///
    /// # Errors
    /// Returns an error if it cannot be created or belongs to another plan.
    pub fn open(root: &Path, plan: FeaturePlan) -> Result<Self> {
        let text = serde_json::to_string_pretty(&plan).map_err(|e| Error::Recipe(format!("plan: {e}")))?;
        let folder = root.join(format!("{:016x}", fnv1a(&text)));
        let claim = Claim::new(folder.join(PLAN), &plan);
        if !claim.resumes()? {
            claim.write()?;
        }
        let shards = ShardPlan { folder, stem: "features", records: plan.records, shard_size: SHARD };
        Ok(FeatureCache { plan, shards })
    }

    /// Folder of these features.
    pub fn folder(&self) -> &Path {
        &self.shards.folder
    }

    /// Computes missing features, `batch_size` images at a time, until done or stopped; returns
    /// whether all are done. Images that cannot be decoded are skipped and listed in `skipped.tsv`.
    /// Each process takes the next missing shard; all return together. A world fills a cache once.
    ///
    /// # Errors
    /// Returns an error if more than `max_corrupt` images are damaged, a file fails, or another
    /// process does.
    pub fn fill(
        &self,
        subject: &Subject,
        images: &Arc<dyn Dataset>,
        (batch_size, max_corrupt): (usize, usize),
        (world, stop): (&World, &AtomicBool),
        progress: &mut dyn Progress,
    ) -> Result<bool> {
        let missing = world.from_first(|| Ok::<_, Error>(self.shards.missing()))?;
        if missing.is_empty() {
            return Ok(true);
        }
        let before = self.skipped_but(&missing)?;
        let counter = |what: &str| format!("{}/{what}", self.shards.folder.display());
        let total: usize = missing.iter().map(|s| self.shards.range(*s).len()).sum();
        progress.start("features", Some(total as u64));
        let (mut skipped, mut complete) = (before, true);
        while let Some(&shard) = world.take(&counter("shards"), &missing)? {
            world.note(&format!("features, shard {shard}"));
            let work = Work { cache: self, subject, images, batch_size, shard };
            let allowed = max_corrupt.saturating_sub(skipped);
            let done = work.run(allowed, stop, progress).map_err(|e| all_counted(e, skipped))?;
            let Some(newly_skipped) = done else {
                complete = false;
                break;
            };
            let of_all = world.add(&counter("skipped"), newly_skipped.len() as i64)?;
            skipped = before + usize::try_from(of_all).unwrap_or(0);
            // Each of several processes may have skipped few.
            if let Some(last) = newly_skipped.last().filter(|_| skipped > max_corrupt) {
                return Err(self.too_many_skipped(skipped, max_corrupt, last));
            }
        }
        progress.finish();
        let ends = world.gather_values(&complete)?;
        world.from_first(|| {
            sort_corrupt_list(&self.list(), images.as_ref())?;
            Ok(ends.into_iter().all(|complete| complete))
        })
    }

    /// Number of images skipped in the shards that are not `missing`.
    fn skipped_but(&self, missing: &[usize]) -> Result<usize> {
        let mut skipped = 0;
        for shard in (0..self.shards.count()).filter(|s| !missing.contains(s)) {
            let stored = Shard::open(&self.shards.path(shard), &self.plan)?;
            skipped += self.shards.range(shard).len() - stored.labels.len();
        }
        Ok(skipped)
    }

    fn list(&self) -> PathBuf {
        self.shards.folder.join("skipped.tsv")
    }

    fn too_many_skipped(&self, count: usize, ceiling: usize, last: &(String, String)) -> Error {
        let ((key, message), list) = (last.clone(), Some(self.list()));
        data::Error::TooManyCorrupt { count, ceiling, key, message, list }.into()
    }

    /// Opens a complete cache.
    ///
    /// # Errors
    /// Returns an error if a shard is missing or damaged, or no image could be decoded.
    pub fn features(&self) -> Result<Features> {
        let open = |shard| Shard::open(&self.shards.path(shard), &self.plan);
        let shards = (0..self.shards.count()).map(open).collect::<Result<Vec<_>>>()?;
        let shards: Vec<Shard> = shards.into_iter().filter(|s| !s.labels.is_empty()).collect();
        let Some(width) = shards.first().map(|s| s.width) else {
            return Err(Error::Recipe("none of the images could be decoded".into()));
        };
        let labels: Vec<i64> = shards.iter().flat_map(|s| s.labels.iter().copied()).collect();
        let skipped = self.plan.records - labels.len();
        Ok(Features { shards, labels, views: self.plan.views(), width, skipped })
    }
}

/// Adds the damaged images of earlier shards to an error's counts.
fn all_counted(error: Error, before: usize) -> Error {
    match error {
        Error::Data(data::Error::TooManyCorrupt { count, ceiling, key, message, list }) => {
            let (count, ceiling) = (count + before, ceiling + before);
            data::Error::TooManyCorrupt { count, ceiling, key, message, list }.into()
        }
        other => other,
    }
}

/// Extraction of one shard.
struct Work<'a> {
    cache: &'a FeatureCache,
    subject: &'a Subject,
    images: &'a Arc<dyn Dataset>,
    batch_size: usize,
    shard: usize,
}

impl Work<'_> {
    /// Computes the shard; returns the skipped images, key and reason, or `None` if stopped.
    fn run(
        &self,
        max_corrupt: usize,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<Option<Vec<(String, String)>>> {
        let plan = &self.cache.plan;
        let mut loader = self.loader(max_corrupt)?;
        let (mut features, mut labels): (Vec<Tensor>, Vec<i64>) = (vec![], vec![]);
        let mut made = 0;
        while let Some(batch) = loader.next()? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if batch.valid == 0 {
                continue;
            }
            for part in batch.images.tensor().split(self.batch_size as i64, 0) {
                features.push(self.features(&ImagesU8::new(part).map_err(tokenizer::Error::from)?, made)?);
                made += 1;
            }
            labels.extend(&batch.labels);
            progress.advance(batch.valid as u64);
        }
        let (rows, views) = (labels.len() as i64, plan.views() as i64);
        let features = match rows {
            0 => Tensor::zeros([0, views, 1], (Kind::Float, Device::Cpu)),
            _ => Tensor::cat(&features, 0).view([rows, views, -1]),
        };
        let tensors = [("features".to_owned(), features), ("labels".to_owned(), Tensor::from_slice(&labels))];
        weights::save_safetensors(&self.cache.shards.path(self.shard), &tensors, &Default::default())?;
        Ok(Some(loader.corrupt()))
    }

    fn loader(&self, max_corrupt: usize) -> Result<Loader> {
        let plan = &self.cache.plan;
        let images = Subset::new(Arc::clone(self.images), self.cache.shards.range(self.shard).collect());
        let mut config = LoaderConfig::once((self.batch_size / plan.views()).max(1));
        config.max_corrupt = max_corrupt;
        config.corrupt_list = Some(self.cache.list());
        let size = self.subject.image_size();
        Ok(match plan.views {
            FeatureViews::Center => loader(images, Transform::center(size), config)?,
            FeatureViews::Random { views, seed, .. } => {
                config.reading.seed = seed;
                loader(images, RandomViews { transform: Transform::random(size), views }, config)?
            }
        })
    }

    /// (B, D) on the CPU.
    fn features(&self, images: &ImagesU8, number: u64) -> Result<Tensor> {
        let mode = match self.cache.plan.views {
            FeatureViews::Center => Mode::Eval,
            FeatureViews::Random { seed, .. } => {
                tch::manual_seed(rng::hash(seed, &[DROPOUT, self.shard as u64, number]) as i64);
                Mode::Train
            }
        };
        Ok(self.subject.features(images, mode)?.to_device(Device::Cpu))
    }
}

const DROPOUT: u64 = 0xD20_9007;

fn loader(images: Subset, augment: impl Augment + 'static, config: LoaderConfig) -> Result<Loader> {
    Ok(Loader::new(Arc::new(images), augment, config)?)
}

/// A shard, mapped into memory.
struct Shard {
    source: Box<dyn TensorSource>,
    labels: Vec<i64>,
    width: usize,
}

impl Shard {
    fn open(path: &Path, plan: &FeaturePlan) -> Result<Self> {
        let bad = |message: String| Error::State { path: path.to_owned(), message };
        let source = Checkpoint::open(path)?.section(None)?;
        let labels = Vec::<i64>::try_from(source.read("labels", Device::Cpu)?)
            .map_err(|e| bad(format!("its labels cannot be read: {e}")))?;
        let found = source.info("features").map(|i| (i.shape, i.kind));
        match found {
            Some((shape, Kind::Float))
                if shape.len() == 3 && shape[..2] == [labels.len() as i64, plan.views() as i64] =>
            {
                Ok(Shard { source, labels, width: shape[2] as usize })
            }
            other => Err(bad(format!(
                "expected fp32 features ({}, {}, D), found {other:?}; remove the file and run again",
                labels.len(),
                plan.views()
            ))),
        }
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("rows", &self.labels.len()).field("width", &self.width).finish()
    }
}

/// Features of a data set, read from the disk on demand.
#[derive(Debug)]
pub struct Features {
    shards: Vec<Shard>,
    labels: Vec<i64>,
    views: usize,
    width: usize,
    /// Images that could not be decoded.
    pub skipped: usize,
}

impl Features {
    /// Class indices of all images.
    pub fn labels(&self) -> &[i64] {
        &self.labels
    }

    /// Views of each image.
    pub fn views(&self) -> usize {
        self.views
    }

    /// Width D.
    pub fn width(&self) -> i64 {
        self.width as i64
    }

    /// Features (B, D) of these images and views.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub fn rows(&self, which: impl IntoIterator<Item = (usize, usize)>) -> Result<Tensor> {
        let blobs =
            self.shards.iter().map(|s| s.source.bytes("features")).collect::<weights::Result<Vec<_>>>()?;
        let mut bytes = vec![];
        for (image, view) in which {
            let (shard, row) = self.place(image);
            let start = 4 * self.width * (row * self.views + view);
            bytes.extend_from_slice(&blobs[shard][start..start + 4 * self.width]);
        }
        let rows = (bytes.len() / (4 * self.width)) as i64;
        Ok(Tensor::from_data_size(&bytes, &[rows, self.width as i64], Kind::Float))
    }

    /// The shard of an image, and its row there.
    fn place(&self, image: usize) -> (usize, usize) {
        let mut row = image;
        for (i, shard) in self.shards.iter().enumerate() {
            if row < shard.labels.len() {
                return (i, row);
            }
            row -= shard.labels.len();
        }
        unreachable!("image {image} of {}", self.labels.len())
    }
}
