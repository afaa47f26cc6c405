//! Images in an `.npz`, as the ADM evaluation suite keeps them: `arr_0` (N, H, W, 3) uint8 and
//! perhaps labels `arr_1`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::npz::{Npz, Rows};
use image::RgbImage;
use tch::{Kind, Tensor};

use crate::limits::{max_pixels, too_large};
use crate::table::shortened;
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
            let shape = shortened(&format!("{:?}", info.shape));
            let message = format!("`arr_0`: expected uint8 (N, H, W, 3), found {shape} of {}", info.descr);
            return Err(Error::malformed(path, message));
        }
        let labels = match npz.info(Self::LABELS) {
            Some(_) => Some(npz.read(Self::LABELS)?),
            None => None,
        };
        let labels = labels.map(|t| whole_numbers(&t)).transpose();
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

/// Labels as they are meant: floats are taken where they are whole.
fn whole_numbers(labels: &Tensor) -> std::result::Result<Vec<i64>, String> {
    let expected = |found: &str| format!("expected class indices, found {found}");
    if labels.kind() == Kind::Bool {
        return Err(expected("values that are true or false"));
    }
    if labels.is_floating_point() {
        let exact = labels.to_kind(Kind::Double).view(-1);
        let values = Vec::<f64>::try_from(&exact).map_err(|e| e.to_string())?;
        if let Some(x) = values.iter().find(|x| x.fract() != 0.0 || x.abs() > 2f64.powi(53)) {
            return Err(expected(&x.to_string()));
        }
    }
    Vec::<i64>::try_from(labels.to_kind(Kind::Int64).view(-1)).map_err(|e| e.to_string())
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
