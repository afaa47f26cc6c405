//! Stored codes → batches.

use std::sync::Arc;

use base::{Codes, rng};
use tch::Tensor;

use super::CodeSource;
use crate::Result;
use crate::partition::{LoaderState, Partition};
use crate::reading::{Cursor, Reading};

/// Settings of a [`CodeLoader`].
#[derive(Debug, Clone)]
pub struct CodeLoaderConfig {
    /// Batches and their order; its seed decides the views too.
    pub reading: Reading,
    /// A random view of each record in each epoch, as in official training; otherwise the first.
    pub random_view: bool,
}

impl CodeLoaderConfig {
    /// For training: endless, shuffled, full batches, random views.
    pub fn training(batch_size: usize, seed: u64) -> Self {
        CodeLoaderConfig { reading: Reading::training(batch_size, seed), random_view: true }
    }

    /// For validation: every record's first view once, in the stored order.
    pub fn once(batch_size: usize) -> Self {
        CodeLoaderConfig { reading: Reading::once(batch_size), random_view: false }
    }
}

/// Codes with their labels.
#[derive(Debug)]
pub struct CodeBatch {
    /// (V, N); V is `valid`.
    pub codes: Codes,
    /// Class indices; V of them.
    pub labels: Vec<i64>,
    /// Captions, empty where a record has none; V of them.
    pub captions: Vec<String>,
    /// Names of the records for messages; V of them.
    pub keys: Vec<String>,
    /// The records' places among the stored ones; V of them.
    pub indices: Vec<usize>,
    /// Number of records: the batch size, or fewer in the last batch of an epoch.
    pub valid: usize,
    /// The epoch they belong to, from 0.
    pub epoch: u64,
}

/// Reads stored codes in batches. What it yields depends on the codes, the configuration and the
/// position alone.
pub struct CodeLoader {
    source: Arc<dyn CodeSource>,
    config: CodeLoaderConfig,
    cursor: Cursor,
    order: Option<(u64, Vec<usize>)>,
}

impl CodeLoader {
    /// At the beginning of epoch 0.
    pub fn new(source: Arc<dyn CodeSource>, config: CodeLoaderConfig) -> Result<Self> {
        let cursor = Cursor::new(&config.reading, source.len())?;
        Ok(CodeLoader { source, config, cursor, order: None })
    }

    /// The next batch, or `None` after the last epoch.
    #[allow(clippy::should_implement_trait)] // fallible, and not meant for iterator adaptors
    pub fn next(&mut self) -> Result<Option<CodeBatch>> {
        let Some(LoaderState { epoch, records }) = self.cursor.own() else { return Ok(None) };
        if self.order.as_ref().is_none_or(|(e, _)| *e != epoch) {
            self.order = Some((epoch, self.cursor.schedule.order(epoch)));
        }
        let (_, order) = self.order.as_ref().expect("just made");
        let indices = self.cursor.schedule.batch(order, records);
        let mut codes = Vec::with_capacity(indices.len() * self.source.num_tokens());
        let (mut labels, mut captions) = (Vec::with_capacity(indices.len()), vec![]);
        for &i in indices {
            let record = self.source.read(i, self.view(epoch, i))?;
            codes.extend(record.codes);
            labels.push(record.label);
            captions.push(record.caption);
        }
        let shape = [labels.len() as i64, self.source.num_tokens() as i64];
        let codes = Codes::new(Tensor::from_slice(&codes).view(shape)).expect("int64 (B, N)");
        let indices = indices.to_vec();
        let keys = indices.iter().map(|i| format!("record {i} of the stored codes")).collect();
        self.cursor.advance();
        Ok(Some(CodeBatch { codes, valid: labels.len(), labels, captions, keys, indices, epoch }))
    }

    fn view(&self, epoch: u64, index: usize) -> usize {
        const VIEW: u64 = 0x71E3;
        if !self.config.random_view {
            return 0;
        }
        rng::below(self.config.reading.seed, &[VIEW, epoch, index as u64], self.source.views() as u64)
            as usize
    }

    /// Makes it one reader of several, each of which reads every R-th batch. Its place is then that
    /// of rank 0's next batch.
    pub fn share(&mut self, partition: Partition) {
        self.cursor.share(partition);
    }

    /// The number of batches of one epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.cursor.schedule.steps()
    }

    /// The codes it reads.
    pub fn source(&self) -> &Arc<dyn CodeSource> {
        &self.source
    }

    /// The place of the batch that [`CodeLoader::next`] will return, of several readers rank 0's.
    pub fn state(&self) -> LoaderState {
        self.cursor.place
    }

    /// Continues at another place, which may have been taken with batches of another size.
    pub fn restore(&mut self, state: LoaderState) -> Result<()> {
        self.cursor.restore(state)
    }
}

impl std::fmt::Debug for CodeLoader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeLoader")
            .field("config", &self.config)
            .field("state", &self.cursor.place)
            .finish_non_exhaustive()
    }
}
