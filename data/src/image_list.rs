//! Lists of image paths with labels: JSON lines, CSV or TSV with a header.
//!
//! Columns, by whichever of their usual names occurs: the path ([`PATH`]), and optionally a class
//! index ([`CLASS`]) or a caption ([`crate::table::CAPTION`]). LlamaGen's `text` lists ([BLIP,
//! LLaVA, LLaVA's first sentence]) give their first entry. Other columns are ignored.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use base::files::name_of;
use serde_json::Value;

use crate::table::{self, CLASS, Content, PATH, Row};
use crate::{Error, ImageFiles, Result, Target, labels};

/// Reads a list; relative paths start at its folder, and a `classes.tsv` there names the classes.
pub fn read_list(path: &Path) -> Result<ImageFiles> {
    let rows = match table::read(path, &with_url())? {
        Content::Rows(rows) => rows,
        Content::Lines(_) => {
            let message = format!("not a list of images: expected JSON lines, or a table with {}", one_of());
            return Err(Error::malformed(path, message));
        }
    };
    let record =
        |row: &Row| record(row).map_err(|e| Error::malformed(path, format!("line {}: {e}", row.line)));
    let files = rows.iter().map(record).collect::<Result<Vec<_>>>()?;
    if files.is_empty() {
        return Err(Error::malformed(path, "the list has no rows"));
    }
    consistent(&files).and_then(|()| one_class_each(&files)).map_err(|e| Error::malformed(path, e))?;
    let root = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut folders = BTreeMap::new();
    for (file, target) in &files {
        if let Target::Class(c) = target {
            let folder = file.parent().and_then(Path::file_name).unwrap_or_default();
            folders.entry(*c).or_insert_with(|| name_of(folder));
        }
    }
    let classes = labels::of_numbers(&folders, labels::sidecar(&root)?.as_ref());
    Ok(ImageFiles::listed(&root, files, classes))
}

/// True if the text begins like a list of images.
pub(crate) fn is_list(head: &str) -> bool {
    table::has_rows(head, &with_url())
}

/// Column of addresses. Pictures are not downloaded; a list that only has addresses is refused with
/// this reason.
const URL: &str = "url";

fn with_url() -> Vec<&'static str> {
    PATH.into_iter().chain([URL]).collect()
}

/// Description for messages.
pub(crate) fn one_of() -> String {
    format!("a column of paths ({})", PATH.join(", "))
}

fn record(row: &Row) -> std::result::Result<(PathBuf, Target), String> {
    let path = row.find(&PATH).and_then(Value::as_str).ok_or_else(|| {
        if row.find(&[URL]).is_some() {
            return format!(
                "a `{URL}` is not a path: pictures are not downloaded; fetch them, and give {}",
                one_of()
            );
        }
        format!("no image path: expected {}, found the columns {}", one_of(), row.columns().join(", "))
    })?;
    let target = match (row.find(&CLASS), row.caption()) {
        (Some(class), _) => Target::Class(class_index(class)?),
        (None, Some(text)) => Target::Caption(text?),
        (None, None) => Target::None,
    };
    Ok((PathBuf::from(path), target))
}

fn class_index(value: &Value) -> std::result::Result<i64, String> {
    match value {
        Value::String(text) => table::class_of(text),
        other => table::class_of(&other.to_string())
            .map_err(|_| format!("expected a class index, found {}", table::shortened(&other.to_string()))),
    }
}

/// An image that is named twice may have two captions, but not two classes.
fn one_class_each(files: &[(PathBuf, Target)]) -> std::result::Result<(), String> {
    let mut seen: HashMap<&Path, i64> = HashMap::new();
    for (path, target) in files {
        let Target::Class(class) = target else { continue };
        if let Some(before) = seen.insert(path, *class).filter(|before| before != class) {
            return Err(format!("`{}` is named twice, with class {before} and with {class}", path.display()));
        }
    }
    Ok(())
}

/// All rows must have labels of one type.
fn consistent(files: &[(PathBuf, Target)]) -> std::result::Result<(), String> {
    let kind = |t: &Target| match t {
        Target::None => "no label",
        Target::Class(_) => "a class",
        Target::Caption(_) => "a caption",
    };
    let first = kind(&files[0].1);
    match files.iter().find(|(_, t)| kind(t) != first) {
        None => Ok(()),
        Some((p, t)) => {
            let (first_path, path) = (files[0].0.display(), p.display());
            Err(format!("`{first_path}` has {first}, but `{path}` has {}", kind(t)))
        }
    }
}
