//! Encoding of images by one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{ImagesU8, Progress};
use cli::extract::ExtractArgs;
use data::{Augment as _, Batch, Dataset, Loader, LoaderConfig, Subset, Views};
use serde::{Deserialize, Serialize};
use tch::Device;
use tokenizer::{Loaded, Tokenizer as _};

use super::sink::{Sink, Unit};
use super::skipped::Corrupt;
use crate::context::{Context, stop_on_signal};

/// One process's part of the work.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Share {
    /// Images encoded.
    pub encoded: usize,
    /// Whether a signal stopped it.
    pub stopped: bool,
}

/// Images to encode, and the tokenizer.
pub struct Job<'a> {
    pub args: &'a ExtractArgs,
    pub images: &'a Arc<dyn Dataset>,
    pub tokenizer: &'a Loaded,
    pub views: Views,
}

impl Job<'_> {
    /// Takes units that no process has taken yet, and encodes them.
    pub fn encode(&self, sink: &Sink, units: &[Unit], context: &Context) -> anyhow::Result<Share> {
        let stop = stop_on_signal()?;
        let mut progress = context.printer.clone();
        progress.start("encoding", Some(units.iter().map(|unit| unit.images.len() as u64).sum()));
        let (mut share, mut corrupt) = (Share::default(), Corrupt::new(sink.max_corrupt(self.args), context));
        while let Some(unit) = context.world.take("extract/units", units)? {
            context.world.note(&format!("shard {}", unit.number));
            let Some(encoded) = self.encode_unit(sink, unit, &mut corrupt, &stop, &mut progress)? else {
                share.stopped = true;
                break;
            };
            share.encoded += encoded;
        }
        progress.finish();
        Ok(share)
    }

    /// Encodes a unit; its batches depend on nothing else. Returns the number of images, or `None`
    /// if interrupted.
    fn encode_unit(
        &self,
        sink: &Sink,
        unit: &Unit,
        corrupt: &mut Corrupt<'_>,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> anyhow::Result<Option<usize>> {
        let (args, todo) = (self.args, &unit.images);
        let per_image = self.views.views();
        let mut config = LoaderConfig::once((args.job.batch.batch_size as usize / per_image).max(1));
        config.max_corrupt = corrupt.left();
        let list = args.output.join("skipped.tsv");
        config.corrupt_list = Some(list.clone());
        let subset = Arc::new(Subset::new(self.images.clone(), todo.clone()));
        let mut loader = Loader::new(subset, self.views.clone(), config)?;
        let (mut writer, mut encoded) = (sink.begin(unit), 0);
        while let Some(batch) = loader.next().map_err(|e| sink.explain(corrupt.explain(e)))? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let name = |view: usize| format!("`{}`", self.images.key(todo[batch.indices[view / per_image]]));
            let codes = codes_of(&batch, self.tokenizer, args.job.batch.batch_size, name)?;
            let width = codes.len() / batch.valid.max(1);
            for (i, codes) in codes.chunks_exact(width.max(1)).enumerate() {
                writer.push(todo[batch.indices[i]], codes, batch.labels[i], &batch.captions[i])?;
            }
            encoded += batch.valid;
            progress.advance(batch.valid as u64);
        }
        if let Some(error) = corrupt.add(&loader.corrupt(), &list)? {
            return Err(sink.explain(error));
        }
        writer.finish()?;
        Ok(Some(encoded))
    }
}

/// Codes of all views in a batch, at most `most` images at a time; `name` names the image of a
/// view.
fn codes_of(
    batch: &Batch,
    tokenizer: &Loaded,
    most: i64,
    name: impl Fn(usize) -> String,
) -> anyhow::Result<Vec<i64>> {
    let mut all = vec![];
    if batch.valid == 0 {
        return Ok(all);
    }
    for rows in batch.images.tensor().split(most, 0) {
        let images = ImagesU8::new(rows.to_device(tokenizer.vars.device()))?.to_float();
        let before = all.len() / tokenizer.model.spec().num_tokens as usize;
        let codes = tokenizer.model.encode(&images).map_err(|e| e.of_images(|i| name(before + i)))?;
        let codes = codes.into_tensor().to_device(Device::Cpu);
        all.extend(Vec::<i64>::try_from(codes.flatten(0, -1))?);
    }
    Ok(all)
}
