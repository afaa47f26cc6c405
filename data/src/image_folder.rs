//! Images in files: class folders in torchvision's order, a flat folder, or a list of paths.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::FileType;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use base::files::{NOT_REGULAR, name_of, open_regular};
use walkdir::WalkDir;

use crate::decode::{decode, looks_like_image};
use crate::limits::most_bytes;
use crate::{Class, Dataset, Error, LeftOut, Record, Result, Target, labels, table};

/// Image files with optional labels.
#[derive(Debug)]
pub struct ImageFiles {
    root: PathBuf,
    files: Vec<(PathBuf, Target)>,
    classes: Vec<Class>,
    what: &'static str,
    left_out: Vec<LeftOut>,
}

impl ImageFiles {
    /// A tree `root/class/…/image`, in torchvision's order: classes sorted by name, then paths
    /// sorted within each. Every folder in `root` is a class, also one without an image that can be
    /// read. Hidden files and folders are left out; torchvision takes them for images and classes
    /// where they are named so.
    pub fn class_tree(root: &Path) -> Result<Self> {
        let Tree { images, folders, left_out } = walk(root)?;
        let class_of = |p: &PathBuf| p.iter().next().map(name_of).unwrap_or_default();
        let (loose, inside): (Vec<PathBuf>, Vec<PathBuf>) =
            images.into_iter().partition(|p| p.iter().count() < 2);
        if let Some(p) = loose.first() {
            let message = format!("`{}` is beside the class folders and would have no class", p.display());
            return Err(Error::malformed(root, message));
        }
        let with_images: BTreeSet<String> = inside.iter().map(class_of).collect();
        let classes = labels::of_folders(&folders, &with_images, labels::sidecar(root)?.as_ref(), root)?;
        let label = |p: &PathBuf| classes.get(&class_of(p)).map_or(Target::None, |c| Target::Class(c.index));
        let files = inside.into_iter().map(|p| (label(&p), p)).map(|(t, p)| (p, t)).collect();
        let mut classes: Vec<Class> = classes.into_values().collect();
        classes.sort_by_key(|c| c.index);
        ImageFiles { root: root.to_owned(), files, classes, what: "class folders", left_out }.checked()
    }

    /// The images directly in `root`, sorted by name: without labels, or, if there are text files
    /// of the same names (`a.txt` beside `a.jpg`), with these as captions, which every image then
    /// needs.
    pub fn flat(root: &Path) -> Result<Self> {
        let (mut names, mut left_out) = (vec![], vec![]);
        for entry in std::fs::read_dir(root).map_err(Error::read(root))? {
            let entry = entry.map_err(Error::read(root))?;
            let (name, path) = (PathBuf::from(entry.file_name()), entry.path());
            match unfit(&name, std::fs::metadata(&path).map(|m| m.file_type())) {
                Some(reason) => left_out.push((name, reason)),
                None => names.push(name),
            }
        }
        names.sort();
        let captioned = names.iter().any(|name| {
            let kind = std::fs::metadata(root.join(name).with_extension("txt"));
            kind.is_ok_and(|kind| !kind.is_dir())
        });
        let left_out = without_companions(left_out, &names);
        let labelled = |name: PathBuf| {
            let target = if captioned { Target::Caption(caption(&root.join(&name))?) } else { Target::None };
            Ok((name, target))
        };
        let files = names.into_iter().map(labelled).collect::<Result<_>>()?;
        ImageFiles { root: root.to_owned(), files, classes: vec![], what: "a folder of images", left_out }
            .checked()
    }

    /// Given files with given labels; relative paths start at `root`, and `classes` names the
    /// labels.
    pub fn listed(root: &Path, files: Vec<(PathBuf, Target)>, classes: Vec<Class>) -> Self {
        ImageFiles { root: root.to_owned(), files, classes, what: "a list of images", left_out: vec![] }
    }

