//! Writer of the `.npz` of `gen features`: arrays are collected on disk, so that memory does not
//! grow with the number of images.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use backbones::{FeatureId, Features};
use tch::{Device, Kind, Tensor};
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::files;
use crate::inputs::{Made, Tensors};
use base::npz::{npy_header, npy_texts};

/// Arrays of the file, in its order.
const ARRAYS: [&str; 3] = ["pool", "logits", "spatial"];

/// Outputs of a network by the name of their array.
pub fn arrays(features: Features) -> Tensors {
    let Features { pool, logits, spatial } = features;
    let named = ARRAYS.map(str::to_owned).into_iter().zip([Some(pool), logits, spatial]);
    named.filter_map(|(name, tensor)| Some((name, tensor?))).collect()
}

/// One array: its rows so far.
#[derive(Debug)]
struct Rows {
    name: &'static str,
    values: File,
    width: i64,
}

/// An unfinished file; nothing of it is left if it is not finished.
#[derive(Debug)]
pub struct FeatureFile {
    target: PathBuf,
    arrays: Vec<Rows>,
    names: Vec<String>,
}

impl FeatureFile {
    /// Checks that the folder can be written to before any work is done.
    pub fn create(target: &Path) -> Result<Self> {
        drop(files::temporary_for(target)?);
        Ok(FeatureFile { target: target.to_owned(), arrays: vec![], names: vec![] })
    }

    /// Appends the [`arrays`] of a batch.
    pub fn append(&mut self, batch: &Made) -> Result<()> {
        let Made { names, tensors } = batch;
        let parts: Vec<(&'static str, &Tensor)> =
            ARRAYS.into_iter().filter_map(|name| Some((name, tensors.get(name)?))).collect();
        if self.arrays.is_empty() {
            for (name, t) in &parts {
                let values = tempfile::tempfile_in(base::files::folder_of(&self.target))?;
                self.arrays.push(Rows { name, values, width: t.size()[1] });
            }
        }
        for ((name, t), rows) in parts.iter().zip(&mut self.arrays) {
            if rows.name != *name || t.size() != [names.len() as i64, rows.width] {
                bail!("the network gave `{name}` of shape {:?} for {} images", t.size(), names.len());
            }
            let flat = t.to_device(Device::Cpu).to_kind(Kind::Float).contiguous().view(-1);
            let bytes: Vec<u8> = Vec::<f32>::try_from(flat)?.iter().flat_map(|v| v.to_le_bytes()).collect();
            rows.values
                .write_all(&bytes)
                .with_context(|| format!("cannot write `{}`", self.target.display()))?;
        }
        self.names.extend(names.iter().cloned());
        Ok(())
    }

    /// Gives the file its name. Returns each array's name and shape.
    pub fn finish(self, id: &FeatureId) -> Result<Vec<(&'static str, [u64; 2])>> {
        let say = || format!("cannot write `{}`", self.target.display());
        let mut zip = ZipWriter::new(BufWriter::new(files::temporary_for(&self.target)?));
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
        let n = self.names.len() as u64;
        let mut shapes = vec![];
        for mut rows in self.arrays {
            let shape = [n, rows.width as u64];
            zip.start_file(format!("{}.npy", rows.name), options).with_context(say)?;
            zip.write_all(&npy_header("<f4", &shape)).with_context(say)?;
            rows.values.seek(SeekFrom::Start(0)).with_context(say)?;
            std::io::copy(&mut rows.values, &mut zip).with_context(say)?;
            shapes.push((rows.name, shape));
        }
        let texts = [
            ("names", npy_texts(&self.names, &[n])),
            ("feature_id", npy_texts(&[serde_json::to_string(id)?], &[])),
        ];
        for (name, bytes) in texts {
            zip.start_file(format!("{name}.npy"), options).with_context(say)?;
            zip.write_all(&bytes).with_context(say)?;
        }
        let file =
            zip.finish().with_context(say)?.into_inner().map_err(|e| e.into_error()).with_context(say)?;
        files::publish(file, &self.target)?;
        Ok(shapes)
    }
}
