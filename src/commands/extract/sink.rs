//! Destination of codes: shards, or the official layout.

use cli::extract::{ExtractArgs, Format};
use data::Dataset;
use data::codes::{CodePlan, CodeWriter, NpyWriter, PendingShard};
use serde::{Deserialize, Serialize};

use super::report::Report;

/// Images that one process encodes in one go.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unit {
    /// Number of the shard, or of the part.
    pub number: usize,
    /// Images still to be encoded, ascending.
    pub images: Vec<usize>,
}

/// Destination of codes.
pub enum Sink {
    Shards(CodeWriter),
    Npy { writer: NpyWriter, plan: CodePlan },
}

impl Sink {
    pub fn new(args: &ExtractArgs, plan: CodePlan, image_size: i64) -> anyhow::Result<Self> {
        Ok(match args.format {
            Format::Shards => Sink::Shards(CodeWriter::create(&args.output, plan)?),
            Format::Npy => {
                let writer = NpyWriter::create(&args.output, plan.clone(), image_size)?;
                Sink::Npy { writer, plan }
            }
        })
    }

    /// The work still to be done: missing shards, or parts of as many missing images.
    pub fn units(&self, args: &ExtractArgs) -> Vec<Unit> {
        match self {
            Sink::Shards(writer) => {
                let shard = |number| Unit { number, images: writer.range(number).collect() };
                writer.missing().into_iter().map(shard).collect()
            }
            Sink::Npy { writer, .. } => {
                let missing = writer.missing();
                let parts = missing.chunks(args.shard_size as usize).enumerate();
                parts.map(|(number, images)| Unit { number, images: images.to_vec() }).collect()
            }
        }
    }

    /// The official layout numbers images without gaps.
    pub fn max_corrupt(&self, args: &ExtractArgs) -> usize {
        match self {
            Sink::Shards(_) => args.max_corrupt,
            Sink::Npy { .. } => 0,
        }
    }

    /// True if codes were stored, now or before.
    pub fn has_any(&self) -> anyhow::Result<bool> {
        Ok(match self {
            Sink::Npy { .. } => true, // it leaves no image out
            Sink::Shards(writer) => writer.has_records()?,
        })
    }

    pub fn explain(&self, error: data::Error) -> anyhow::Error {
        let gaps = matches!((self, &error), (Sink::Npy { .. }, data::Error::TooManyCorrupt { .. }));
        let error = anyhow::Error::new(error);
        if gaps {
            error.context("the official layout leaves no room for images that cannot be decoded")
        } else {
            error
        }
    }

    pub fn begin(&self, unit: &Unit) -> UnitWriter<'_> {
        match self {
            Sink::Shards(writer) => UnitWriter::Shard(writer, writer.begin(unit.number)),
            Sink::Npy { writer, .. } => UnitWriter::Npy(writer),
        }
    }

    pub fn finish(&self, args: &ExtractArgs, images: &dyn Dataset, encoded: usize) -> anyhow::Result<Report> {
        let (output, left_out) = (args.output.display().to_string(), images.left_out().len());
        Ok(match self {
            Sink::Npy { writer, plan } => {
                writer.finish(images.classes())?;
                let (tokenizer, views, records) = (plan.tokenizer.clone(), plan.views.clone(), plan.records);
                Report { output, tokenizer, views, records, skipped: 0, left_out, encoded }
            }
            Sink::Shards(writer) => {
                let index = writer.finish(images.classes())?;
                let (records, skipped) = (index.records, index.skipped);
                let (tokenizer, views) = (index.tokenizer, index.views);
                Report { output, tokenizer, views, records, skipped, left_out, encoded }
            }
        })
    }
}

/// Takes the codes of a unit's images.
pub enum UnitWriter<'a> {
    Shard(&'a CodeWriter, PendingShard),
    Npy(&'a NpyWriter),
}

impl UnitWriter<'_> {
    pub fn push(&mut self, index: usize, codes: &[i64], label: i64, caption: &str) -> anyhow::Result<()> {
        match self {
            UnitWriter::Shard(writer, shard) => writer.push(shard, codes, label, caption)?,
            UnitWriter::Npy(writer) => writer.write(index, codes, label)?,
        }
        Ok(())
    }

    /// Writes the shard, also an empty one; the official layout has its files already.
    pub fn finish(self) -> anyhow::Result<()> {
        match self {
            UnitWriter::Shard(writer, shard) => Ok(writer.write(shard)?),
            UnitWriter::Npy(_) => Ok(()),
        }
    }
}
