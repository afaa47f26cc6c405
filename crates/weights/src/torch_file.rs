//! Files of `torch.save`: the zip layout, and the older stream of pickles followed by raw storages.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use libtorch_ext::mmap::{Mmap, sparingly};
use serde_json::Map;

use crate::origin::Unsupported;
use crate::parsed::{Format, Parsed};
use crate::pickle::{self, Id, Node, Pickle};
use crate::source::{Blob, Entry};
use crate::torch_objects::{Reader, Trouble};
use crate::torch_tensor::{Element, Storage, storage_id};
use crate::{Error, Result};

/// The first value of the older layout.
const LEGACY_MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// Its second value.
const LEGACY_PROTOCOL: i128 = 1001;

/// Deflate makes at most 1,032 bytes of one; the division leaves room for short members.
const MOST_DEFLATED: u64 = 1032 + 1;

/// True for what begins like the older layout.
pub(crate) fn recognise_legacy(head: &[u8]) -> bool {
    matches!(pickle::parse(head), Ok((p, _)) if p.node(p.root) == &Node::Int(LEGACY_MAGIC))
}

/// Error about a zip archive that is not a checkpoint.
fn other_archive(path: &Path, names: &[String]) -> Error {
    let any = |f: &dyn Fn(&str) -> bool| names.iter().any(|n| f(n));
    let (found, advice) = if any(&|n| n.ends_with("/constants.pkl") || n.ends_with("/code/")) {
        ("is a TorchScript program", "save the model's `state_dict()` with `torch.save` and give that")
    } else if any(&|n| n.ends_with(".npy")) {
        ("is a NumPy archive (.npz)", "checkpoints are files of `torch.save`, and safetensors")
    } else {
        ("is a zip archive without `data.pkl`", "checkpoints are files of `torch.save`, and safetensors")
    };
    Error::NotACheckpoint { path: path.to_owned(), found: found.into(), advice: advice.into() }
}

/// Reads the table of contents of a zip layout.
pub(crate) fn open_zip(path: &Path, map: Mmap) -> Result<Parsed> {
    let map = Arc::new(map);
    let members = sparingly(&map, || members(&map)).map_err(|what| Error::damaged(path, what))?;
    let names: Vec<String> = members.iter().map(|(name, _)| name.clone()).collect();
    let is_script = names.iter().any(|n| n.ends_with("/constants.pkl"));
    let main = names.iter().position(|n| n == "data.pkl" || n.ends_with("/data.pkl"));
    let Some(main) = main.filter(|_| !is_script) else { return Err(other_archive(path, &names)) };
    let prefix = names[main].strip_suffix("data.pkl").unwrap_or_default();
    let damaged = |what: String| Error::damaged(path, what);
    if let Some((_, blob)) = members.iter().find(|(n, _)| n.strip_prefix(prefix) == Some("byteorder"))
        && blob.bytes().map_err(damaged)?.as_ref() != b"little"
    {
        return Err(big_endian(path));
    }
    if members[main].1.len() > pickle::LARGEST {
        return Err(damaged("its `data.pkl` is too large to be honest".into()));
    }
    let text = members[main].1.bytes().map_err(damaged)?.into_owned();
    let (pickle, _) = pickle::parse(&text).map_err(damaged)?;
    let data = format!("{prefix}data/");
    let storage = |(blob, (name, at)): (usize, &(String, Blob))| {
        let key = name.strip_prefix(&data)?.to_owned();
        Some((key, Storage { blob, length: at.len() }))
    };
    let storages = members.iter().enumerate().filter_map(storage).collect();
    let blobs = members.into_iter().map(|(_, blob)| blob).collect();
    interpret(path, Format::TorchZip, &pickle, storages, blobs)
}

