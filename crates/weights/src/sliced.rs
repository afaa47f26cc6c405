//! Tensors in several safetensors files, each of which holds runs of their values: the states that
//! several processes save together.
//!
//! The metadata of every file name all files (`files`) and, for each tensor that is a slice, the
//! shape of the whole and its first value (`slices`). Other tensors are whole.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tch::{Kind, Tensor};

use crate::parse::parse_file;
use crate::parsed::{Entries, Format, Parsed};
use crate::save::save_with_digest;
use crate::shards::beside;
use crate::source::{Entry, Piece};
use crate::{Error, Result};

const FILES: &str = "files";
const SLICES: &str = "slices";

/// A run of a tensor's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Shape of the whole tensor.
    pub shape: Vec<i64>,
    /// Number of the run's first value.
    pub start: i64,
}

/// Writes one of the files `files` of a state: whole tensors, and those that `slices` names, flat.
/// Returns the SHA-256 of what was written and its length.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn save_slices(
    path: &Path,
    tensors: &[(String, Tensor)],
    slices: &BTreeMap<String, Slice>,
    files: &[String],
    metadata: &BTreeMap<String, String>,
) -> Result<(String, u64)> {
    let mut metadata = metadata.clone();
    metadata.insert(FILES.into(), serde_json::json!(files).to_string());
    metadata.insert(SLICES.into(), serde_json::json!(slices).to_string());
    save_with_digest(path, tensors, &metadata)
}

/// True for one of several files.
pub(crate) fn is_part(parsed: &Parsed) -> bool {
    [FILES, SLICES].iter().all(|key| parsed.metadata.contains_key(*key))
}

/// Joins the files of which `path` is one.
pub(crate) fn open(path: &Path, part: Parsed) -> Result<Parsed> {
    let files: Vec<String> = from_text(path, &part.metadata, FILES)?;
    let mut whole = Parsed {
        format: Format::SlicedSafetensors,
        blobs: vec![],
        sections: vec![(None, vec![])],
        metadata: Map::new(),
        not_shown: vec![],
    };
    let mut pieces: BTreeMap<String, Pieces> = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        let file = beside(path, file)?;
        let part = parse_file(&file)?;
        let slices: BTreeMap<String, Slice> = from_text(&file, &part.metadata, SLICES)?;
        let first = whole.blobs.len();
        whole.blobs.extend(part.blobs);
        if number == 0 {
            whole.metadata = part.metadata;
        }
        for (name, mut entry) in part.sections.into_iter().flat_map(|(_, entries)| entries) {
            entry.blob += first;
            let Some(slice) = slices.get(&name) else {
                whole.sections[0].1.push((name, entry));
                continue;
            };
            let new = || Pieces { shape: slice.shape.clone(), kind: entry.info.kind, places: vec![] };
            let all = pieces.entry(name.clone()).or_insert_with(new);
            if all.shape != slice.shape || all.kind != entry.info.kind {
                return Err(Error::damaged(&file, format!("`{name}` is not of the shape in other files")));
            }
            let piece = Piece { blob: entry.blob, offset: entry.offset, bytes: entry.info.bytes };
            all.places.push((slice.start, piece));
        }
    }
    let joined = pieces.into_iter().map(|(name, pieces)| {
        let entry = pieces.join().ok_or_else(|| {
            Error::damaged(path, format!("the values of `{name}` are missing or twice in the files with it"))
        })?;
        Ok((name, entry))
    });
    whole.sections[0].1.extend(joined.collect::<Result<Entries>>()?);
    whole.metadata.retain(|key, _| key != FILES && key != SLICES);
    Ok(whole)
}

/// Pieces of a tensor in several files.
struct Pieces {
    shape: Vec<i64>,
    kind: Kind,
    /// First value of each.
    places: Vec<(i64, Piece)>,
}

impl Pieces {
    /// The tensor, if its pieces follow one another from its first value to its last.
    fn join(mut self) -> Option<Entry> {
        let size = self.kind.elt_size_in_bytes() as u64;
        let values = self.shape.iter().try_fold(1i64, |n, d| n.checked_mul(*d).filter(|n| *n >= 0))?;
        let bytes = u64::try_from(values).ok()?.checked_mul(size)?;
        self.places.sort_by_key(|(start, _)| *start);
        let mut end = 0u64;
        for (start, piece) in &self.places {
            if u64::try_from(*start).ok()?.checked_mul(size)? != end {
                return None;
            }
            end = end.checked_add(piece.bytes)?;
        }
        let pieces = self.places.into_iter().map(|(_, piece)| piece).collect();
        (end == bytes).then(|| Entry::joined(self.shape, self.kind, pieces))
    }
}

fn from_text<T: serde::de::DeserializeOwned>(
    path: &Path,
    metadata: &Map<String, Json>,
    key: &str,
) -> Result<T> {
    let text = metadata.get(key).and_then(Json::as_str);
    let bad = |what: String| Error::damaged(path, format!("its `{key}` cannot be read: {what}"));
    serde_json::from_str(text.ok_or_else(|| bad("it has none".into()))?).map_err(|e| bad(e.to_string()))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::Checkpoint;

    fn save(dir: &Path, number: usize, tensors: &[(&str, &[f32])], slices: &[(&str, i64)]) {
        let files = ["a.safetensors", "b.safetensors"].map(str::to_owned);
        let tensors: Vec<(String, Tensor)> =
            tensors.iter().map(|(n, v)| ((*n).to_owned(), Tensor::from_slice(v))).collect();
        let slice = |(n, start): &(&str, i64)| ((*n).to_owned(), Slice { shape: vec![2, 3], start: *start });
        let slices = slices.iter().map(slice).collect();
        let metadata = [("step".to_owned(), "7".to_owned())].into();
        save_slices(&dir.join(&files[number]), &tensors, &slices, &files, &metadata).unwrap();
    }

    #[test]
    fn any_file_opens_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), 0, &[("w", &[1.0, 2.0, 3.0, 4.0]), ("b", &[9.0])], &[("w", 0)]);
        save(dir.path(), 1, &[("w", &[5.0, 6.0])], &[("w", 4)]);
        for file in ["a.safetensors", "b.safetensors"] {
            let all = Checkpoint::open(&dir.path().join(file)).unwrap();
            assert_eq!(all.metadata().keys().collect::<Vec<_>>(), ["step"]);
            let source = all.section(None).unwrap();
            let w = source.read("w", Device::Cpu).unwrap();
            assert_eq!(w, Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([2, 3]));
            assert_eq!(source.read("b", Device::Cpu).unwrap(), Tensor::from_slice(&[9f32]));
        }
    }

    #[test]
    fn missing_and_double_values_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (values, start) in [(&[5f32][..], 5), (&[5.0], 4), (&[4.0, 5.0, 6.0], 3), (&[], 6)] {
            save(dir.path(), 0, &[("w", &[1.0, 2.0, 3.0, 4.0])], &[("w", 0)]);
            save(dir.path(), 1, &[("w", values)], &[("w", start)]);
            let error = Checkpoint::open(&dir.path().join("a.safetensors")).unwrap_err().to_string();
            assert!(error.contains("`w`"), "{error}");
        }
        std::fs::remove_file(dir.path().join("b.safetensors")).unwrap();
        let error = Checkpoint::open(&dir.path().join("a.safetensors")).unwrap_err().to_string();
        assert!(error.contains("b.safetensors"), "{error}");
    }
}
