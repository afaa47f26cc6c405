//! Records → batches, decoded and augmented ahead of time by a pool of threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use base::hash::fnv1a;
use base::{ImagesU8, rng};
use image::RgbImage;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use tch::Tensor;

use crate::corrupt::CorruptLog;
use crate::partition::{LoaderState, Partition};
use crate::reading::{Cursor, Reading};
use crate::transform::{Augment, Draws};
use crate::{Dataset, Error, LeftOut, Result, Target};

/// The label of a record that has no class.
pub const NO_CLASS: i64 = -1;

/// Treatment of a damaged image's place in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorruptPolicy {
    /// Another record, picked by `(seed, epoch, place)`, so that training batches stay full.
    Replace,
    /// Nothing: the batch is shorter, so that nothing is counted twice in evaluation.
    LeaveOut,
}

/// Settings of a [`Loader`].
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Batches and their order; its seed decides the augmentation too.
    pub reading: Reading,
    /// Decoding threads, at least 1.
    pub workers: usize,
    /// Batches decoded ahead, at least 1.
    pub prefetch: usize,
    /// Treatment of damaged images.
    pub corrupt: CorruptPolicy,
    /// Most damaged images; more are an error.
    pub max_corrupt: usize,
    /// A file to which damaged images' names are appended.
    pub corrupt_list: Option<std::path::PathBuf>,
}

impl LoaderConfig {
    /// For training: endless, shuffled, full batches, damaged images replaced.
    pub fn training(batch_size: usize, seed: u64) -> Self {
        LoaderConfig {
            reading: Reading::training(batch_size, seed),
            workers: default_workers(),
            prefetch: 4,
            corrupt: CorruptPolicy::Replace,
            max_corrupt: 100,
            corrupt_list: None,
        }
    }

    /// For evaluation: every record once, in the stored order, damaged images left out.
    pub fn once(batch_size: usize) -> Self {
        LoaderConfig {
            reading: Reading::once(batch_size),
            corrupt: CorruptPolicy::LeaveOut,
            ..Self::training(batch_size, 0)
        }
    }
}

/// One thread per core available to this process.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Images with their labels.
#[derive(Debug)]
pub struct Batch {
    /// (V·A, 3, S, S), the A views of each record together; V is `valid`, and A is 1 for a
    /// [`crate::Transform`].
    pub images: ImagesU8,
    /// Class indices, [`NO_CLASS`] where a record has none; V of them.
    pub labels: Vec<i64>,
    /// Captions, empty where a record has none; V of them.
    pub captions: Vec<String>,
    /// The records' names, V of them.
    pub keys: Vec<String>,
    /// The records' places in the data set, V of them.
    pub indices: Vec<usize>,
    /// Number of records: the batch size, or fewer in the last batch of an epoch or after a damaged
    /// image.
    pub valid: usize,
    /// The epoch they belong to, from 0.
    pub epoch: u64,
}

/// Reads a data set in batches. What it yields depends on the data set, the transform, the
/// configuration's seed and the position alone, never on the number of workers.
#[derive(Debug)]
pub struct Loader {
    source: Arc<Source>,
    cursor: Cursor,
    feed: Option<Feed>,
}

impl Loader {
    /// At the beginning of epoch 0. Reading starts with the first [`Loader::next`].
    pub fn new(
        dataset: Arc<dyn Dataset>,
        augment: impl Augment + 'static,
        config: LoaderConfig,
    ) -> Result<Self> {
        let cursor = Cursor::new(&config.reading, dataset.len())?;
        augment.validate()?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.workers.max(1))
            .thread_name(|i| format!("decode-{i}"))
            .build()
            .map_err(|e| Error::Settings(format!("cannot start {} decoding threads: {e}", config.workers)))?;
        let corrupt = CorruptLog::new(config.max_corrupt, config.corrupt_list.as_deref());
        let source = Source { dataset, augment: Box::new(augment), config, corrupt, pool };
        Ok(Loader { source: Arc::new(source), cursor, feed: None })
    }

    /// The next batch, or `None` after the last epoch.
    #[allow(clippy::should_implement_trait)] // fallible, and not meant for iterator adaptors
    pub fn next(&mut self) -> Result<Option<Batch>> {
        let Some(own) = self.cursor.own() else { return Ok(None) };
        let feed = self.feed.get_or_insert_with(|| Feed::start(&self.source, self.cursor));
        let decoded = feed.receive().inspect_err(|_| self.feed = None)?;
        let batch = decoded.into_batch(self.source.augment.size(), own.epoch);
        self.cursor.advance();
        Ok(Some(batch))
    }

    /// Makes it one reader of several, each of which reads every R-th batch. Its place is then that
    /// of rank 0's next batch.
    pub fn share(&mut self, partition: Partition) {
        self.cursor.share(partition);
        self.feed = None;
    }

    /// The number of batches of one epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.cursor.schedule.steps()
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.source.dataset
    }

    /// The place of batch `number` of an epoch.
    pub fn place_of(&self, epoch: u64, number: u64) -> LoaderState {
        self.cursor.schedule.step(epoch, number)
    }

    /// The place of the batch that [`Loader::next`] will return, of several readers rank 0's;
    /// batches decoded ahead do not count.
    pub fn state(&self) -> LoaderState {
        self.cursor.place
    }

    /// Continues at another place, which may have been taken with batches of another size.
    pub fn restore(&mut self, state: LoaderState) -> Result<()> {
        self.cursor.restore(state)?;
        self.feed = None;
        Ok(())
    }

    /// The damaged records met so far, including those met while decoding ahead: key and reason.
    pub fn corrupt(&self) -> Vec<(String, String)> {
        self.source.corrupt.entries()
    }

    /// Files that are not read: those beside the records, and the damaged ones met so far.
    pub fn left_out(&self) -> Vec<LeftOut> {
        let damaged = self.corrupt().into_iter().map(|(name, reason)| LeftOut { name, reason });
        self.source.dataset.left_out().iter().cloned().chain(damaged).collect()
    }
}