/// Names and places of an archive's members.
fn members(map: &Arc<Mmap>) -> std::result::Result<Vec<(String, Blob)>, String> {
    let broken = |e: zip::result::ZipError| {
        format!(
            "it begins as a zip archive, but its directory, at the end of the file, is broken or missing ({e})"
        )
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(&map[..])).map_err(broken)?;
    let count = archive.len();
    let member = |i: usize| {
        let file = archive.by_index_raw(i).map_err(broken)?;
        let size = |n: u64| usize::try_from(n).map_err(|e| e.to_string());
        let inflated = match file.compression() {
            zip::CompressionMethod::Stored => None,
            zip::CompressionMethod::Deflated if file.size() / MOST_DEFLATED > file.compressed_size() => {
                return Err(format!("`{}` claims more bytes than its compressed ones can hold", file.name()));
            }
            zip::CompressionMethod::Deflated => Some(size(file.size())?),
            other => {
                return Err(format!("`{}` is compressed by {other}, which is not supported", file.name()));
            }
        };
        if file.encrypted() {
            return Err(format!("`{}` is encrypted", file.name()));
        }
        let (start, stored) = (size(file.data_start())?, size(file.compressed_size())?);
        if start.checked_add(stored).is_none_or(|end| end > map.len()) {
            return Err(format!("`{}` reaches beyond the end of the file", file.name()));
        }
        Ok((file.name().to_owned(), Blob { map: map.clone(), start, stored, inflated }))
    };
    (0..count).map(member).collect()
}

/// Reads the table of contents of the older layout.
pub(crate) fn open_legacy(path: &Path, map: Mmap) -> Result<Parsed> {
    let map = Arc::new(map);
    legacy(path, &map).map_err(|e| match e {
        Legacy::Broken(what) => Error::damaged(path, what),
        Legacy::Other(e) => e,
    })
}

enum Legacy {
    Broken(String),
    Other(Error),
}

impl From<String> for Legacy {
    fn from(what: String) -> Self {
        Legacy::Broken(what)
    }
}

fn legacy(path: &Path, map: &Arc<Mmap>) -> std::result::Result<Parsed, Legacy> {
    let mut at = 0;
    let mut next = || -> std::result::Result<(Pickle, usize), String> {
        let (pickle, used) = pickle::parse(&map[at..])?;
        at += used;
        Ok((pickle, at))
    };
    let (magic, _) = next()?;
    let (protocol, _) = next()?;
    if magic.node(magic.root) != &Node::Int(LEGACY_MAGIC)
        || protocol.node(protocol.root) != &Node::Int(LEGACY_PROTOCOL)
    {
        return Err(Legacy::Broken("it does not begin as torch.save's older layout does".into()));
    }
    let (system, _) = next()?;
    if is_big_endian(&system) {
        return Err(Legacy::Other(big_endian(path)));
    }
    let (main, _) = next()?;
    let (keys, data) = next()?;
    let (storages, blobs) = sparingly(map, || legacy_storages(map, &main, &keys, data))?;
    interpret(path, Format::TorchLegacy, &main, storages, blobs).map_err(Legacy::Other)
}

fn big_endian(path: &Path) -> Error {
    let what = "its numbers are big-endian, which is not supported".into();
    Error::Unsupported { path: path.to_owned(), what }
}

fn is_big_endian(system: &Pickle) -> bool {
    let Node::Dict(pairs) = system.node(system.root) else { return false };
    pairs.iter().any(|&(key, value)| {
        system.node(key) == &Node::Str("little_endian".into()) && system.node(value) == &Node::Bool(false)
    })
}

type Storages = (HashMap<String, Storage>, Vec<Blob>);

/// After the pickles: for each key in order, the number of elements (i64) and the elements.
fn legacy_storages(
    map: &Arc<Mmap>,
    main: &Pickle,
    keys: &Pickle,
    mut at: usize,
) -> std::result::Result<Storages, String> {
    let mut widths: HashMap<String, usize> = HashMap::new();
    for id in main.ids().filter(|&id| matches!(main.node(id), Node::Persistent(_))) {
        let storage = storage_id(main, id)?;
        widths.insert(storage.key, element_width(&storage.element)?);
    }
    let Node::List(keys_) = keys.node(keys.root) else {
        return Err("the list of storages is missing".into());
    };
    let mut found = HashMap::new();
    let mut blobs = vec![];
    for &key in keys_ {
        let Node::Str(key) = keys.node(key) else { return Err("a storage's key is not a string".into()) };
        let cut = || format!("the data of storage `{key}` is cut short");
        let width = *widths.get(key).ok_or_else(|| format!("storage `{key}` belongs to no tensor"))?;
        let count = map.get(at..).and_then(<[u8]>::first_chunk::<8>).ok_or_else(cut)?;
        let count = usize::try_from(i64::from_le_bytes(*count)).map_err(|_| cut())?;
        let start = at + 8;
        let length = count.checked_mul(width).ok_or_else(cut)?;
        at = start.checked_add(length).filter(|&end| end <= map.len()).ok_or_else(cut)?;
        found.insert(key.clone(), Storage { blob: blobs.len(), length });
        blobs.push(Blob { map: map.clone(), start, stored: length, inflated: None });
    }
    Ok((found, blobs))
}

