//! WebDataset-style shards: tar files, plain or gzipped, whose members with the same name up to the
//! first dot belong together (`key.jpg` with `key.cls` or `key.txt`).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base::files::{name_of, open_regular};

use crate::decode::decode;
use crate::gzip::Streams;
use crate::limits::most_bytes;
use crate::tar_members::{self, Group, Members, Span, folder};
use crate::{Class, Dataset, Error, LeftOut, Record, Result, Target, labels, table};

/// Shards with random access: an index of the members is made when they are opened. A gzipped shard
/// is expanded into an unnamed temporary file (in `TMPDIR`), which vanishes with the process.
#[derive(Debug)]
pub struct TarShards {
    shards: Vec<Shard>,
    samples: Vec<Sample>,
    classes: Vec<Class>,
    left_out: Vec<LeftOut>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    tar: File,
}

#[derive(Debug)]
struct Sample {
    shard: usize,
    key: String,
    image: Span,
    target: Target,
}

impl TarShards {
    /// Opens the shards in the given order.
    ///
    /// Labels come from `.cls` members (decimal text) or else `.txt` captions or else the members'
    /// folders, by the rules of class folders. A `classes.tsv` beside the first shard names the
    /// classes. Where a key occurs in several shards, the shards' names come before all keys.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut set = TarShards { shards: vec![], samples: vec![], classes: vec![], left_out: vec![] };
        let (mut folders, mut opened) = (BTreeSet::new(), HashSet::new());
        for (i, path) in paths.iter().enumerate() {
            if !opened.insert(path) {
                return Err(Error::malformed(path, "it is named twice"));
            }
            let shard = Shard { path: path.clone(), tar: open_tar(path)? };
            let members = shard.members()?;
            for group in members.groups {
                let target = shard.target(&group)?;
                set.samples.push(Sample { shard: i, key: group.key, image: group.image, target });
            }
            set.left_out.extend(members.left_out);
            folders.extend(members.folders);
            set.shards.push(shard);
        }
        set.label(&folders, paths.first().and_then(|p| p.parent()).unwrap_or(Path::new(".")))?;
        set.unique_keys()?;
        Ok(set)
    }

    fn unique_keys(&mut self) -> Result<()> {
        let unique = |samples: &[Sample]| {
            let mut seen = HashSet::new();
            samples.iter().find(|s| !seen.insert(s.key.as_str())).map(|s| (s.shard, s.key.clone()))
        };
        if unique(&self.samples).is_none() {
            return Ok(());
        }
        // Shards are named by file name if these differ, else by path.
        let paths = || self.shards.iter().map(|s| s.path.as_path());
        let files: HashSet<_> = paths().filter_map(Path::file_name).collect();
        let short = files.len() == self.shards.len();
        let named = |p: &Path| name_of(if short { p.file_name().unwrap_or_default() } else { p.as_os_str() });
        let names: Vec<String> = paths().map(named).collect();
        for s in &mut self.samples {
            s.key = format!("{}/{}", names[s.shard], s.key);
        }
        match unique(&self.samples) {
            None => Ok(()),
            Some((shard, key)) => {
                Err(Error::malformed(&self.shards[shard].path, format!("key `{key}` occurs twice")))
            }
        }
    }

    fn label(&mut self, folders: &BTreeSet<String>, beside: &Path) -> Result<()> {
        let table = labels::sidecar(beside)?;
        if self.samples.iter().all(|s| s.target == Target::None) {
            return self.label_by_folder(folders, beside, table.as_ref());
        }
        if let Some(s) = self.samples.iter().find(|s| s.target == Target::None) {
            let names = ["cls", "txt"].map(|suffix| format!("{}.{suffix}", s.key));
            let lost = self.left_out.iter().find(|l| names.contains(&l.name));
            let lost = lost.map(|l| format!("; `{}`: {}", l.name, l.reason)).unwrap_or_default();
            let message = format!("`{}` has neither `.cls` nor `.txt`, unlike others{lost}", s.key);
            return Err(Error::malformed(&self.shards[s.shard].path, message));
        }
        let mut named = BTreeMap::new();
        for s in &self.samples {
            if let Target::Class(c) = s.target {
                named.entry(c).or_insert_with(|| folder_of(&s.key).to_owned());
            }
        }
        self.classes = labels::of_numbers(&named, table.as_ref());
        Ok(())
    }

    fn label_by_folder(
        &mut self,
        folders: &BTreeSet<String>,
        at: &Path,
        table: Option<&crate::ClassTable>,
    ) -> Result<()> {
        let with_images: BTreeSet<String> =
            self.samples.iter().map(|s| folder_of(&s.key).to_owned()).collect();
        let folders: BTreeSet<String> = folders.iter().map(|f| last(f).to_owned()).collect();
        if with_images.len() < 2 {
            return Ok(()); // all in one place: images without labels
        }
        let folders: Vec<String> = folders.into_iter().collect();
        let classes = labels::of_folders(&folders, &with_images, table, at)?;
        for s in &mut self.samples {
            s.target = classes.get(folder_of(&s.key)).map_or(Target::None, |c| Target::Class(c.index));
        }
        self.classes = classes.into_values().collect();
        self.classes.sort_by_key(|c| c.index);
        Ok(())
    }
}

/// The last folder of a key.
fn folder_of(key: &str) -> &str {
    last(folder(key))
}