    /// Refuses a folder without images, and two names that are written alike, which only names that
    /// are not UTF-8 can be.
    fn checked(self) -> Result<Self> {
        if self.files.is_empty() {
            let first = self.left_out.first().map(|f| format!("; the first: `{}`: {}", f.name, f.reason));
            let found = format!("none of its files can be read as an image{}", first.unwrap_or_default());
            return Err(Error::NotADataset { path: self.root, found, hints: vec![] });
        }
        let mut seen = HashSet::new();
        let escaped = |p: &&(PathBuf, Target)| name_of(p.0.as_os_str()).contains("\\x");
        for (path, _) in self.files.iter().filter(escaped) {
            let name = name_of(path.as_os_str());
            if !seen.insert(name.clone()) {
                return Err(Error::malformed(&self.root, format!("two files have the name `{name}`")));
            }
        }
        Ok(self)
    }
}

/// Most bytes of a caption.
const LONGEST_CAPTION: u64 = 1 << 20;

/// The caption beside an image.
fn caption(image: &Path) -> Result<String> {
    let path = image.with_extension("txt");
    let bytes = read(&path, LONGEST_CAPTION).map_err(|source| match source.kind() {
        ErrorKind::NotFound => {
            let message = "it has no caption, unlike others in its folder; expected a .txt of the same name";
            Error::malformed(image, message)
        }
        ErrorKind::FileTooLarge | ErrorKind::InvalidInput => Error::malformed(&path, source.to_string()),
        _ => Error::Read { path: path.clone(), source },
    })?;
    table::caption_of(bytes).map_err(|e| Error::malformed(&path, e))
}

/// Reason why a file or folder is not one of the images; `kind` is from its metadata. A class table
/// is not left out but read elsewhere.
fn unfit(path: &Path, kind: std::io::Result<FileType>) -> Option<String> {
    let name = name_of(path.file_name().unwrap_or_default());
    match kind {
        _ if name.starts_with('.') => Some("hidden".into()),
        Err(e) => Some(format!("cannot be read: {e}")),
        Ok(kind) if kind.is_dir() => Some("a folder without images beside images".into()),
        Ok(_) if !looks_like_image(&name) => Some(not_named_like_an_image(&name)),
        // Whoever opened a pipe would wait for a writer.
        Ok(kind) if !kind.is_file() => Some(format!("cannot be read: {NOT_REGULAR}")),
        Ok(_) => None,
    }
}

/// The reason why a file of this name is left out.
pub(crate) fn not_named_like_an_image(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((_, suffix)) => format!("not named like an image: .{suffix}"),
        None => "not named like an image: no suffix".into(),
    }
}

/// Suffixes of files that belong to an image of their name: its class, its caption, what is known
/// of it.
pub(crate) const COMPANIONS: [&str; 3] = ["cls", "txt", "json"];

/// Files left out, except those that belong to an image (`a.cls` or `a.jpg.json` beside `a.jpg`).
fn without_companions(left_out: Vec<(PathBuf, String)>, images: &[PathBuf]) -> Vec<LeftOut> {
    let stems: HashSet<PathBuf> = images.iter().map(|p| p.with_extension("")).collect();
    let whole: HashSet<&PathBuf> = images.iter().collect();
    let companion = |path: &Path| {
        let suffix = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let stem = path.with_extension("");
        COMPANIONS.contains(&suffix) && (stems.contains(&stem) || whole.contains(&stem))
    };
    let mut files: Vec<LeftOut> = left_out
        .into_iter()
        .filter(|(path, reason)| reason == "hidden" || !companion(path))
        .map(|(path, reason)| LeftOut { name: name_of(path.as_os_str()), reason })
        .collect();
    files.sort();
    files
}

/// Contents of a folder; paths are relative to it.
struct Tree {
    /// In torchvision's order.
    images: Vec<PathBuf>,
    /// The folders directly in it, sorted, but for hidden ones and links in a circle.
    folders: Vec<String>,
    left_out: Vec<LeftOut>,
}

