//! A checkpoint of any format, opened by content, and the sections it holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::origin::Origin;
use crate::parse::{head_of, parse_file};
use crate::parsed::{Entries, Format, Parsed};
use crate::source::{Blob, Entry, FileTensors};
use crate::{Error, Result, TensorSource, safetensors, shards, sliced};

/// Choice among the weights of a training dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Want {
    /// `ema` if there is one, else `model`, `module`, `state_dict`, else the top level: the order
    /// of the official scripts.
    #[default]
    Auto,
    /// The averaged weights only.
    Ema,
    /// `Auto` without `ema`.
    Model,
}

impl Want {
    /// Section names in order of preference; `None` is the top level.
    fn order(self) -> &'static [Option<&'static str>] {
        const ALL: [Option<&str>; 5] = [Some("ema"), Some("model"), Some("module"), Some("state_dict"), None];
        match self {
            Want::Auto => &ALL,
            Want::Ema => &ALL[..1],
            Want::Model => &ALL[1..],
        }
    }
}

/// A group of tensors in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its key in the training dictionary; `None` for tensors at the top level.
    pub name: Option<String>,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// An open checkpoint. Only its table of contents has been read.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    blobs: Arc<Vec<Blob>>,
    entries: Vec<Arc<Entries>>,
    sections: Vec<Section>,
    metadata: Map<String, Json>,
    not_shown: Vec<(String, String)>,
}

impl Checkpoint {
    /// Opens a file, an index of shards, or a directory that holds one of these, by its content.
    pub fn open(path: &Path) -> Result<Self> {
        let parsed = parse(path)?;
        for (_, entries) in &parsed.sections {
            let mut seen = std::collections::HashSet::new();
            if let Some((name, _)) = entries.iter().find(|(name, _)| !seen.insert(name)) {
                return Err(Error::damaged(path, format!("two tensors are named `{name}`")));
            }
        }
        let section = |(name, entries): &(Option<String>, Entries)| Section {
            name: name.clone(),
            tensors: entries.len(),
            bytes: entries.iter().map(|(_, e)| e.info.bytes).sum(),
        };
        Ok(Checkpoint {
            path: path.to_owned(),
            format: parsed.format,
            blobs: Arc::new(parsed.blobs),
            sections: parsed.sections.iter().map(section).collect(),
            entries: parsed.sections.into_iter().map(|(_, e)| Arc::new(e)).collect(),
            metadata: parsed.metadata,
            not_shown: parsed.not_shown,
        })
    }

    /// The path given to [`Checkpoint::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The layout found.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Sections of the file that hold tensors.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Values that are not tensors: safetensors metadata, or a training dictionary's `args` and
    /// counters.
    pub fn metadata(&self) -> &Map<String, Json> {
        &self.metadata
    }

    /// Values that are neither tensors nor in [`Checkpoint::metadata`], with the reason: objects
    /// that contain themselves.
    pub fn not_shown(&self) -> &[(String, String)] {
        &self.not_shown
    }

    /// The weights, and in [`TensorSource::origin`] the section that was taken. Sections with
    /// nothing but single numbers (an average's count of updates) are passed over where another is
    /// there.
    pub fn source(&self, want: Want) -> Result<Box<dyn TensorSource>> {
        let found = || want.order().iter().filter_map(|name| self.position(*name));
        let at = found().find(|&at| self.holds_weights(at)).or_else(|| found().next());
        at.map(|at| self.at(at)).ok_or_else(|| {
            let order =
                want.order().iter().map(|name| name.map_or("the top level".into(), |n| format!("`{n}`")));
            self.no_section(order.collect::<Vec<_>>().join(", "))
        })
    }

    /// The tensors of one section, by the name that [`Checkpoint::sections`] gives it.
    pub fn section(&self, name: Option<&str>) -> Result<Box<dyn TensorSource>> {
        self.position(name).map(|at| self.at(at)).ok_or_else(|| self.no_section(described(name)))
    }

    /// Other sections with weights than the one taken, as a sentence: an `ema` may hold only what
    /// an average keeps beside the weights.
    pub(crate) fn elsewhere(&self, taken: Option<&str>) -> Option<String> {
        let others = Want::Auto.order().iter().flatten().filter(|name| Some(**name) != taken);
        let other = others
            .copied()
            .find(|name| self.position(Some(name)).is_some_and(|at| self.holds_weights(at)))?;
        Some(format!(
            "{} was taken, and the file also holds `{other}`: `gen convert {} {other}.safetensors --section {other}` \
             takes that",
            described(taken),
            self.path.display()
        ))
    }

    fn position(&self, name: Option<&str>) -> Option<usize> {
        self.sections.iter().position(|s| s.name.as_deref() == name)
    }

    fn holds_weights(&self, at: usize) -> bool {
        let many = |entry: &Entry| entry.unsupported.is_some() || entry.info.shape.iter().any(|&d| d > 1);
        self.entries[at].iter().any(|(_, entry)| many(entry))
    }

    fn at(&self, at: usize) -> Box<dyn TensorSource> {
        let origin = Origin { path: self.path.clone(), section: self.sections[at].name.clone() };
        Box::new(FileTensors::new(origin, self.blobs.clone(), self.entries[at].clone()))
    }

    fn no_section(&self, wanted: String) -> Error {
        Error::NoSection {
            path: self.path.clone(),
            wanted,
            available: self.sections.iter().map(|s| described(s.name.as_deref())).collect(),
        }
    }
}

/// A section's name for a sentence.
fn described(name: Option<&str>) -> String {
    name.map_or("the top level".into(), |name| format!("`{name}`"))
}

fn parse(path: &Path) -> Result<Parsed> {
    if path.is_dir() {
        return parse(&the_checkpoint_in(path)?);
    }
    let head = head_of(path)?;
    if !safetensors::recognise(&head) && head.trim_ascii_start().starts_with(b"{") {
        let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
        return shards::open(path, &text);
    }
    let parsed = parse_file(path)?;
    if sliced::is_part(&parsed) { sliced::open(path, parsed) } else { Ok(parsed) }
}

/// A directory's index of shards, or its only file; safetensors before `.bin`.
fn the_checkpoint_in(directory: &Path) -> Result<PathBuf> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .map_err(Error::read(directory))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.')) // macOS's `._*` among them
        .collect();
    names.sort();
    for suffix in [".safetensors.index.json", ".safetensors", ".bin.index.json", ".bin"] {
        let found: Vec<&String> = names.iter().filter(|n| n.ends_with(suffix)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(directory.join(one)),
            several => {
                let list = several.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
                return Err(not_one_checkpoint(directory, format!("is a directory with several: {list}")));
            }
        }
    }
    Err(not_one_checkpoint(directory, "is a directory without safetensors or .bin files".into()))
}

fn not_one_checkpoint(directory: &Path, found: String) -> Error {
    let advice = "name one file of the directory".into();
    Error::NotACheckpoint { path: directory.to_owned(), found, advice }
}
