//! Indices of class folders, names of indices, and comparison of two sets' numberings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base::files::open_regular;

use crate::{Class, ClassTable, Error, Result};

/// The file that names classes.
pub(crate) const SIDECAR: &str = "classes.tsv";

/// A `classes.tsv` lying in `folder`, if there is one.
pub(crate) fn sidecar(folder: &Path) -> Result<Option<ClassTable>> {
    let path = folder.join(SIDECAR);
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    open_regular(&path).map_err(Error::read(&path))?; // a table that is none is not passed over
    ClassTable::read(&path).map(Some)
}

/// The class of each folder of a tree of class folders, of which some hold images that can be read.
///
/// In this order: a `classes.tsv` beside the folders, by WordNet id or name; ImageNet's index, if
/// every folder is named by an ImageNet WordNet id (for the full data set that is torchvision's
/// order too, and a part of it keeps its labels); else torchvision's rule, the position in the
/// sorted list of all folders, which `folders` is. What can be read in them decides nothing.
pub(crate) fn of_folders(
    folders: &[String],
    with_images: &BTreeSet<String>,
    table: Option<&ClassTable>,
    at: &Path,
) -> Result<BTreeMap<String, Class>> {
    if let Some(table) = table {
        return with_images.iter().map(|f| Ok((f.clone(), listed(table, f, at)?))).collect();
    }
    let imagenet = |f: &String| ClassTable::imagenet().by_wnid(f).map(|c| (f.clone(), c.clone()));
    if folders.iter().all(|f| imagenet(f).is_some()) {
        return Ok(folders.iter().filter_map(imagenet).collect());
    }
    let position = |(i, f): (usize, &String)| {
        (f.clone(), Class { index: i as i64, wnid: String::new(), name: f.clone() })
    };
    Ok(folders.iter().enumerate().map(position).collect())
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
        let plain = || Class { index, wnid: String::new(), name: unnamed(index) };
        given.or(imagenet).cloned().unwrap_or_else(plain)
    };
    folders.iter().map(name).collect()
}

/// Name of a class of which only the number is known.
pub fn unnamed(index: i64) -> String {
    format!("class {index}")
}

/// Refuses two sets of classes in which one number means two classes, or one class has two numbers:
/// labels of one set would be read as other classes by the other. Folders are numbered by their
/// order, which a missing folder shifts. Classes of which only the number is known agree with any.
///
/// # Errors
/// Returns an error that names the first two classes that disagree.
pub fn same_numbering((here, ours): (&str, &[Class]), (there, theirs): (&str, &[Class])) -> Result<()> {
    let refuse = |message: String| Error::Class {
        message,
        hints: vec!["lay the same `classes.tsv` (index, wnid, name) beside the folders of both".into()],
    };
    let known = |classes: &[Class]| -> Vec<Class> {
        let bare = |c: &&Class| !c.wnid.is_empty() || !(c.name.is_empty() || c.name == unnamed(c.index));
        classes.iter().filter(bare).cloned().collect()
    };
    let (ours, theirs) = (known(ours), known(theirs));
    let at: BTreeMap<i64, &Class> = ours.iter().map(|c| (c.index, c)).collect();
    for b in &theirs {
        if let Some(a) = at.get(&b.index).filter(|a| !same_class(a, b)) {
            let (index, a, b) = (b.index, called(a), called(b));
            return Err(refuse(format!("class {index} is `{a}` in {here}, but `{b}` in {there}")));
        }
    }
    let by_name = unique_names(&ours);
    for (name, b) in unique_names(&theirs) {
        if let Some(a) = by_name.get(&name).filter(|a| a.index != b.index && same_class(a, b)) {
            let (a, b) = (a.index, b.index);
            return Err(refuse(format!("`{name}` is class {a} in {here}, but class {b} in {there}")));
        }
    }
    Ok(())
}

fn same_class(a: &Class, b: &Class) -> bool {
    if !a.wnid.is_empty() && !b.wnid.is_empty() {
        return a.wnid.eq_ignore_ascii_case(&b.wnid);
    }
    // A folder may be named by a WordNet id that the other set gives beside a name.
    let names = |c: &Class| [c.name.to_lowercase(), c.wnid.to_lowercase()];
    names(a).iter().any(|n| !n.is_empty() && names(b).contains(n))
}

fn called(class: &Class) -> &str {
    if class.name.is_empty() { &class.wnid } else { &class.name }
}

/// Classes by names that no other has; ImageNet has two cranes.
fn unique_names(classes: &[Class]) -> BTreeMap<String, &Class> {
    let mut counts: BTreeMap<String, (usize, &Class)> = BTreeMap::new();
    for class in classes {
        counts.entry(class.name.clone()).or_insert((0, class)).0 += 1;
    }
    counts.into_iter().filter(|(_, (n, _))| *n == 1).map(|(name, (_, class))| (name, class)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Hint;

    fn class(index: i64, wnid: &str, name: &str) -> Class {
        Class { index, wnid: wnid.into(), name: name.into() }
    }

    fn numbered(names: &[&str]) -> Vec<Class> {
        names.iter().enumerate().map(|(i, name)| class(i as i64, "", name)).collect()
    }

    fn compare(a: &[Class], b: &[Class]) -> Result<()> {
        same_numbering(("A", a), ("B", b))
    }

    #[test]
    fn numberings_agree_by_name_or_are_refused_with_both() {
        let all = numbered(&["ant", "bee", "cat"]);
        compare(&all, &all).unwrap();
        compare(&all, &numbered(&["ant", "bee"])).unwrap();
        compare(&all, &[class(1, "", "class 1"), class(2, "", "")]).unwrap();
        let error = compare(&all, &numbered(&["ant", "cat"])).unwrap_err();
        assert_eq!(error.to_string(), "class 1 is `bee` in A, but `cat` in B");
        assert!(error.hints()[0].contains("classes.tsv"));
        let moved = compare(&all, &[class(7, "", "bee")]).unwrap_err().to_string();
        assert_eq!(moved, "`bee` is class 1 in A, but class 7 in B");

        let imagenet: Vec<Class> = ClassTable::imagenet().classes().cloned().collect();
        compare(&imagenet, &imagenet[130..520]).unwrap();
        compare(&imagenet, &[class(207, "", "Golden Retriever"), class(0, "", "n01440764")]).unwrap();
        assert!(compare(&imagenet, &all).unwrap_err().to_string().contains("`ant` in B"));
    }

    #[test]
    fn folders_are_numbered_whether_or_not_their_images_can_be_read() {
        let set = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<BTreeSet<_>>();
        let index = |folders: &[&str], with: &[&str], of: &str| {
            let folders: Vec<String> = folders.iter().map(|f| f.to_string()).collect();
            of_folders(&folders, &set(with), None, Path::new("x")).unwrap()[of].index
        };
        assert_eq!(index(&["ant", "bee", "cat"], &["bee", "cat"], "cat"), 2);
        // ImageNet's numbers are of folders that are all named so, and of none beside another,
        // whatever is in it.
        assert_eq!(index(&["n01440764", "n02099601"], &["n02099601"], "n02099601"), 207);
        for with in [&["n02099601"][..], &["n02099601", "thumbnails"]] {
            assert_eq!(index(&["n02099601", "thumbnails"], with, "n02099601"), 0);
        }
    }
}
