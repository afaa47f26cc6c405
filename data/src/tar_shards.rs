//! WebDataset-style shards: tar files, plain or gzipped, whose members with the same name up to the first dot belong
//! together (`key.jpg` with `key.cls` or `key.txt`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::decode::{IMAGE_EXTENSIONS, decode};
use crate::{Class, Dataset, Error, Record, Result, Target, labels};

/// Shards with random access: an index of the members is made when they are opened. A gzipped shard is expanded
/// into an unnamed temporary file (in `TMPDIR`), which vanishes with the process.
#[derive(Debug)]
pub struct TarShards {
    shards: Vec<Shard>,
    samples: Vec<Sample>,
    classes: Vec<Class>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    tar: File,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    offset: u64,
    size: u64,
}

#[derive(Debug)]
struct Sample {
    shard: usize,
    key: String,
    image: Span,
    target: Target,
}

/// The members that share a key.
#[derive(Debug, Default)]
struct Group {
    image: Option<Span>,
    class: Option<Span>,
    caption: Option<Span>,
}

impl TarShards {
    /// Opens the shards in the given order.
    ///
    /// Labels come from `.cls` members (decimal text) or else `.txt` captions or else the members' folders, by the
    /// rules of class folders. A `classes.tsv` beside the first shard names the classes.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut shards = vec![];
        let mut samples = vec![];
        for (i, path) in paths.iter().enumerate() {
            let shard = Shard { path: path.clone(), tar: open_tar(path)? };
            samples.extend(shard.samples(i)?);
            shards.push(shard);
        }
        let mut set = TarShards { shards, samples, classes: vec![] };
        set.check()?;
        set.label(paths.first().and_then(|p| p.parent()).unwrap_or(Path::new(".")))?;
        Ok(set)
    }

    fn check(&self) -> Result<()> {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for s in &self.samples {
            if let Some(before) = seen.insert(&s.key, s.shard) {
                let other = self.shards[before].path.display();
                let message = format!("key `{}` occurs twice (also in `{other}`)", s.key);
                return Err(Error::malformed(&self.shards[s.shard].path, message));
            }
        }
        Ok(())
    }

    fn label(&mut self, beside: &Path) -> Result<()> {
        let table = labels::sidecar(beside)?;
        if self.samples.iter().all(|s| s.target == Target::None) {
            return self.label_by_folder(beside, table.as_ref());
        }
        if let Some(s) = self.samples.iter().find(|s| s.target == Target::None) {
            let message = format!("`{}` has neither `.cls` nor `.txt`, unlike others", s.key);
            return Err(Error::malformed(&self.shards[s.shard].path, message));
        }
        let mut folders = BTreeMap::new();
        for s in &self.samples {
            if let Target::Class(c) = s.target {
                folders.entry(c).or_insert_with(|| folder_of(&s.key).to_owned());
            }
        }
        self.classes = labels::of_numbers(&folders, table.as_ref());
        Ok(())
    }

    fn label_by_folder(&mut self, at: &Path, table: Option<&crate::ClassTable>) -> Result<()> {
        let folders: BTreeSet<&str> = self.samples.iter().map(|s| folder_of(&s.key)).collect();
        let folders: Vec<String> = folders.into_iter().map(str::to_owned).collect();
        if folders.len() < 2 {
            return Ok(()); // all in one place: images without labels
        }
        let mut classes = labels::of_folders(&folders, table, at)?;
        for s in &mut self.samples {
            let i = folders.binary_search_by(|f| f.as_str().cmp(folder_of(&s.key))).expect("collected above");
            s.target = Target::Class(classes[i].index);
        }
        classes.sort_by_key(|c| c.index);
        self.classes = classes;
        Ok(())
    }
}

/// The last folder of a key.
fn folder_of(key: &str) -> &str {
    let folder = key.rsplit_once('/').map_or("", |(f, _)| f);
    folder.rsplit_once('/').map_or(folder, |(_, f)| f)
}

/// The tar's file, expanded if it is gzipped.
fn open_tar(path: &Path) -> Result<File> {
    let mut file = File::open(path).map_err(Error::read(path))?;
    let mut magic = [0; 2];
    let n = file.read(&mut magic).map_err(Error::read(path))?;
    file.seek(SeekFrom::Start(0)).map_err(Error::read(path))?;
    if n < 2 || magic != [0x1f, 0x8b] {
        return Ok(file);
    }
    let temporary = tempfile::tempfile().map_err(Error::write(&std::env::temp_dir()))?;
    let mut out = BufWriter::new(temporary);
    let mut gz = MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file));
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n =
            gz.read(&mut buffer).map_err(|e| Error::malformed(path, format!("damaged gzip data: {e}")))?;
        if n == 0 {
            break;
        }
        out.write_all(&buffer[..n]).map_err(Error::write(&std::env::temp_dir()))?;
    }
    let mut tar = out.into_inner().map_err(|e| Error::write(&std::env::temp_dir())(e.into_error()))?;
    tar.seek(SeekFrom::Start(0)).map_err(Error::read(path))?;
    Ok(tar)
}

