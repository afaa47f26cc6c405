//! What images are compared with, and whether it is the right thing.

use std::path::{Path, PathBuf};

use anyhow::Result;
use backbones::files::sha256;
use backbones::{FeatureId, InputPath};
use choices::ReferenceKind;
use eval::{ReferenceFile, Statistics, is_npz};
use serde::Serialize;

use super::agreement;
use super::images::ImageSet;
use super::metrics::{Plan, is_pairwise, needs_rows};
use crate::context::Context;
use crate::failure::Failure;

/// Statistics, images or both.
pub struct Reference {
    /// What was named.
    pub path: PathBuf,
    /// Statistics, where the file has some.
    pub file: Option<ReferenceFile>,
    /// Images, where there are some.
    pub images: Option<ImageSet>,
    /// SHA-256 of a file; a folder has none.
    pub sha256: Option<String>,
    /// Its kind, in words.
    pub kind: String,
}

/// A reference as reports name it.
#[derive(Debug, Clone, Serialize)]
pub struct ReferenceReport {
    /// What was named.
    pub path: PathBuf,
    /// Of the file; of a folder's images, the sum of the SHA-256 of their names and pixels.
    pub sha256: Option<String>,
    /// What it is, and how that is known.
    pub kind: String,
    /// Images that were read of it.
    pub images: u64,
    /// Images that its stored statistics are of, where that is known.
    pub statistics_of: Option<u64>,
}

impl Reference {
    /// Opens it and refuses what is of another kind than the protocol's.
    pub fn open(
        path: &Path,
        resize: Option<u32>,
        protocol: Option<ReferenceKind>,
        expected: Option<&str>,
        context: &Context,
    ) -> Result<Self> {
        let sha256 = if path.is_file() { Some(sha256(path)?) } else { None };
        if let (Some(expected), found) = (expected, sha256.as_deref().unwrap_or("none: it is no file"))
            && !found.eq_ignore_ascii_case(expected)
        {
            let message = format!("`{}` has the SHA-256 {found}, expected {expected}", path.display());
            return Err(Failure::new(message).hint("it is another file, or a damaged one").into());
        }
        let file = if is_npz(path) || is_torch_cache(path) {
            Some(ReferenceFile::open_checked(path)?)
        } else {
            None
        };
        let has_images = file.as_ref().is_none_or(|f| f.images.is_some());
        let images = if has_images { Some(ImageSet::open(path, resize, context)?) } else { None };
        let kind = match &file {
            Some(file) => judge(file, protocol)?,
            None => "images".into(),
        };
        Ok(Reference { path: path.to_owned(), file, images, sha256, kind })
    }

    /// Its images with the classes of ImageNet-1k that they have, where all have one; else says why not.
    pub fn label(&mut self, context: &Context) {
        let Some(images) = self.images.take() else { return };
        self.images = Some(match agreement::label(images.clone()) {
            Ok(labelled) => labelled,
            Err(e) => {
                context.printer.note(&format!("the reference's own agreement is not computed: {e}"));
                images
            }
        });
    }

    /// Stored statistics for a network: of the features that distances read, or of features of places.
    pub fn stored(&self, id: &FeatureId, spatial: bool) -> Result<Option<&Statistics>> {
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

    fn other_features(&self, stored: &FeatureId, id: &FeatureId) -> Failure {
        let path = self.path.display();
        Failure::new(format!("`{path}` holds statistics of other features: {stored}; this run has {id}"))
            .hint("`gen eval stats` makes statistics of this network")
    }

    fn other_input(&self, id: &FeatureId) -> Failure {
        let path = self.path.display();
        Failure::new(format!(
            "`{path}` is of ADM's form, whose statistics are taken with the input tf; this run has {}",
            id.input_path
        ))
        .hint("leave `--inception-input` out, or make statistics of that input with `gen eval stats`")
    }

    fn foreign_weights(&self, id: &FeatureId) -> Failure {
        let path = self.path.display();
        Failure::new(format!("`{path}` holds statistics of the public Inception network; this run has {id}"))
            .hint("`gen eval stats` makes statistics of this network")
    }

    /// Refuses scores that it cannot give.
    pub fn must_serve(&self, plan: &Plan) -> Result<()> {
        if self.images.is_some() {
            return Ok(());
        }
        let lacking = plan.names(|m| needs_rows(m) || is_pairwise(m));
        if lacking.is_empty() {
            return Ok(());
        }
        let message = format!(
            "`{}` holds statistics alone, and {} compare{} single images",
            self.path.display(),
            lacking.join(", "),
            if lacking.len() == 1 { "s" } else { "" }
        );
        Err(Failure::new(message)
            .hint("give a reference with images, or leave these out of `--metrics`")
            .into())
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
            let (number, right) = match wanted {
                ReferenceKind::Rfid => ("rFID", "the cropped validation images themselves"),
                _ => ("gFID", "statistics of the whole training set, ADM's VIRTUAL file"),
            };
            let message = format!("`{}` is {shown}, but {number} compares with {right}", file.path.display());
            Err(Failure::new(message)
                .hint("the wrong reference file is the usual reason for a figure that cannot be reproduced")
                .hint("`--protocol` says which number is meant; without it `gen eval IMAGES --reference …` takes any")
                .into())
        }
        _ => Ok(shown),
    }
}

/// A `.pt` or safetensors file, by content.
fn is_torch_cache(path: &Path) -> bool {
    path.is_file() && data::open(path).is_err() && weights::Checkpoint::open(path).is_ok()
}

/// Tells what a run is compared with.
pub fn note(reference: &Reference, context: &Context) {
    let images = reference.images.as_ref().map(|i| format!("; {}", i.describe())).unwrap_or_default();
    context.printer.note(&format!("reference: `{}`, {}{images}", reference.path.display(), reference.kind));
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
            assert!(adm.stored(&id(InputPath::Tf), false).unwrap().is_some());
            for other in [InputPath::Pf, InputPath::Clean] {
                let error = adm.stored(&id(other), false).unwrap_err().to_string();
                assert!(error.contains("taken with the input tf"), "{error}");
            }
        }
    }
}
