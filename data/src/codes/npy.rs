//! The official layout: `<path>/imagenet256_codes/{i}.npy` and `<path>/imagenet256_labels/{i}.npy`,
//! i the number of the image in torchvision's order.
//!
//! GigaTok stores int64 `[A, N]` and a scalar label, LlamaGen `[1, A, N]` and `[1]`
//! (`extract_codes_c2i.py`).

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use base::files::write_atomic;
use base::npz::read_npy_integers;
use ndarray::{ArrayView2, arr0};
use ndarray_npy::WriteNpyExt;

use super::shards::read_classes;
use super::writer::write_classes;
use super::{CodePlan, CodeRecord, CodeSource, TokenizerId};
use crate::claim::PLAN;
use crate::{Class, Error, Result};

/// Reader of the official layout, in either of its forms. Every read opens two files.
#[derive(Debug)]
pub struct NpyCodes {
    codes: PathBuf,
    labels: PathBuf,
    len: usize,
    views: usize,
    num_tokens: usize,
    tokenizer: Option<TokenizerId>,
    classes: Vec<Class>,
}

/// The pair of folders `*_codes` and `*_labels` inside `path`, if there is exactly one.
pub(super) fn folders(path: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
    let mut pairs = vec![];
    for entry in std::fs::read_dir(path).map_err(Error::read(path))? {
        let codes = entry.map_err(Error::read(path))?.path();
        let name = codes.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(stem) = name.strip_suffix("_codes") {
            let labels = path.join(format!("{stem}_labels"));
            if labels.is_dir() {
                pairs.push((codes, labels));
            }
        }
    }
    if pairs.len() > 1 {
        return Err(Error::malformed(path, "it holds several pairs of `*_codes` and `*_labels` folders"));
    }
    Ok(pairs.pop())
}

impl NpyCodes {
    /// Opens the two folders. Files must be numbered from 0 without gaps; sizes are taken from the
    /// first. What our own extraction noted in the folder `root` around them is used too; the
    /// official one notes nothing.
    pub fn open(root: &Path, codes: &Path, labels: &Path) -> Result<Self> {
        let plan = base::resume::read::<CodePlan>(&root.join(PLAN))?;
        let len = count(codes)?;
        let others = count(labels)?;
        if len != others {
            return Err(Error::malformed(
                labels,
                format!("expected {len} labels as there are codes, found {others}"),
            ));
        }
        if len == 0 {
            return Err(Error::malformed(codes, "no `0.npy`, `1.npy`, … here"));
        }
        if let Some(plan) = plan.as_ref().filter(|p| p.records != len) {
            return Err(Error::malformed(
                root,
                format!("unfinished: {len} of {} records are there", plan.records),
            ));
        }
        let first = codes.join("0.npy");
        let (shape, _) = read(&first)?;
        let (views, num_tokens) = match shape.as_slice() {
            [a, n] | [1, a, n] if *a > 0 && *n > 0 => (*a as usize, *n as usize),
            other => {
                return Err(Error::malformed(
                    &first,
                    format!("expected [A, N] or [1, A, N], found {other:?}"),
                ));
            }
        };
        let tokenizer = plan.map(|p| p.tokenizer);
        let (codes, labels, classes) = (codes.to_owned(), labels.to_owned(), read_classes(root)?);
        Ok(NpyCodes { codes, labels, len, views, num_tokens, tokenizer, classes })
    }
}

/// Number of files `{i}.npy`, which must run from 0 without gaps.
fn count(folder: &Path) -> Result<usize> {
    let mut numbers = vec![];
    for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
        let name = entry.map_err(Error::read(folder))?.file_name().to_string_lossy().into_owned();
        numbers.extend(name.strip_suffix(".npy").and_then(|s| s.parse::<usize>().ok()));
    }
    numbers.sort_unstable();
    match numbers.iter().enumerate().find(|(i, n)| i != *n) {
        Some((i, _)) => Err(Error::malformed(folder, format!("`{i}.npy` is missing"))),
        None => Ok(numbers.len()),
    }
}

