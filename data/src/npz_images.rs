//! Images in an `.npz`, as the ADM evaluation suite keeps them: `arr_0` (N, H, W, 3) uint8 and perhaps labels `arr_1`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::npz::{Npz, Rows};
use image::RgbImage;
use tch::Kind;

use crate::decode::{max_pixels, too_large};
use crate::{Class, Dataset, Error, Record, Result, Stored, Target, labels};

/// The images, read as they are needed; record *i* has the key *i* in six digits.
#[derive(Debug)]
pub struct NpzImages {
    path: PathBuf,
    rows: Rows,
    labels: Option<Vec<i64>>,
    classes: Vec<Class>,
}

impl NpzImages {
    /// The array of images.
    pub const IMAGES: &str = "arr_0";
    const LABELS: &str = "arr_1";

    /// Opens the array of images of `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let mut npz = Npz::open(path)?;
        let rows = npz.rows(Self::IMAGES)?;
        let info = rows.info();
        let good = info.kind == Some(Kind::Uint8)
            && matches!(info.shape[..], [n, h, w, 3] if n > 0 && h > 0 && w > 0);
        if !good {
            let message =
                format!("`arr_0`: expected uint8 (N, H, W, 3), found {:?} of {}", info.shape, info.descr);
            return Err(Error::malformed(path, message));
        }
        let labels = match npz.info(Self::LABELS) {
            Some(_) => Some(npz.read(Self::LABELS)?),
            None => None,
        };
        let labels = labels.map(|t| Vec::<i64>::try_from(t.to_kind(Kind::Int64).view(-1))).transpose();
        let labels = labels.map_err(|e| Error::malformed(path, format!("`arr_1`: {e}")))?;
        if let Some(found) = labels.as_ref().map(Vec::len).filter(|&n| n != rows.len()) {
            return Err(Error::malformed(path, format!("{} images but {found} labels", rows.len())));
        }
        if let Some(label) = labels.iter().flatten().find(|l| **l < 0) {
            return Err(Error::malformed(path, format!("`arr_1`: expected class indices, found {label}")));
        }
        let pixels = info.shape[1].saturating_mul(info.shape[2]) as u64;
        if pixels > max_pixels() {
            return Err(Error::malformed(path, too_large(info.shape[2] as u64, info.shape[1] as u64)));
        }
        let names: BTreeMap<i64, String> = labels.iter().flatten().map(|&l| (l, String::new())).collect();
        Ok(NpzImages { path: path.to_owned(), rows, labels, classes: labels::of_numbers(&names, None) })
    }
}

impl Dataset for NpzImages {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn key(&self, index: usize) -> String {
        format!("{index:06}")
    }

    fn target(&self, index: usize) -> Target {
        self.labels.as_ref().map_or(Target::None, |l| Target::Class(l[index]))
    }

    fn get(&self, index: usize) -> Result<Record> {
        let shape = &self.rows.info().shape;
        let (height, width) = (shape[1] as u32, shape[2] as u32);
        let image =
            RgbImage::from_raw(width, height, self.rows.bytes(index)?).expect("a row has H × W × 3 bytes");
        Ok(Record { key: self.key(index), image, target: self.target(index), stored: Stored::Rgb })
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn describe(&self) -> String {
        let shape = &self.rows.info().shape;
        let labels = if self.labels.is_some() { "with labels" } else { "no labels" };
        format!(
            "{}: {} images of {}x{} in an .npz, {labels}",
            self.path.display(),
            self.len(),
            shape[2],
            shape[1]
        )
    }
}
