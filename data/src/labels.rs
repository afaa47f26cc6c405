//! Which index a class folder gets, and which name an index has.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{Class, ClassTable, Error, Result};

/// The file that names classes.
pub(crate) const SIDECAR: &str = "classes.tsv";

/// A `classes.tsv` lying in `folder`, if there is one.
pub(crate) fn sidecar(folder: &Path) -> Result<Option<ClassTable>> {
    let path = folder.join(SIDECAR);
    if path.is_file() { ClassTable::read(&path).map(Some) } else { Ok(None) }
}

/// The classes of a tree of class folders, in the folders' order (`folders` is sorted).
///
/// In this order: a `classes.tsv` beside the folders, by WordNet id or name; ImageNet's index, if every folder is
/// named by an ImageNet WordNet id (for the full data set that is torchvision's order too, and a part of it keeps its
/// labels); else torchvision's rule, the position in the sorted list.
pub(crate) fn of_folders(folders: &[String], table: Option<&ClassTable>, at: &Path) -> Result<Vec<Class>> {
    if let Some(table) = table {
        return folders.iter().map(|f| listed(table, f, at)).collect();
    }
    let imagenet: Option<Vec<Class>> =
        folders.iter().map(|f| ClassTable::imagenet().by_wnid(f).cloned()).collect();
    let position = |(i, f): (usize, &String)| Class { index: i as i64, wnid: String::new(), name: f.clone() };
    Ok(imagenet.unwrap_or_else(|| folders.iter().enumerate().map(position).collect()))
}

fn listed(table: &ClassTable, folder: &str, at: &Path) -> Result<Class> {
    let named = || table.classes().find(|c| c.name == folder);
    table.by_wnid(folder).or_else(named).cloned().ok_or_else(|| {
        let message = format!("`classes.tsv` has no row whose wnid or name is the class folder `{folder}`");
        Error::malformed(at, message)
    })
}

/// Names for labels that came as numbers. `folders` gives the folder in which each label occurs.
pub(crate) fn of_numbers(folders: &BTreeMap<i64, String>, table: Option<&ClassTable>) -> Vec<Class> {
    let name = |(&index, folder): (&i64, &String)| {
        let given = table.and_then(|t| t.by_index(index));
        // A number counts as ImageNet's only if the folder's WordNet id agrees.
        let imagenet = ClassTable::imagenet().by_wnid(folder).filter(|c| c.index == index);
        let plain = || Class { index, wnid: String::new(), name: format!("class {index}") };
        given.or(imagenet).cloned().unwrap_or_else(plain)
    };
    folders.iter().map(name).collect()
}
