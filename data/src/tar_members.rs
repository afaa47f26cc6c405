//! The members of one tar archive, grouped into samples as WebDataset does: by their names up to
//! the first dot.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;

use base::files::name_of;

use crate::LeftOut;
use crate::decode::IMAGE_EXTENSIONS;
use crate::image_folder::{COMPANIONS, not_named_like_an_image};

/// Place of a member's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub offset: u64,
    pub size: u64,
}

/// A sample: an image, and the members that label it.
#[derive(Debug)]
pub(crate) struct Group {
    pub key: String,
    pub image: Span,
    pub class: Option<Span>,
    pub caption: Option<Span>,
}

/// Contents of an archive.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// In the order of their first members in the archive.
    pub groups: Vec<Group>,
    pub left_out: Vec<LeftOut>,
    /// Folders (whole paths) of members, whether or not these are images.
    pub folders: BTreeSet<String>,
}

/// Members under one key.
#[derive(Default)]
struct Sample {
    /// By the last suffix in lower case, and by the name without it.
    members: Vec<Member>,
}

struct Member {
    name: Vec<u8>,
    /// The name without its last suffix.
    stem: Vec<u8>,
    suffix: String,
    span: Span,
}

type Result<T> = std::result::Result<T, String>;

/// Lists an archive; `end` is its length.
pub(crate) fn list(tar: File, end: u64) -> Result<Members> {
    let bad = |e: std::io::Error| format!("not a complete tar archive: {e}");
    let mut archive = tar::Archive::new(BufReader::new(tar));
    let (mut keys, mut samples) = (vec![], HashMap::<Vec<u8>, Sample>::new());
    let mut found = Members::default();
    let mut spans: HashMap<Vec<u8>, Span> = HashMap::new(); // for hard links
    for entry in archive.entries_with_seek().map_err(bad)? {
        let mut entry = entry.map_err(bad)?;
        let name = bare(&entry.path_bytes()).to_owned();
        let shown = text(&name);
        let span = match span_of(&mut entry, &spans) {
            Kind::File(span) => span,
            Kind::Folder => {
                if !is_hidden(&name) {
                    found.folders.insert(text(name.strip_suffix(b"/").unwrap_or(&name)));
                }
                continue;
            }
            Kind::Other(reason) => {
                found.left_out.push(LeftOut { name: shown, reason });
                continue;
            }
        };
        if span.offset.checked_add(span.size).is_none_or(|to| to > end) {
            let to = span.offset.saturating_add(span.size);
            return Err(format!("truncated: `{shown}` reaches byte {to}, the archive has {end}"));
        }
        if spans.insert(name.clone(), span).is_some() {
            return Err(format!("two members have the name `{shown}`"));
        }
        if is_hidden(&name) {
            found.left_out.push(LeftOut { name: shown, reason: "hidden".into() });
            continue;
        }
        found.folders.insert(folder(&shown).to_owned());
        let (key, member) = Member::new(name, span);
        let sample = samples.entry(key.clone()).or_insert_with(|| {
            keys.push(key);
            Sample::default()
        });
        sample.members.push(member);
    }
    drop(spans);
    found.left_out.extend(behind(archive.into_inner(), end).map_err(bad)?);
    for key in keys {
        let sample = samples.remove(&key).expect("one sample a key");
        sample.resolve(&key, &mut found)?;
    }
    empty_folders(&mut found);
    Ok(found)
}

/// A name without the `./` of archives that were made of a folder as a whole: `./a.jpg` and `a.cls`
/// belong together.
fn bare(mut name: &[u8]) -> &[u8] {
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    name
}

/// Data after the zeros at an archive's end (`tar` is behind the first of them), which no tar
/// reader looks at.
fn behind(mut tar: BufReader<File>, end: u64) -> std::io::Result<Option<LeftOut>> {
    let mut at = tar.stream_position()?;
    loop {
        let buffer = tar.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        if let Some(first) = buffer.iter().position(|&b| b != 0) {
            let from = at + first as u64;
            let reason = format!(
                "behind the archive's end: {} bytes from byte {from} on, as where archives were joined by `cat`; give each \
                 by itself",
                end.saturating_sub(from)
            );
            return Ok(Some(LeftOut { name: "(no member)".into(), reason }));
        }
        let read = buffer.len();
        at += read as u64;
        tar.consume(read);
    }
}

/// The last folder of a path to a member.
pub(crate) fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

enum Kind {
    File(Span),
    Folder,
    /// With the reason why it is left out.
    Other(String),
}