/// Shape and values.
fn read(path: &Path) -> Result<(Vec<i64>, Vec<i64>)> {
    let array = read_npy_integers(path)?;
    let values = Vec::<i64>::try_from(array.reshape([-1]));
    Ok((array.size(), values.map_err(|e| Error::malformed(path, e.to_string()))?))
}

impl CodeSource for NpyCodes {
    fn len(&self) -> usize {
        self.len
    }

    fn views(&self) -> usize {
        self.views
    }

    fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    fn read(&self, index: usize, view: usize) -> Result<CodeRecord> {
        let path = self.codes.join(format!("{index}.npy"));
        let (shape, all) = read(&path)?;
        if all.len() != self.views * self.num_tokens {
            let (views, num_tokens) = (self.views, self.num_tokens);
            let message = format!("expected {views} x {num_tokens} codes, found shape {shape:?}");
            return Err(Error::malformed(&path, message));
        }
        let codes = all[view * self.num_tokens..][..self.num_tokens].to_vec();
        if let Some(code) = codes.iter().find(|c| **c < 0) {
            return Err(Error::malformed(&path, format!("{code} is not a code")));
        }
        let path = self.labels.join(format!("{index}.npy"));
        match read(&path)? {
            (_, one) if one.len() == 1 => Ok(CodeRecord { codes, label: one[0], caption: String::new() }),
            (shape, _) => Err(Error::malformed(&path, format!("expected one label, found shape {shape:?}"))),
        }
    }

    /// The layout holds none.
    fn caption(&self, _index: usize) -> Result<String> {
        Ok(String::new())
    }

    fn tokenizer(&self) -> Option<&TokenizerId> {
        self.tokenizer.as_ref()
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn describe(&self) -> String {
        format!(
            "{}: {} .npy files, {} views of {} codes",
            self.codes.display(),
            self.len,
            self.views,
            self.num_tokens
        )
    }
}

/// Writer of GigaTok's form. It numbers images without gaps, so none may be left out.
#[derive(Debug)]
pub struct NpyWriter {
    root: PathBuf,
    codes: PathBuf,
    labels: PathBuf,
    plan: CodePlan,
}

impl NpyWriter {
    /// Begins or continues in `root`; `image_size` names the folders, as officially.
    pub fn create(root: &Path, plan: CodePlan, image_size: i64) -> Result<Self> {
        plan.claim(root)?;
        let folder = |what: &str| root.join(format!("imagenet{image_size}_{what}"));
        let writer =
            NpyWriter { root: root.to_owned(), codes: folder("codes"), labels: folder("labels"), plan };
        for path in [&writer.codes, &writer.labels] {
            std::fs::create_dir_all(path).map_err(Error::write(path))?;
        }
        Ok(writer)
    }

    /// The records still to be written.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.plan.records).filter(|i| !self.has(*i)).collect()
    }

    /// Notes the class names, for our own reader.
    pub fn finish(&self, classes: &[Class]) -> Result<()> {
        write_classes(&self.root, classes)
    }

    /// True if the record is already written.
    fn has(&self, index: usize) -> bool {
        // The label is written last.
        self.labels.join(format!("{index}.npy")).exists()
    }

    /// Writes one record: its codes in every view, A·N of them, view after view, and its label.
    pub fn write(&self, index: usize, codes: &[i64], label: i64) -> Result<()> {
        let shape = (self.plan.views.len(), self.plan.tokenizer.num_tokens as usize);
        let array = ArrayView2::from_shape(shape, codes).map_err(|_| {
            Error::Settings(format!("record {index}: expected {shape:?} codes, found {}", codes.len()))
        })?;
        write(&self.codes.join(format!("{index}.npy")), &array)?;
        write(&self.labels.join(format!("{index}.npy")), &arr0(label))
    }
}

fn write(path: &Path, array: &impl WriteNpyExt) -> Result<()> {
    let fill = |f: &mut File| array.write_npy(BufWriter::new(f)).map_err(std::io::Error::other);
    write_atomic(path, fill).map_err(Error::write(path))
}