impl Shard {
    /// The shard's samples, in the order in which their first members lie in the file.
    fn samples(&self, number: usize) -> Result<Vec<Sample>> {
        let (order, mut groups) = self.groups()?;
        let mut samples = vec![];
        for key in order {
            let group = groups.remove(&key).expect("one group a key");
            let Some(image) = group.image else {
                let message = format!("`{key}` has a label but no image ({})", IMAGE_EXTENSIONS.join(", "));
                return Err(Error::malformed(&self.path, message));
            };
            let target = self.target(&key, &group)?;
            samples.push(Sample { shard: number, key, image, target });
        }
        if samples.is_empty() {
            return Err(Error::malformed(&self.path, "the archive holds no images"));
        }
        Ok(samples)
    }

    fn groups(&self) -> Result<(Vec<String>, HashMap<String, Group>)> {
        let bad =
            |e: std::io::Error| Error::malformed(&self.path, format!("not a complete tar archive: {e}"));
        let reader = self.tar.try_clone().map_err(bad)?;
        let end = self.tar.metadata().map_err(bad)?.len();
        let mut archive = tar::Archive::new(BufReader::new(reader));
        let mut order = vec![];
        let mut groups: HashMap<String, Group> = HashMap::new();
        for entry in archive.entries_with_seek().map_err(bad)? {
            let entry = entry.map_err(bad)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let span = Span { offset: entry.raw_file_position(), size: entry.size() };
            let name = entry.path().map_err(bad)?.to_string_lossy().into_owned();
            if span.offset + span.size > end {
                let message = format!(
                    "truncated: `{name}` reaches byte {}, the archive has {end}",
                    span.offset + span.size
                );
                return Err(Error::malformed(&self.path, message));
            }
            let (key, extension) = split_key(&name);
            let extension = extension.to_ascii_lowercase();
            let extension = extension.as_str();
            let slot = |g: &mut Group| match extension {
                "cls" => g.class.replace(span),
                "txt" => g.caption.replace(span),
                _ => g.image.replace(span),
            };
            if !(IMAGE_EXTENSIONS.contains(&extension) || matches!(extension, "cls" | "txt")) {
                continue; // other members (`.json` metadata and the like) say nothing we use
            }
            let group = groups.entry(key.to_owned()).or_insert_with(|| {
                order.push(key.to_owned());
                Group::default()
            });
            if slot(group).is_some() {
                return Err(Error::malformed(
                    &self.path,
                    format!("`{key}` has two members of the same kind"),
                ));
            }
        }
        Ok((order, groups))
    }

    fn target(&self, key: &str, group: &Group) -> Result<Target> {
        if let Some(span) = group.class {
            let text = self.text(key, span)?;
            let class = text.trim().parse().map_err(|_| {
                Error::malformed(&self.path, format!("`{key}.cls`: expected a class index, found {text:?}"))
            })?;
            return Ok(Target::Class(class));
        }
        group
            .caption
            .map_or(Ok(Target::None), |span| Ok(Target::Caption(self.text(key, span)?.trim().to_owned())))
    }

    fn text(&self, key: &str, span: Span) -> Result<String> {
        String::from_utf8(self.bytes(span)?)
            .map_err(|_| Error::malformed(&self.path, format!("the label of `{key}` is not UTF-8 text")))
    }

    fn bytes(&self, span: Span) -> Result<Vec<u8>> {
        let mut bytes = vec![0; span.size as usize];
        self.tar.read_exact_at(&mut bytes, span.offset).map_err(Error::read(&self.path))?;
        Ok(bytes)
    }
}

/// `a/b.c/x_1.seg.png` → (`a/b.c/x_1`, `seg.png`): WebDataset splits the base name at its first dot.
fn split_key(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |i| i + 1);
    match name[base..].find('.') {
        Some(dot) => (&name[..base + dot], &name[base + dot + 1..]),
        None => (name, ""),
    }
}

impl Dataset for TarShards {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn key(&self, index: usize) -> String {
        self.samples[index].key.clone()
    }

    fn target(&self, index: usize) -> Target {
        self.samples[index].target.clone()
    }

    fn get(&self, index: usize) -> Result<Record> {
        let s = &self.samples[index];
        let bytes = self.shards[s.shard].bytes(s.image)?;
        let (image, stored) = decode(&s.key, &bytes)?;
        Ok(Record { key: s.key.clone(), image, target: s.target.clone(), stored })
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn describe(&self) -> String {
        let first = self.shards.first().map(|s| s.path.display().to_string()).unwrap_or_default();
        let labels = match (&self.samples.first().map(|s| &s.target), self.classes.len()) {
            (Some(Target::Caption(_)), _) => "captions".to_owned(),
            (_, 0) => "no class labels".to_owned(),
            (_, n) => format!("{n} classes"),
        };
        format!("{first}: {} tar shard(s), {} images, {labels}", self.shards.len(), self.len())
    }
}