/// State shared with the background threads.
struct Source {
    dataset: Arc<dyn Dataset>,
    augment: Box<dyn Augment>,
    config: LoaderConfig,
    corrupt: CorruptLog,
    pool: rayon::ThreadPool,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A record ready for its batch: bytes and integers only, since tensors are made on the consumer's
/// thread.
struct Ready {
    index: usize,
    key: String,
    images: Vec<RgbImage>,
    target: Target,
}

struct Decoded(Vec<Ready>);

impl Source {
    /// Decodes batches from `cursor` on until stopped.
    fn produce(&self, mut cursor: Cursor, sender: &SyncSender<Result<Decoded>>) {
        let mut order: Option<(u64, Vec<usize>)> = None;
        while let Some(LoaderState { epoch, records }) = cursor.own() {
            let (_, order) = match &mut order {
                Some(known) if known.0 == epoch => known,
                other => other.insert((epoch, cursor.schedule.order(epoch))),
            };
            let batch = self.decode(cursor.schedule.batch(order, records), epoch);
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
            cursor.advance();
        }
    }

    fn decode(&self, indices: &[usize], epoch: u64) -> Result<Decoded> {
        let ready: Result<Vec<Option<Ready>>> =
            self.pool.install(|| indices.par_iter().map(|&i| self.record(i, epoch)).collect());
        Ok(Decoded(ready?.into_iter().flatten().collect()))
    }

    /// One record, or its replacement.
    fn record(&self, index: usize, epoch: u64) -> Result<Option<Ready>> {
        let mut at = index;
        for attempt in 0u64.. {
            match self.dataset.get(at) {
                Ok(record) => {
                    // By its key, so that an augmentation does not depend on the order.
                    let mut draws = Draws::new(self.config.reading.seed, epoch, fnv1a(&record.key));
                    let images = self.augment.apply(&record.image, &mut draws);
                    return Ok(Some(Ready { index: at, key: record.key, images, target: record.target }));
                }
                Err(e) => self.corrupt.note(e)?,
            }
            if self.config.corrupt == CorruptPolicy::LeaveOut || attempt >= MAX_REPLACEMENTS {
                break;
            }
            let counters = [REPLACE, epoch, index as u64, attempt];
            at = rng::below(self.config.reading.seed, &counters, self.dataset.len() as u64) as usize;
        }
        Ok(None)
    }
}

const REPLACE: u64 = 0x2E_71ACE;
/// With so many failures in a row nearly all of the data is damaged; the place stays empty.
const MAX_REPLACEMENTS: u64 = 100;

impl Decoded {
    fn into_batch(self, size: u32, epoch: u64) -> Batch {
        let side = size as usize;
        let rows: Vec<&RgbImage> = self.0.iter().flat_map(|r| &r.images).collect();
        let mut bytes = vec![0; rows.len() * 3 * side * side];
        for (out, image) in bytes.chunks_exact_mut(3 * side * side).zip(&rows) {
            planar(image.as_raw(), out);
        }
        let shape = [rows.len() as i64, 3, i64::from(size), i64::from(size)];
        let images = ImagesU8::new(Tensor::from_slice(&bytes).view(shape)).expect("uint8 (B, 3, S, S)");
        let mut batch = Batch {
            images,
            labels: vec![],
            captions: vec![],
            keys: vec![],
            indices: vec![],
            valid: self.0.len(),
            epoch,
        };
        for Ready { index, key, target, .. } in self.0 {
            let (label, caption) = match target {
                Target::None => (NO_CLASS, String::new()),
                Target::Class(c) => (c, String::new()),
                Target::Caption(text) => (NO_CLASS, text),
            };
            batch.indices.push(index);
            batch.keys.push(key);
            batch.labels.push(label);
            batch.captions.push(caption);
        }
        batch
    }
}

/// Interleaved RGB → three planes.
fn planar(interleaved: &[u8], out: &mut [u8]) {
    let plane = interleaved.len() / 3;
    let (r, rest) = out.split_at_mut(plane);
    let (g, b) = rest.split_at_mut(plane);
    for (((pixel, r), g), b) in interleaved.chunks_exact(3).zip(r).zip(g).zip(b) {
        (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
    }
}

/// The background thread and the channel it fills. Dropping it stops the thread after the batch at
/// hand.
#[derive(Debug)]
struct Feed {
    receiver: Option<Receiver<Result<Decoded>>>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    fn start(source: &Arc<Source>, cursor: Cursor) -> Self {
        let (sender, receiver) = sync_channel(source.config.prefetch.max(1));
        let source = Arc::clone(source);
        let thread = std::thread::spawn(move || source.produce(cursor, &sender));
        Feed { receiver: Some(receiver), thread: Some(thread) }
    }

    fn receive(&self) -> Result<Decoded> {
        let receiver = self.receiver.as_ref().ok_or(Error::LoaderStopped)?;
        receiver.recv().unwrap_or(Err(Error::LoaderStopped))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.receiver = None; // makes the thread's next send fail
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there was reported as `LoaderStopped`
        }
    }
}