fn walk(root: &Path) -> Result<Tree> {
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    let (mut images, mut folders, mut left_out) = (vec![], BTreeMap::new(), vec![]);
    let mut entries = WalkDir::new(root).min_depth(1).follow_links(true).sort_by_file_name().into_iter();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // A link that leads nowhere or in a circle, or a folder that may not be entered.
            Err(e) => match e.path().filter(|p| *p != root) {
                Some(path) => {
                    let path = relative(path);
                    let why =
                        e.loop_ancestor().map_or_else(|| e.to_string(), |_| "a link in a circle".into());
                    let hidden = name_of(path.file_name().unwrap_or_default()).starts_with('.');
                    let reason = if hidden { "hidden".into() } else { format!("cannot be read: {why}") };
                    left_out.push((path, reason));
                    continue;
                }
                None => return Err(Error::Read { path: root.to_owned(), source: e.into() }),
            },
        };
        let path = relative(entry.path());
        let folder = entry.file_type().is_dir();
        match unfit(&path, Ok(entry.file_type())) {
            Some(reason) if reason == "hidden" => {
                if folder {
                    entries.skip_current_dir();
                }
                left_out.push((path, reason));
            }
            _ if folder => {
                if entry.depth() == 1 {
                    folders.insert(entry.file_name().to_owned(), name_of(entry.file_name()));
                }
            }
            _ if path == Path::new(labels::SIDECAR) => {}
            Some(reason) => left_out.push((path, reason)),
            None => images.push(path),
        }
    }
    let folders = distinct(root, folders)?;
    // torchvision: classes by name; in each, folders as `os.walk` meets them (sorted), files sorted
    // within a folder.
    let sort_key =
        |p: &PathBuf| (p.parent().map(|d| d.as_os_str().to_owned()), p.file_name().map(ToOwned::to_owned));
    images.sort_by_cached_key(sort_key);
    let left_out = without_companions(left_out, &images);
    Ok(Tree { images, folders, left_out })
}

/// The names as text, in the order of their bytes; two that are not UTF-8 could be written alike.
fn distinct(root: &Path, folders: BTreeMap<OsString, String>) -> Result<Vec<String>> {
    let mut seen = HashSet::new();
    match folders.values().find(|name| !seen.insert(*name)) {
        Some(name) => Err(Error::malformed(root, format!("two class folders have the name `{name}`"))),
        None => Ok(folders.into_values().collect()),
    }
}

impl Dataset for ImageFiles {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn key(&self, index: usize) -> String {
        name_of(self.files[index].0.as_os_str())
    }

    fn target(&self, index: usize) -> Target {
        self.files[index].1.clone()
    }

    fn get(&self, index: usize) -> Result<Record> {
        let (path, target) = &self.files[index];
        let key = self.key(index);
        let full = self.root.join(path);
        let bytes = read(&full, most_bytes()).map_err(|e| match e.kind() {
            // Gone since it was listed, not ours to read, or no file to read: this one's fault, and
            // no reason to stop.
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidInput
            | ErrorKind::IsADirectory
            | ErrorKind::FileTooLarge => {
                Error::Decode { key: key.clone(), message: format!("cannot be read: {e}") }
            }
            _ => Error::Read { path: full, source: e },
        })?;
        let (image, stored) = decode(&key, &bytes)?;
        Ok(Record { key, image, target: target.clone(), stored })
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| self.root.join(path)).collect()
    }

    fn describe(&self) -> String {
        let labels = match (self.files.first(), self.classes.len()) {
            (Some((_, Target::Caption(_))), _) => "captions".to_owned(),
            (_, 0) => "no class labels".to_owned(),
            (_, n) => format!("{n} classes"),
        };
        format!("{}: {}, {} images, {labels}", self.root.display(), self.what, self.len())
    }
}

/// A file's bytes, if they are no more than an image or a caption can have.
fn read(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let size = file.metadata()?.len();
    if size > most {
        let message = format!("{size} bytes, more than the {most} that it may have");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, message));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
