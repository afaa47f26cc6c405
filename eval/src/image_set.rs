//! Sets of images to score: read in parallel, matched by name, of one size.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::hash::Sha256;
use base::{ImagesU8, Skipped};
use data::transform::center_crop;
use data::{Class, ClassTable, Dataset, Stored, Target};
use image::RgbImage;
use rayon::prelude::*;
use tch::Tensor;

use crate::Result;
use crate::digest::Digest;
use crate::job_error::JobError;

/// Images in files.
#[derive(Clone)]
pub struct ImageSet {
    /// Path as named.
    pub path: PathBuf,
    records: Arc<dyn Dataset>,
    /// Record at each place.
    order: Option<Arc<Vec<usize>>>,
    resize: Option<u32>,
    /// A prompt for each record.
    prompts: Option<Arc<Vec<String>>>,
    /// A class of ImageNet-1k for each record, which goes before the data set's own label.
    labels: Option<Arc<Vec<i64>>>,
}

/// One image that was read.
#[derive(Debug)]
pub struct Read {
    /// Its name in the set.
    pub name: String,
    /// Its class.
    pub class: Option<i64>,
    /// Its prompt, where prompts are attached.
    pub prompt: Option<String>,
    /// Its pixels.
    pub image: RgbImage,
    /// Form of the pixels in the file.
    pub stored: Stored,
    /// Digest of name and pixels.
    pub digest: Digest,
}

impl ImageSet {
    /// A set at `path`; with `resize` its images become squares of that side by ADM's centre crop.
    pub fn new(path: &Path, records: Arc<dyn Dataset>, resize: Option<u32>) -> Self {
        ImageSet { path: path.to_owned(), records, order: None, resize, prompts: None, labels: None }
    }

    /// The same images, cropped to squares of another side.
    pub fn cropped(&self, side: u32) -> Self {
        ImageSet { resize: Some(side), ..self.clone() }
    }

    /// The set with a prompt for each of its records.
    pub fn with_prompts(self, prompts: Vec<String>) -> Self {
        ImageSet { prompts: Some(Arc::new(prompts)), ..self }
    }

    /// The set with a class of ImageNet-1k for each of its records.
    pub fn with_labels(self, labels: Vec<i64>) -> Self {
        ImageSet { labels: Some(Arc::new(labels)), ..self }
    }

    /// The classes given by [`ImageSet::with_labels`], in the records' order; empty where none
    /// were.
    pub fn labels(&self) -> &[i64] {
        self.labels.as_ref().map_or(&[], |labels| labels)
    }

    /// Whether the set has such classes.
    pub fn is_labelled(&self) -> bool {
        self.labels.is_some()
    }

    /// Digest that distinguishes the set from any other: names, labels, classes, prompts, and the
    /// files' content.
    pub fn identity(&self) -> String {
        let content = data::content_fingerprint(self.records.as_ref());
        let mut given = Sha256::default();
        given.update(content);
        for prompt in self.prompts.iter().flat_map(|prompts| prompts.iter()) {
            given.update([prompt.as_bytes(), &[0]].concat());
        }
        self.labels().iter().for_each(|label| given.update(label.to_le_bytes()));
        given.fingerprint()
    }

    /// A record's name.
    pub fn key(&self, record: usize) -> String {
        self.records.key(record)
    }

