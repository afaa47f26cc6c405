//! The reference of a run, and whether it is the right one.

use std::path::PathBuf;

use backbones::{FeatureId, InputPath};
use settings::ReferenceKind;

use crate::Result;
use crate::image_set::ImageSet;
use crate::job_error::JobError;
use crate::math::moments::Statistics;
use crate::reference::ReferenceFile;

/// Statistics, images or both.
pub struct Reference {
    /// Path as named.
    pub path: PathBuf,
    /// Statistics, where the file has some.
    pub file: Option<ReferenceFile>,
    /// Images, where there are some.
    pub images: Option<ImageSet>,
    /// SHA-256 of a file; a folder has none.
    pub sha256: Option<String>,
    /// Its kind in words.
    pub kind: String,
}

impl Reference {
    /// A reference of statistics, images or both.
    ///
    /// # Errors
    /// Returns an error if its file is of another kind than `protocol`.
    pub fn new(
        path: PathBuf,
        file: Option<ReferenceFile>,
        images: Option<ImageSet>,
        sha256: Option<String>,
        protocol: Option<ReferenceKind>,
    ) -> Result<Self> {
        let kind = match &file {
            Some(file) => judge(file, protocol)?,
            None => "images".into(),
        };
        Ok(Reference { path, file, images, sha256, kind })
    }

    /// Stored statistics for a network: of the features that distances read, or of spatial
    /// features.
    pub fn statistics(&self, id: &FeatureId, spatial: bool) -> Result<Option<&Statistics>> {
        let Some(file) = &self.file else { return Ok(None) };
        let stored = if spatial { &file.spatial } else { &file.pool };
        let Some(stored) = stored else { return Ok(None) };
        match &file.tag {
            Some(tag) if tag.features == *id => Ok(Some(stored)),
            // Statistics of another network say nothing about this one; images may still be there.
            Some(tag) if self.images.is_none() => Err(self.other_features(&tag.features, id).into()),
            Some(_) => Ok(None),
            // Without a tag they are of the public Inception network.
            None if !id.is_inception() && self.images.is_some() => Ok(None),
            None if !id.is_inception() || !id.comparable => Err(self.foreign_weights(id).into()),
            None if file.is_adms() && id.input_path != InputPath::Tf.to_string() => {
                Err(self.other_input(id).into())
            }
            None => Ok(Some(stored)),
        }
    }

    fn other_features(&self, stored: &FeatureId, id: &FeatureId) -> JobError {
        JobError::StatisticsOfOthers {
            path: self.path.clone(),
            stored: format!("other features: {stored}"),
            id: id.to_string(),
        }
    }

    fn other_input(&self, id: &FeatureId) -> JobError {
        JobError::StatisticsOfTf { path: self.path.clone(), input: id.input_path.clone() }
    }

    fn foreign_weights(&self, id: &FeatureId) -> JobError {
        let stored = "the public Inception network".to_owned();
        JobError::StatisticsOfOthers { path: self.path.clone(), stored, id: id.to_string() }
    }
}

/// The kind in words; an error if the protocol asks for another.
fn judge(file: &ReferenceFile, protocol: Option<ReferenceKind>) -> Result<String> {
    let judgement = file.judge();
    let words = |kind: Option<ReferenceKind>| match kind {
        Some(ReferenceKind::Rfid) => "a reference for rFID",
        Some(ReferenceKind::Gfid) => "a reference for gFID",
        Some(ReferenceKind::Other) => "a reference of its own kind",
        None => "of unknown kind",
    };
    let shown = format!("{} ({})", words(judgement.kind), judgement.because);
    match (protocol, judgement.kind) {
        (Some(wanted), Some(found)) if wanted != found => {
            Err(JobError::WrongReference { path: file.path.clone(), shown, wanted }.into())
        }
        _ => Ok(shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn adms_statistics_are_of_adms_input_alone() {
        let statistics = || {
            let options = (Kind::Double, Device::Cpu);
            Some(Statistics::new(&Tensor::zeros([2], options), &Tensor::eye(2, options)).unwrap())
        };
        let reference = |spatial: Option<Statistics>, images: Option<u64>| Reference {
            path: "x.npz".into(),
            file: Some(ReferenceFile {
                // An `.npz` of two arrays is known by its content.
                path: concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into(),
                pool: statistics(),
                spatial,
                images,
                tag: None,
            }),
            images: None,
            sha256: None,
            kind: String::new(),
        };
        let id = |input_path: InputPath| FeatureId {
            network: "inception-fid".into(),
            weights_sha256: String::new(),
            input_path: input_path.to_string(),
            layer: String::new(),
            comparable: true,
        };
        for adm in [reference(statistics(), None), reference(None, Some(10_000))] {
            assert!(adm.statistics(&id(InputPath::Tf), false).unwrap().is_some());
            for other in [InputPath::Pf, InputPath::Clean] {
                let error = adm.statistics(&id(other), false).unwrap_err().to_string();
                assert!(error.contains("taken with the input tf"), "{error}");
            }
        }
    }
}
