//! Several files with an index (`*.index.json`) that assigns tensors to files, as Hugging Face
//! writes them for safetensors and for `.bin`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::parse::parse_file;
use crate::parsed::{Format, Parsed};
use crate::{Error, Result};

/// Reads all shards that an index names, as one file.
pub(crate) fn open(index: &Path, text: &str) -> Result<Parsed> {
    let mut whole = Parsed {
        format: Format::ShardedSafetensors,
        blobs: vec![],
        sections: vec![(None, vec![])],
        metadata: serde_json::Map::new(),
        not_shown: vec![],
    };
    let mut places: HashMap<String, String> = HashMap::new(); // tensor → file
    for (file, names) in files(index, text)? {
        let shard = parse_file(&beside(index, &file)?)?;
        if shard.format != Format::Safetensors {
            whole.format = Format::ShardedTorch;
        }
        let first = whole.blobs.len();
        whole.blobs.extend(shard.blobs);
        whole.metadata.extend(shard.metadata);
        whole.not_shown.extend(shard.not_shown);
        let entries = shard.sections.into_iter().filter(|(section, _)| section.is_none());
        for (name, mut entry) in entries.flat_map(|(_, entries)| entries) {
            if let Some(other) = places.insert(name.clone(), file.clone()) {
                let what = format!("`{name}` lies in two of its files, `{other}` and `{file}`");
                return Err(Error::damaged(index, what));
            }
            entry.blob += first;
            whole.sections[0].1.push((name, entry));
        }
        if let Some(lost) = names.iter().find(|n| places.get(*n) != Some(&file)) {
            let what = format!("the index says that `{file}` holds `{lost}`, and it does not");
            return Err(Error::damaged(index, what));
        }
    }
    whole.metadata.sort_keys();
    Ok(whole)
}

/// The tensors of each file.
fn files(index: &Path, text: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let bad = |what: String| Error::damaged(index, what);
    let json: Json = serde_json::from_str(text).map_err(|e| bad(format!("not valid JSON: {e}")))?;
    let map = json.get("weight_map").and_then(Json::as_object);
    let map = map.ok_or_else(|| Error::NotACheckpoint {
        path: index.to_owned(),
        found: "is a JSON document without the `weight_map` of an index of shards".into(),
        advice: "give the file that holds the weights".into(),
    })?;
    let mut by_file: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, file) in map {
        let file = file.as_str().ok_or_else(|| bad(format!("the file of `{name}` is not a string")))?;
        by_file.entry(file.to_owned()).or_default().push(name.clone());
    }
    Ok(by_file)
}

/// Path of a file that `from` names, which must be beside it: otherwise a file could make the
/// program read any other.
pub(crate) fn beside(from: &Path, file: &str) -> Result<PathBuf> {
    let plain = Path::new(file).components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if !plain || file.is_empty() {
        return Err(Error::damaged(
            from,
            format!("`{file}` is not the name of a file beside the index or part that names it"),
        ));
    }
    Ok(from.parent().unwrap_or(Path::new("")).join(file))
}
