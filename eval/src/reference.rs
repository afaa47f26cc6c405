//! Statistics of a reference set in a file, in every public layout, and the use of the file.

use std::path::{Path, PathBuf};

use backbones::FeatureId;
use base::npz::{self, Npz};
use serde::{Deserialize, Serialize};
use settings::ReferenceKind;
use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, Want};

use crate::{Error, Moments, Result, Statistics};

/// Facts that `gen eval stats` writes into a file beside the statistics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Its purpose.
    pub kind: ReferenceKind,
    /// Description of the images.
    pub note: String,
    /// Number of images.
    pub images: u64,
    /// Resizing of the images.
    pub resize: String,
    /// Features.
    pub features: FeatureId,
}

/// Statistics from a file, and how many of its images are kept in it.
#[derive(Debug)]
pub struct ReferenceFile {
    /// The file.
    pub path: PathBuf,
    /// Statistics of the features that FID compares.
    pub pool: Option<Statistics>,
    /// Statistics of the features that sFID compares.
    pub spatial: Option<Statistics>,
    /// Number of images in the file.
    pub images: Option<u64>,
    /// Facts that the file states.
    pub tag: Option<Tag>,
}

/// The member that holds the tag, as JSON in bytes. Other programs do not look at it.
const TAG: &str = "gen_reference";

/// Kind of a file, and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The kind; `None` if the file could be anything.
    pub kind: Option<ReferenceKind>,
    /// Why.
    pub because: String,
}

impl ReferenceFile {
    /// Reads the statistics of an `.npz` (ADM: `mu`, `sigma`, `mu_s`, `sigma_s`; pytorch-fid and
    /// clean-fid: `mu`, `sigma`), or of a `.pt` or safetensors file with tensors of those names
    /// (torch-fidelity's cache).
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(path, |mean, covariance, _| Statistics::new(mean, covariance))
    }

    /// [`ReferenceFile::open`] for a comparison: statistics that are none are refused by file and
    /// member, see [`Statistics::checked`].
    pub fn open_checked(path: &Path) -> Result<Self> {
        Self::read(path, |mean, covariance, names| {
            let refuse = |error| Error::InFile { path: path.to_owned(), error: Box::new(error) };
            Statistics::checked(mean, covariance, names).map_err(refuse)
        })
    }

    fn read(
        path: &Path,
        statistics: impl Fn(&Tensor, &Tensor, [&str; 2]) -> Result<Statistics>,
    ) -> Result<Self> {
        let mut reference =
            ReferenceFile { path: path.to_owned(), pool: None, spatial: None, images: None, tag: None };
        if is_npz(path) {
            reference.read_npz(statistics)?;
        } else {
            reference.read_tensors(statistics)?;
        }
        Ok(reference)
    }

    fn read_npz(
        &mut self,
        statistics: impl Fn(&Tensor, &Tensor, [&str; 2]) -> Result<Statistics>,
    ) -> Result<()> {
        let mut npz = Npz::open(&self.path)?;
        self.images = npz.info("arr_0").map(|a| a.shape.first().copied().unwrap_or(0) as u64);
        let mut pair = |mean: &str, covariance: &str| -> Result<Option<Statistics>> {
            if npz.info(mean).is_none() {
                return Ok(None);
            }
            statistics(&npz.read(mean)?, &npz.read(covariance)?, [mean, covariance]).map(Some)
        };
        self.pool = pair("mu", "sigma")?;
        self.spatial = pair("mu_s", "sigma_s")?;
        if npz.info(TAG).is_some() {
            let bytes = Vec::<u8>::try_from(npz.read(TAG)?)?;
            let tag = serde_json::from_slice(&bytes);
            self.tag =
                Some(tag.map_err(|e| Error::Saved(format!("the tag of `{}`: {e}", self.path.display())))?);
        }
        Ok(())
    }

    fn read_tensors(
        &mut self,
        statistics: impl Fn(&Tensor, &Tensor, [&str; 2]) -> Result<Statistics>,
    ) -> Result<()> {
        let fail = |e: weights::Error| Error::Saved(e.to_string());
        let source = Checkpoint::open(&self.path).and_then(|c| c.source(Want::Auto)).map_err(fail)?;
        let pair = |mean: &str, covariance: &str| -> Result<Option<Statistics>> {
            if source.info(mean).is_none() {
                return Ok(None);
            }
            let read = |name| source.read(name, Device::Cpu).map_err(fail);
            statistics(&read(mean)?, &read(covariance)?, [mean, covariance]).map(Some)
        };
        self.pool = pair("mu", "sigma")?;
        self.spatial = pair("mu_s", "sigma_s")?;
        match self.pool {
            Some(_) => Ok(()),
            None => Err(Error::Saved(format!("`{}` holds no tensors `mu` and `sigma`", self.path.display()))),
        }
    }

    /// Whether its statistics come from ADM's suite or torch-fidelity, by what else it holds:
    /// features of places, images, tensors. (pytorch-fid's and clean-fid's files are two arrays.)
    pub fn is_adms(&self) -> bool {
        self.tag.is_none() && (self.spatial.is_some() || self.images.is_some() || !is_npz(&self.path))
    }

    /// Its kind by its tag, else by its contents.
    pub fn judge(&self) -> Judgement {
        let judgement = |kind, because: String| Judgement { kind, because };
        match (&self.tag, &self.pool, self.images) {
            (Some(tag), ..) => judgement(Some(tag.kind), format!("its tag says so: {}", tag.note)),
            (None, Some(_), Some(n)) => judgement(
                Some(ReferenceKind::Gfid),
                format!(
                    "it holds stored statistics beside {n} images, as ADM's VIRTUAL files of training sets do"
                ),
            ),
            (None, Some(_), None) => judgement(None, "it holds statistics alone".into()),
            (None, None, Some(n)) => judgement(
                Some(ReferenceKind::Rfid),
                format!("it holds {n} images and no statistics, as files of validation images do"),
            ),
            (None, None, None) => judgement(None, "it holds neither images nor statistics".into()),
        }
    }
}

/// By content: a zip archive whose members are arrays.
pub fn is_npz(path: &Path) -> bool {
    Npz::open(path).is_ok()
}

/// Writes statistics in ADM's layout, with a tag.
pub fn write_reference(path: &Path, pool: &Moments, spatial: Option<&Moments>, tag: &Tag) -> Result<()> {
    let pool = pool.statistics()?;
    let spatial = spatial.map(Moments::statistics).transpose()?;
    let text = serde_json::to_vec(tag).map_err(|e| Error::Saved(e.to_string()))?;
    let text = Tensor::from_slice(&text).to_kind(Kind::Uint8);
    let mut arrays = vec![("mu", &pool.mean), ("sigma", &pool.covariance)];
    if let Some(s) = &spatial {
        arrays.extend([("mu_s", &s.mean), ("sigma_s", &s.covariance)]);
    }
    arrays.push((TAG, &text));
    Ok(npz::write(path, &arrays)?)
}