    /// A record's label.
    pub fn target(&self, record: usize) -> Target {
        self.records.target(record)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True if it has no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The side to which its images are cropped and resized.
    pub fn side(&self) -> Option<u32> {
        self.resize
    }

    /// The data set's own classes.
    pub fn classes(&self) -> &[Class] {
        self.records.classes()
    }

    /// Class → name, where the set has classes.
    pub fn class_names(&self) -> Vec<(i64, String)> {
        let all: Vec<&Class> = match &self.labels {
            Some(_) => ClassTable::imagenet().classes().collect(),
            None => self.classes().iter().collect(),
        };
        all.into_iter().map(|c| (c.index, c.name.clone())).collect()
    }

    /// The set in one line.
    pub fn describe(&self) -> String {
        self.records.describe()
    }

    fn record(&self, place: usize) -> usize {
        self.order.as_ref().map_or(place, |order| order[place])
    }

    /// Reads images on all threads. An image that cannot be read is skipped by name.
    pub fn read(&self, places: &[u64]) -> Vec<std::result::Result<Read, Skipped>> {
        places.par_iter().map(|&place| self.read_one(self.record(place as usize))).collect()
    }

    fn read_one(&self, index: usize) -> std::result::Result<Read, Skipped> {
        let name = self.records.key(index);
        let record = self.records.get(index).map_err(|e| Skipped {
            input: self.path.join(&name).display().to_string(),
            error: e.to_string(),
        })?;
        let class = match (&self.labels, record.target) {
            (Some(labels), _) => Some(labels[index]),
            (None, Target::Class(class)) => Some(class),
            (None, _) => None,
        };
        let image = match self.resize {
            Some(side) => center_crop(&record.image, side),
            None => record.image,
        };
        let mut hash = Sha256::default();
        hash.update(stem(&name));
        hash.update([0]);
        hash.update(image.width().to_le_bytes());
        hash.update(image.as_raw());
        let digest = Digest::of(hash.digest());
        let prompt = self.prompts.as_ref().map(|prompts| prompts[index].clone());
        Ok(Read { name, class, prompt, image, stored: record.stored, digest })
    }

    /// The set in the order of another with the same names. Endings count only where a set has two
    /// images that differ in nothing else.
    pub fn matched_with(mut self, other: &ImageSet) -> Result<Self> {
        let names = |set: &ImageSet| (0..set.len()).map(|i| set.records.key(i)).collect::<Vec<_>>();
        let (mine, theirs) = (names(&self), names(other));
        let mut stems: HashMap<&str, [usize; 2]> = HashMap::new();
        for (side, names) in [&mine, &theirs].into_iter().enumerate() {
            names.iter().for_each(|name| stems.entry(stem(name)).or_default()[side] += 1);
        }
        let places: HashMap<&str, usize> =
            mine.iter().enumerate().map(|(i, name)| (pair_key(name, &stems), i)).collect();
        let wanted: HashSet<&str> = theirs.iter().map(|name| pair_key(name, &stems)).collect();
        for (set, keys, count) in [(&self, places.len(), mine.len()), (other, wanted.len(), theirs.len())] {
            if keys < count {
                return Err(JobError::SameNames { path: set.path.clone() }.into());
            }
        }
        let found: Vec<Option<usize>> =
            theirs.iter().map(|name| places.get(pair_key(name, &stems)).copied()).collect();
        let lacking: Vec<&String> =
            theirs.iter().zip(&found).filter(|(_, f)| f.is_none()).map(|(n, _)| n).collect();
        let surplus: Vec<&String> =
            mine.iter().filter(|name| !wanted.contains(pair_key(name, &stems))).collect();
        if !lacking.is_empty() || !surplus.is_empty() {
            return Err(self.unmatched(other, &lacking, &surplus).into());
        }
        self.order = Some(Arc::new(found.into_iter().flatten().collect()));
        Ok(self)
    }

    fn unmatched(&self, other: &ImageSet, lacking: &[&String], surplus: &[&String]) -> JobError {
        let list = |names: &[&String]| {
            let shown: Vec<String> = names.iter().take(3).map(|n| format!("`{n}`")).collect();
            let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
            format!("{}{more}", shown.join(", "))
        };
        let mut parts = vec![];
        if !lacking.is_empty() {
            parts.push(format!("`{}` lacks {}", self.path.display(), list(lacking)));
        }
        if !surplus.is_empty() {
            parts.push(format!("`{}` lacks {}", other.path.display(), list(surplus)));
        }
        JobError::NoPairs { lacking: parts.join("; ") }
    }
}

/// Name by which pairs are found: a name without its ending, if `stems` counts it no more than once
/// on either side.
fn pair_key<'a>(name: &'a str, stems: &HashMap<&str, [usize; 2]>) -> &'a str {
    match stems[stem(name)] {
        [0 | 1, 0 | 1] => stem(name),
        _ => name,
    }
}

/// A name without an image's ending.
fn stem(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, _)) if data::looks_like_image(name) => stem,
        _ => name,
    }
}

/// Check that all images have one size.
#[derive(Debug, Default)]
pub struct OneSize {
    first: Option<(String, (u32, u32))>,
}

impl OneSize {
    /// Refuses an image that differs from the first.
    pub fn check(&mut self, name: &str, size: (u32, u32)) -> Result<()> {
        let (first, expected) = self.first.get_or_insert_with(|| (name.to_owned(), size));
        if *expected == size {
            return Ok(());
        }
        let (first, expected) = (first.clone(), *expected);
        Err(JobError::OneSize { name: name.to_owned(), size, first, expected }.into())
    }
}

/// Images of one size as a batch.
pub fn stack<'a>(images: impl ExactSizeIterator<Item = &'a RgbImage> + Clone) -> Result<ImagesU8> {
    let n = images.len() as i64;
    let (w, h) = images.clone().next().map_or((0, 0), RgbImage::dimensions);
    let bytes: Vec<u8> = images.flat_map(|i| i.as_raw().iter().copied()).collect();
    let nhwc = Tensor::from_slice(&bytes).view([n, i64::from(h), i64::from(w), 3]);
    Ok(ImagesU8::new(nhwc.permute([0, 3, 1, 2]).contiguous())?)
}