fn element_width(element: &Element) -> std::result::Result<usize, String> {
    match element {
        Element::Known(kind) => Ok(kind.elt_size_in_bytes()),
        Element::Untyped => Ok(1),
        // Without its width, everything after it is lost.
        Element::Unknown(class) => match class.rsplit('.').next().unwrap_or(class) {
            "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => Ok(1),
            "QInt32Storage" => Ok(4),
            "ComplexFloatStorage" => Ok(8),
            "ComplexDoubleStorage" => Ok(16),
            _ => Err(format!("storages of class `{class}` are not supported")),
        },
    }
}

/// Sorts the outermost dictionary into sections and the rest. What holds no weights stops nothing.
fn interpret(
    path: &Path,
    format: Format,
    pickle: &Pickle,
    storages: HashMap<String, Storage>,
    blobs: Vec<Blob>,
) -> Result<Parsed> {
    let damaged = |what: String| Error::damaged(path, what);
    let reader = Reader::new(pickle, storages);
    let mut parsed = Parsed { format, blobs, sections: vec![], metadata: Map::new(), not_shown: vec![] };
    let mut bare = vec![];
    match reader.top().map_err(damaged)? {
        None => bare = the_only_value(path, &reader)?,
        Some(pairs) => {
            for (key, value) in pairs {
                let name = reader.graph.key(key);
                let mut tensors = entries(path, &reader, &name, value)?;
                // A tensor itself has the empty path below its key.
                match tensors.as_mut_slice() {
                    [] => {}
                    [(inner, _)] if inner.is_empty() => {
                        inner.clone_from(&name);
                        match reader.object_class(value) {
                            Some(_) => parsed.sections.push((Some(name.clone()), tensors)),
                            None => bare.append(&mut tensors),
                        }
                    }
                    _ => parsed.sections.push((Some(name.clone()), tensors)),
                }
                match reader.json(value) {
                    Ok(Some(value)) => drop(parsed.metadata.insert(name, value)),
                    Ok(None) => {}
                    Err(trouble) => parsed.not_shown.push((name, trouble.to_string())),
                }
            }
        }
    }
    if !bare.is_empty() {
        parsed.sections.push((None, bare));
    }
    if parsed.sections.is_empty() {
        return Err(Error::NotACheckpoint {
            path: path.to_owned(),
            found: "is a file of torch.save that holds no tensors".into(),
            advice: "give the file that holds the weights".into(),
        });
    }
    Ok(parsed)
}

/// Tensors of a file whose outermost value is not a dictionary.
fn the_only_value(path: &Path, reader: &Reader) -> Result<Vec<(String, Entry)>> {
    if let Some(class) = reader.object_class(reader.graph.pickle.root) {
        return Err(Error::NotACheckpoint {
            path: path.to_owned(),
            found: format!("is {class} in a file of torch.save"),
            advice: "save its `state_dict()`: `torch.save(module.state_dict(), …)`".into(),
        });
    }
    entries(path, reader, "the file's value", reader.graph.pickle.root)
}

/// The tensors of one value of the outermost dictionary, called `key`.
fn entries(path: &Path, reader: &Reader, key: &str, value: Id) -> Result<Vec<(String, Entry)>> {
    let mut tensors = vec![];
    match reader.tensors(value, &mut tensors) {
        Ok(()) => {}
        Err(Trouble::Damaged(what)) => return Err(Error::damaged(path, format!("`{key}`: {what}"))),
        Err(Trouble::Tangled(what)) => {
            let unsupported = Unsupported::new(what, "save the weights as a plain dictionary of tensors");
            tensors = vec![(key.to_owned(), Entry::unsupported(vec![], unsupported))];
        }
    }
    // Keys that differ only by their type (1 and "1") give one name.
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<(String, Entry)> = vec![];
    for (name, entry) in tensors {
        match places.get(&name) {
            Some(&first) => {
                let twice = Unsupported::new("a name that two values have", "give each a name of its own");
                kept[first].1.unsupported = Some(twice);
            }
            None => {
                places.insert(name.clone(), kept.len());
                kept.push((name, entry));
            }
        }
    }
    Ok(kept)
}
