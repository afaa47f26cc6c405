//! One opening function for every form that images come in, recognised by content.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::files::{name_of, open_regular};

use crate::decode::{is_image, looks_like_image};
use crate::image_list::{is_list, one_of};
use crate::patterns::{expand, is_pattern};
use crate::{Dataset, Error, IMAGE_EXTENSIONS, ImageFiles, NpzImages, Result, TarShards, read_list};

/// Opens images in any known form:
///
/// - a folder of class folders, or a folder of images;
/// - one image, or a list of images (`.jsonl`, `.csv`, `.tsv`; see [`read_list`]);
/// - an `.npz` of images as the ADM evaluation suite writes it;
/// - tar shards, plain or gzipped: one, a folder of them, or a pattern (`train-*.tar.gz`,
///   `train-{00000..00005}.tar`).
pub fn open(path: &Path) -> Result<Arc<dyn Dataset>> {
    let set: Arc<dyn Dataset> = if path.is_dir() {
        open_folder(path)?
    } else if path.exists() {
        open_file(path)?
    } else if is_pattern(path) {
        let shards = expand(path).map_err(|found| not_a_dataset(path, &found, vec![]))?;
        Arc::new(TarShards::open(&shards)?)
    } else {
        return Err(missing(path));
    };
    Ok(set)
}

fn open_folder(path: &Path) -> Result<Arc<dyn Dataset>> {
    let inside = Listing::read(path)?;
    match (!inside.images.is_empty(), !inside.archives.is_empty(), !inside.folders.is_empty()) {
        (true, true, _) => Err(not_a_dataset(path, "it holds both images and tar archives", vec![])),
        (_, true, _) => {
            one_set_of_shards(path, &inside.archives)?;
            Ok(Arc::new(TarShards::open(&inside.archives)?))
        }
        (_, _, true) if !class_folders(path, &inside.folders)?.is_empty() => {
            Ok(Arc::new(ImageFiles::class_tree(path)?))
        }
        (true, _, _) => Ok(Arc::new(ImageFiles::flat(path)?)),
        (false, false, folders) => Err(no_images(path, &inside, folders)),
    }
}

/// Entries of a folder, sorted by name.
struct Listing {
    images: Vec<PathBuf>,
    archives: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    others: Vec<PathBuf>,
}

impl Listing {
    fn read(folder: &Path) -> Result<Listing> {
        let mut l = Listing { images: vec![], archives: vec![], folders: vec![], others: vec![] };
        for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
            let path = entry.map_err(Error::read(folder))?.path();
            let name = name(&path);
            let list = if name.starts_with('.') {
                continue;
            } else if path.is_dir() {
                &mut l.folders
            } else if looks_like_image(&name) {
                &mut l.images
            } else if is_archive_name(&name) {
                &mut l.archives
            } else {
                &mut l.others
            };
            list.push(path);
        }
        for list in [&mut l.images, &mut l.archives, &mut l.folders, &mut l.others] {
            list.sort();
        }
        Ok(l)
    }
}

fn is_archive_name(name: &str) -> bool {
    [".tar", ".tar.gz", ".tgz"].iter().any(|e| name.ends_with(e))
}

/// Those of the folders that hold images directly. If only deeper folders do, these are probably
/// splits.
fn class_folders(root: &Path, folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut with_images = vec![];
    for folder in folders {
        let inside = Listing::read(folder)?;
        if !inside.images.is_empty() {
            with_images.push(folder.clone());
        } else if let Some(deeper) = inside.folders.first()
            && !Listing::read(deeper)?.images.is_empty()
        {
            let found = format!(
                "`{}` holds class folders of its own, so it looks like one split of several",
                name(folder)
            );
            return Err(not_a_dataset(root, &found, vec![format!("open `{}`", folder.display())]));
        }
    }
    Ok(with_images)
}

fn name(path: &Path) -> String {
    name_of(path.file_name().unwrap_or_default())
}