fn span_of<R: Read>(entry: &mut tar::Entry<'_, R>, spans: &HashMap<Vec<u8>, Span>) -> Kind {
    let kind = entry.header().entry_type();
    let sparse = kind.is_gnu_sparse() || has_sparse_keys(entry);
    if sparse {
        return Kind::Other("a sparse file".into());
    }
    if kind.is_dir() {
        return Kind::Folder;
    }
    if kind.is_hard_link() {
        let target = bare(&entry.link_name_bytes().unwrap_or_default()).to_owned();
        return match spans.get(&target) {
            Some(span) => Kind::File(*span),
            None => Kind::Other(format!("a hard link to a member that is not before it: {}", text(&target))),
        };
    }
    if kind.is_symlink() {
        return Kind::Other("a symbolic link".into());
    }
    if kind.is_file() || kind.is_contiguous() {
        return Kind::File(Span { offset: entry.raw_file_position(), size: entry.size() });
    }
    Kind::Other("not a regular file".into())
}

/// True for sparse files as PAX headers describe them.
fn has_sparse_keys<R: Read>(entry: &mut tar::Entry<'_, R>) -> bool {
    let Ok(Some(extensions)) = entry.pax_extensions() else { return false };
    extensions.flatten().any(|e| e.key_bytes().starts_with(b"GNU.sparse."))
}

impl Member {
    /// A member and the key of its sample.
    fn new(name: Vec<u8>, span: Span) -> (Vec<u8>, Member) {
        let base = name.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        let dot = |at: Option<usize>| at.map_or(name.len(), |i| base + i);
        let first = dot(name[base..].iter().position(|&b| b == b'.'));
        let last = dot(name[base..].iter().rposition(|&b| b == b'.'));
        let suffix = name.get(last + 1..).map(text).unwrap_or_default().to_ascii_lowercase();
        let (key, stem) = (name[..first].to_vec(), name[..last].to_vec());
        (key, Member { name, stem, suffix, span })
    }

    fn is_image(&self) -> bool {
        IMAGE_EXTENSIONS.contains(&self.suffix.as_str())
    }
}

impl Sample {
    /// The image whose name is the key and one suffix, labelled by members named likewise. Without
    /// such an image, each with more dots in its name is a sample of its own (`photo.v1.png`);
    /// beside one, they are parts of its sample (masks, depths) and left out.
    fn resolve(self, key: &[u8], found: &mut Members) -> Result<()> {
        let plain = |m: &&Member| m.stem == key;
        let images = || self.members.iter().filter(|m| m.is_image());
        let alone = images().any(|m| plain(&m));
        let chosen: Vec<&Member> = images().filter(|m| !alone || plain(m)).collect();
        let labels: HashMap<(&[u8], &str), Span> =
            self.members.iter().map(|m| ((m.stem.as_slice(), m.suffix.as_str()), m.span)).collect();
        let mut stems = HashSet::new();
        for image in &chosen {
            if !stems.insert(image.stem.as_slice()) {
                return Err(format!("`{}` has two images", text(&image.stem)));
            }
            let label = |suffix: &str| {
                let of = |stem| labels.get(&(stem, suffix)).copied();
                of(image.stem.as_slice()).or_else(|| of(key))
            };
            let (class, caption) = (label("cls"), label("txt"));
            found.groups.push(Group { key: text(&image.stem), image: image.span, class, caption });
        }
        for member in &self.members {
            let companion = COMPANIONS.contains(&member.suffix.as_str());
            let reason = match member.is_image() {
                true if !alone || plain(&member) => continue,
                true => format!("a part of a sample: `{}`", text(key)),
                false if companion && !chosen.is_empty() => continue,
                false if companion => "belongs to no image".to_owned(),
                false => not_named_like_an_image(&member.shown()),
            };
            found.left_out.push(LeftOut { name: member.shown(), reason });
        }
        Ok(())
    }
}

impl Member {
    fn shown(&self) -> String {
        text(&self.name)
    }
}

/// Keeps only empty folders beside a folder with images: those are classes without images, others
/// are not classes.
fn empty_folders(found: &mut Members) {
    let with_images: BTreeSet<&str> = found.groups.iter().map(|g| folder(&g.key)).collect();
    let parents: BTreeSet<&str> = with_images.iter().filter(|f| !f.is_empty()).map(|f| folder(f)).collect();
    let keep =
        |f: &String| with_images.contains(f.as_str()) || (!f.is_empty() && parents.contains(folder(f)));
    let folders = found.folders.iter().filter(|f| keep(f)).cloned().collect();
    found.folders = folders;
}

/// True if a file or one of its folders is hidden: its name begins with a dot (macOS's `._*`), or
/// it is macOS's folder of such files.
fn is_hidden(name: &[u8]) -> bool {
    name.split(|&b| b == b'/')
        .any(|part| part == b"__MACOSX" || part.starts_with(b".") && part != b"." && part != b"..")
}

fn text(name: impl AsRef<[u8]>) -> String {
    name_of(OsStr::from_bytes(name.as_ref()))
}