/// The last part of a path.
fn last(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

/// The tar's file, expanded if it is gzipped.
fn open_tar(path: &Path) -> Result<File> {
    /// Pictures are compressed already: more than this many bytes of one are an attack, but for
    /// small files.
    const MOST: u64 = 100;
    const SMALL: u64 = 1 << 30;
    let mut file = open_regular(path).map_err(Error::read(path))?;
    let most = file.metadata().map_err(Error::read(path))?.len().saturating_mul(MOST).max(SMALL);
    let mut magic = [0; 2];
    let n = file.read(&mut magic).map_err(Error::read(path))?;
    file.seek(SeekFrom::Start(0)).map_err(Error::read(path))?;
    if n < 2 || magic != [0x1f, 0x8b] {
        return Ok(file);
    }
    expanded(path, file, most)
}

/// A gzipped file's content in an unnamed temporary file, if it is at most `most` bytes.
fn expanded(path: &Path, file: File, most: u64) -> Result<File> {
    let temporary = tempfile::tempfile().map_err(Error::write(&std::env::temp_dir()))?;
    let mut out = BufWriter::new(temporary);
    let mut gz = Streams::new(BufReader::with_capacity(1 << 16, file));
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let n =
            gz.read(&mut buffer).map_err(|e| Error::malformed(path, format!("damaged gzip data: {e}")))?;
        if n == 0 {
            break;
        }
        size += n as u64;
        if size > most {
            let message =
                format!("expands to more than the {most} bytes that are likely of it; unpack it first");
            return Err(Error::malformed(path, message));
        }
        out.write_all(&buffer[..n]).map_err(Error::write(&std::env::temp_dir()))?;
    }
    let mut tar = out.into_inner().map_err(|e| Error::write(&std::env::temp_dir())(e.into_error()))?;
    tar.seek(SeekFrom::Start(0)).map_err(Error::read(path))?;
    Ok(tar)
}

impl Shard {
    fn members(&self) -> Result<Members> {
        let end = self.tar.metadata().map_err(Error::read(&self.path))?.len();
        let reader = self.tar.try_clone().map_err(Error::read(&self.path))?;
        let members = tar_members::list(reader, end).map_err(|e| Error::malformed(&self.path, e))?;
        if members.groups.is_empty() {
            let first = members.left_out.first().map(|f| format!("; `{}`: {}", f.name, f.reason));
            let message = format!("the archive holds no images{}", first.unwrap_or_default());
            return Err(Error::malformed(&self.path, message));
        }
        Ok(members)
    }

    fn target(&self, group: &Group) -> Result<Target> {
        let bad =
            |suffix: &str, e: String| Error::malformed(&self.path, format!("`{}.{suffix}`: {e}", group.key));
        if let Some(span) = group.class {
            let class = table::text_of(self.label(span)?).and_then(|text| table::class_of(&text));
            return class.map(Target::Class).map_err(|e| bad("cls", e));
        }
        let Some(span) = group.caption else { return Ok(Target::None) };
        table::caption_of(self.label(span)?).map(Target::Caption).map_err(|e| bad("txt", e))
    }

    fn label(&self, span: Span) -> Result<Vec<u8>> {
        if span.size > LONGEST_LABEL {
            return Err(Error::malformed(&self.path, format!("a label or caption of {} bytes", span.size)));
        }
        self.bytes(span)
    }

    /// Bytes of a span, which is known to be within the file.
    fn bytes(&self, span: Span) -> Result<Vec<u8>> {
        let mut bytes = vec![0; span.size as usize];
        self.tar.read_exact_at(&mut bytes, span.offset).map_err(Error::read(&self.path))?;
        Ok(bytes)
    }
}

/// Most bytes of a class index or a caption.
const LONGEST_LABEL: u64 = 1 << 20;

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
        if s.image.size > most_bytes() {
            let message =
                format!("{} bytes, more than the {} that an image may have", s.image.size, most_bytes());
            return Err(Error::Decode { key: s.key.clone(), message });
        }
        let bytes = self.shards[s.shard].bytes(s.image)?;
        let (image, stored) = decode(&s.key, &bytes)?;
        Ok(Record { key: s.key.clone(), image, target: s.target.clone(), stored })
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn files(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|shard| shard.path.clone()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    /// A bomb ends at its limit, in one stream or in many.
    #[test]
    fn gzip_is_expanded_as_far_as_is_likely() {
        let packed = |bytes: &[u8]| {
            let mut gz = GzEncoder::new(vec![], Compression::best());
            gz.write_all(bytes).unwrap();
            gz.finish().unwrap()
        };
        let zeros = vec![0; 1 << 20];
        let one = packed(&zeros);
        let many = packed(&zeros[..1 << 10]).repeat(1 << 10);
        for bytes in [one, many] {
            let expand = |most: u64| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&bytes).unwrap();
                file.seek(SeekFrom::Start(0)).unwrap();
                expanded(Path::new("x.tar.gz"), file, most)
            };
            assert_eq!(expand(1 << 20).unwrap().metadata().unwrap().len(), 1 << 20);
            let error = expand((1 << 20) - 1).unwrap_err().to_string();
            assert!(error.contains("x.tar.gz") && error.contains("more than the 1048575 bytes"), "{error}");
        }
    }
}
