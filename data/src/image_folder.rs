//! Images in files: class folders in torchvision's order, a flat folder, or a list of paths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::decode::{decode, looks_like_image};
use crate::{Class, Dataset, Error, Record, Result, Target, labels};

/// Image files with optional labels.
#[derive(Debug)]
pub struct ImageFiles {
    root: PathBuf,
    files: Vec<(PathBuf, Target)>,
    classes: Vec<Class>,
    what: &'static str,
}

impl ImageFiles {
    /// A tree `root/class/…/image`, in torchvision's order: classes sorted by name, then paths sorted within each.
    pub fn class_tree(root: &Path) -> Result<Self> {
        let images = walk(root)?;
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
        Ok(ImageFiles { root: root.to_owned(), files, classes, what: "class folders" })
    }

    /// The images directly in `root`, sorted by name: without labels, or, where text files of the same names (`a.txt`
    /// beside `a.jpg`) lie there, with these as captions, which then none may lack.
    pub fn flat(root: &Path) -> Result<Self> {
        let mut names: Vec<PathBuf> = vec![];
        for entry in std::fs::read_dir(root).map_err(Error::read(root))? {
            let entry = entry.map_err(Error::read(root))?;
            if looks_like_image(&entry.file_name().to_string_lossy()) && entry.path().is_file() {
                names.push(entry.file_name().into());
            }
        }
        names.sort();
        let captioned = names.iter().any(|name| root.join(name).with_extension("txt").is_file());
        let labelled = |name: PathBuf| {
            let target = if captioned { Target::Caption(caption(&root.join(&name))?) } else { Target::None };
            Ok((name, target))
        };
        let files = names.into_iter().map(labelled).collect::<Result<_>>()?;
        Ok(ImageFiles { root: root.to_owned(), files, classes: vec![], what: "a folder of images" })
    }

    /// Given files with given labels; relative paths start at `root`, and `classes` names the labels.
    pub fn listed(root: &Path, files: Vec<(PathBuf, Target)>, classes: Vec<Class>) -> Self {
        ImageFiles { root: root.to_owned(), files, classes, what: "a list of images" }
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

/// Paths of the images under `root`, relative to it, in torchvision's order.
fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in WalkDir::new(root).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|e| {
            let path = e.path().unwrap_or(root).to_owned();
            Error::Read { path, source: e.into() }
        })?;
        if entry.file_type().is_file() && looks_like_image(&entry.file_name().to_string_lossy()) {
            found.push(entry.path().strip_prefix(root).expect("walked from root").to_owned());
        }
    }
    // torchvision: classes by name; in each, folders as `os.walk` meets them (sorted), files sorted within a folder.
    let sort_key =
        |p: &PathBuf| (p.parent().map(|d| d.as_os_str().to_owned()), p.file_name().map(ToOwned::to_owned));
    found.sort_by_cached_key(sort_key);
    Ok(found)
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
        let bytes = std::fs::read(&full).map_err(Error::read(&full))?;
        let (image, stored) = decode(&key, &bytes)?;
        Ok(Record { key, image, target: target.clone(), stored })
    }

    fn classes(&self) -> &[Class] {
        &self.classes
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