/// Rejects a folder that mixes, say, `train-*` and `val-*` shards.
fn one_set_of_shards(folder: &Path, archives: &[PathBuf]) -> Result<()> {
    let stem = |p: &PathBuf| name(p).chars().take_while(|c| !c.is_ascii_digit()).collect::<String>();
    let mut stems: Vec<String> = archives.iter().map(stem).collect();
    stems.sort();
    stems.dedup();
    if stems.len() < 2 {
        return Ok(());
    }
    let found = format!("it holds shards of several sets: {}", stems.join(", "));
    let hints = stems.iter().map(|s| format!("open `{}`", folder.join(format!("{s}*")).display())).collect();
    Err(not_a_dataset(folder, &found, hints))
}

fn not_a_dataset(path: &Path, found: &str, hints: Vec<String>) -> Error {
    Error::NotADataset { path: path.to_owned(), found: found.to_owned(), hints }
}

fn no_images(path: &Path, inside: &Listing, folders: bool) -> Error {
    let hint = "give a folder of class folders, a folder of images, tar shards, or a .jsonl or .csv list";
    let found = match inside.others.first() {
        None if !folders => "the folder is empty".to_owned(),
        None => "neither it nor its folders hold images".to_owned(),
        Some(p) => format!("no images, but for example `{}`", name(p)),
    };
    not_a_dataset(path, &found, vec![hint.into()])
}

fn open_file(path: &Path) -> Result<Arc<dyn Dataset>> {
    /// No header of a list is longer.
    const HEAD: u64 = 1 << 20;
    let mut head = vec![];
    let file = open_regular(path).map_err(Error::read(path))?;
    file.take(HEAD).read_to_end(&mut head).map_err(Error::read(path))?;
    if is_image(&head) {
        let root = path.parent().unwrap_or(Path::new("")).to_owned();
        let name = PathBuf::from(path.file_name().unwrap_or_default());
        let files = vec![(name, crate::Target::None)];
        return Ok(Arc::new(ImageFiles::listed(&root, files, vec![])));
    }
    if head.starts_with(b"PK\x03\x04") {
        return Ok(Arc::new(NpzImages::open(path)?));
    }
    if head.starts_with(&[0x1f, 0x8b]) || head.get(257..262) == Some(b"ustar") {
        return Ok(Arc::new(TarShards::open(&[path.to_owned()])?));
    }
    let suffix = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let text = text_of(&head).filter(|_| !head.is_empty());
    // By its content, or by its name: the error then names the missing part.
    if text.is_some_and(is_list) || text.is_some() && LISTS.contains(&suffix.as_str()) {
        return Ok(Arc::new(read_list(path)?));
    }
    let found = match text_of(&head) {
        _ if head.is_empty() => "the file is empty".to_owned(),
        _ if head.iter().all(|b| *b == 0) => {
            "nothing but zeros, as in a tar archive without members".to_owned()
        }
        _ if head.starts_with(&[0xFF, 0xFE]) || head.starts_with(&[0xFE, 0xFF]) => {
            "UTF-16 text; save it as UTF-8".to_owned()
        }
        Some(text) => format!("a text file beginning with {:?}", text.chars().take(24).collect::<String>()),
        None => format!("a file beginning with the bytes {:02x?}", &head[..head.len().min(8)]),
    };
    let hint = format!(
        "known are images ({}), tar archives (also gzipped), .npz of images, and lists: JSON lines, or a table with {}",
        IMAGE_EXTENSIONS.join(", "),
        one_of()
    );
    Err(not_a_dataset(path, &found, vec![hint]))
}

/// Suffixes of lists.
const LISTS: [&str; 3] = ["csv", "tsv", "jsonl"];

/// The bytes as text; the last character may be cut.
fn text_of(head: &[u8]) -> Option<&str> {
    match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).ok(),
        Err(_) => None,
    }
}

fn missing(path: &Path) -> Error {
    let mut parent = path.parent();
    while let Some(p) = parent.filter(|p| !p.exists() && !p.as_os_str().is_empty()) {
        parent = p.parent();
    }
    let hints =
        parent.filter(|p| !p.as_os_str().is_empty()).map(|p| format!("`{}` exists; look there", p.display()));
    not_a_dataset(path, "there is no such file or folder", hints.into_iter().collect())
}
