//! Images in files: class folders in torchvision's order, a flat folder, or a list of paths.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::decode::{decode, looks_like_image};
use crate::{Class, Dataset, Error, LeftOut, Record, Result, Target, labels};

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
    /// A tree `root/class/…/image`, in torchvision's order: classes sorted by name, then paths sorted within each.
    /// Hidden files are left out; torchvision takes them for images where they are named so.
    pub fn class_tree(root: &Path) -> Result<Self> {
        let (images, left_out) = walk(root)?;
        let class_of = |p: &PathBuf| p.iter().next().map(|c| c.to_string_lossy().into_owned());
        let (loose, inside): (Vec<PathBuf>, Vec<PathBuf>) =
            images.into_iter().partition(|p| p.iter().count() < 2);
        if let Some(p) = loose.first() {
            let message = format!("`{}` lies beside the class folders and would have no class", p.display());
            return Err(Error::malformed(root, message));
        }
        let folders: BTreeSet<String> = inside.iter().filter_map(class_of).collect();
        let folders: Vec<String> = folders.into_iter().collect();
        let classes = labels::of_folders(&folders, labels::sidecar(root)?.as_ref(), root)?;
        let label = |p: &PathBuf| {
            let at = class_of(p).and_then(|c| folders.binary_search(&c).ok());
            at.map_or(Target::None, |i| Target::Class(classes[i].index))
        };
        let files = inside
            .into_iter()
            .map(|p| {
                let t = label(&p);
                (p, t)
            })
            .collect();
        let mut classes = classes.clone();
        classes.sort_by_key(|c| c.index);
        Ok(ImageFiles { root: root.to_owned(), files, classes, what: "class folders", left_out })
    }

    /// The images directly in `root`, sorted by name: without labels, or, where text files of the same names (`a.txt`
    /// beside `a.jpg`) lie there, with these as captions, which then none may lack.
    pub fn flat(root: &Path) -> Result<Self> {
        let (mut names, mut left_out) = (vec![], vec![]);
        for entry in std::fs::read_dir(root).map_err(Error::read(root))? {
            let entry = entry.map_err(Error::read(root))?;
            let (name, path) = (PathBuf::from(entry.file_name()), entry.path());
            match unfit(&name, std::fs::metadata(&path).map(|m| m.is_dir())) {
                Some(reason) => left_out.push(entry_left_out(&name, reason)),
                None => names.push(name),
            }
        }
        names.sort();
        let captioned = names.iter().any(|name| root.join(name).with_extension("txt").is_file());
        if captioned {
            // The captions are read, so they are not left out.
            let texts: BTreeSet<String> = names.iter().map(|name| caption_name(name)).collect();
            left_out.retain(|file| !texts.contains(&file.name));
        }
        left_out.sort();
        let labelled = |name: PathBuf| {
            let target = if captioned { Target::Caption(caption(&root.join(&name))?) } else { Target::None };
            Ok((name, target))
        };
        let files = names.into_iter().map(labelled).collect::<Result<_>>()?;
        Ok(ImageFiles { root: root.to_owned(), files, classes: vec![], what: "a folder of images", left_out })
    }

    /// Given files with given labels; relative paths start at `root`, and `classes` names the labels.
    pub fn listed(root: &Path, files: Vec<(PathBuf, Target)>, classes: Vec<Class>) -> Self {
        ImageFiles { root: root.to_owned(), files, classes, what: "a list of images", left_out: vec![] }
    }
}

/// The caption beside an image.
fn caption(image: &Path) -> Result<String> {
    let path = image.with_extension("txt");
    let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            let message = "it has no caption, unlike others in its folder; expected a .txt of the same name";
            Error::malformed(image, message)
        }
        _ => Error::Read { path: path.clone(), source },
    })?;
    match text.trim() {
        "" => Err(Error::malformed(&path, "the caption is empty")),
        text => Ok(text.to_owned()),
    }
}

/// The file that holds the caption of an image of this name.
fn caption_name(image: &Path) -> String {
    image.with_extension("txt").to_string_lossy().into_owned()
}

/// Why a file or folder beside the images is none of them; `folder` is what its metadata say. A class table is not
/// left out but read elsewhere.
fn unfit(name: &Path, folder: std::io::Result<bool>) -> Option<String> {
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    match folder {
        _ if name.starts_with('.') => Some("hidden".into()),
        Err(e) => Some(format!("cannot be read: {e}")),
        Ok(true) => Some("a folder without images beside images".into()),
        Ok(false) if !looks_like_image(&name) => Some(match name.rsplit_once('.') {
            Some((_, suffix)) => format!("not named like an image: .{suffix}"),
            None => "not named like an image: no suffix".into(),
        }),
        Ok(false) => None,
    }
}

fn entry_left_out(path: &Path, reason: String) -> LeftOut {
    LeftOut { name: path.to_string_lossy().into_owned(), reason }
}

/// Paths of the images under `root`, relative to it, in torchvision's order; and what else is there.
fn walk(root: &Path) -> Result<(Vec<PathBuf>, Vec<LeftOut>)> {
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    let (mut found, mut left_out) = (vec![], vec![]);
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
                    let hidden = unfit(&path, Ok(true)).filter(|r| r == "hidden");
                    left_out.push(entry_left_out(&path, hidden.unwrap_or(format!("cannot be read: {why}"))));
                    continue;
                }
                None => return Err(Error::Read { path: root.to_owned(), source: e.into() }),
            },
        };
        let path = relative(entry.path());
        let folder = entry.file_type().is_dir();
        match unfit(&path, Ok(folder)) {
            Some(reason) if reason == "hidden" => {
                if folder {
                    entries.skip_current_dir();
                }
                left_out.push(entry_left_out(&path, reason));
            }
            _ if folder || path == Path::new(labels::SIDECAR) => {}
            Some(reason) => left_out.push(entry_left_out(&path, reason)),
            None => found.push(path),
        }
    }
    // torchvision: classes by name; in each, folders as `os.walk` meets them (sorted), files sorted within a folder.
    let sort_key =
        |p: &PathBuf| (p.parent().map(|d| d.as_os_str().to_owned()), p.file_name().map(ToOwned::to_owned));
    found.sort_by_cached_key(sort_key);
    Ok((found, left_out))
}

impl Dataset for ImageFiles {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn key(&self, index: usize) -> String {
        self.files[index].0.to_string_lossy().into_owned()
    }

    fn target(&self, index: usize) -> Target {
        self.files[index].1.clone()
    }

    fn get(&self, index: usize) -> Result<Record> {
        let (path, target) = &self.files[index];
        let key = self.key(index);
        let full = self.root.join(path);
        let bytes = std::fs::read(&full).map_err(|e| match e.kind() {
            // Gone since it was listed, or not ours to read: this file's fault, and no reason to stop.
            ErrorKind::NotFound | ErrorKind::PermissionDenied => {
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

    fn describe(&self) -> String {
        let labels = match (self.files.first(), self.classes.len()) {
            (Some((_, Target::Caption(_))), _) => "captions".to_owned(),
            (_, 0) => "no class labels".to_owned(),
            (_, n) => format!("{n} classes"),
        };
        format!("{}: {}, {} images, {labels}", self.root.display(), self.what, self.len())
    }
}
