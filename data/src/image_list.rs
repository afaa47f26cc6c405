//! Lists of image paths with labels: JSON lines, CSV or TSV with a header.
//!
//! Columns, by whichever of their usual names occurs: the path (`path`, `image_path`, `image`, `file_name`, `file`),
//! and optionally a class index (`class`, `label`, `class_index`) or a caption (`caption`, `text`). LlamaGen's `text`
//! lists ([BLIP, LLaVA, LLaVA's first sentence]) give their first entry. Other columns are ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{Error, ImageFiles, Result, Target, labels};

const PATH: [&str; 5] = ["path", "image_path", "image", "file_name", "file"];
const CLASS: [&str; 3] = ["class", "label", "class_index"];
const CAPTION: [&str; 2] = ["caption", "text"];

/// Reads a list; relative paths start at its folder, and a `classes.tsv` there names the classes.
pub fn read_list(path: &Path) -> Result<ImageFiles> {
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    let rows =
        if text.trim_start().starts_with('{') { json_lines(&text, path)? } else { table(&text, path)? };
    let mut files = vec![];
    for (line, row) in &rows {
        files.push(record(row).map_err(|e| Error::malformed(path, format!("line {line}: {e}")))?);
    }
    if files.is_empty() {
        return Err(Error::malformed(path, "the list has no rows"));
    }
    consistent(&files).map_err(|e| Error::malformed(path, e))?;
    let root = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut folders = BTreeMap::new();
    for (file, target) in &files {
        if let Target::Class(c) = target {
            let folder = file.parent().and_then(Path::file_name).unwrap_or_default();
            folders.entry(*c).or_insert_with(|| folder.to_string_lossy().into_owned());
        }
    }
    let classes = labels::of_numbers(&folders, labels::sidecar(&root)?.as_ref());
    Ok(ImageFiles::listed(&root, files, classes))
}

/// True if the text begins like a list of images.
pub(crate) fn is_list(head: &str) -> bool {
    let first = head.lines().next().unwrap_or_default();
    first.trim_start().starts_with('{')
        || first.split(delimiter(first)).any(|c| PATH.contains(&c.trim().trim_matches('"')))
}

fn delimiter(header: &str) -> char {
    if header.contains('\t') { '\t' } else { ',' }
}

type Rows = Vec<(usize, Map<String, Value>)>;

fn json_lines(text: &str, path: &Path) -> Result<Rows> {
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(i, l)| match serde_json::from_str(l) {
            Ok(row) => Ok((i + 1, row)),
            Err(e) => Err(Error::malformed(path, format!("line {}: not a JSON object: {e}", i + 1))),
        })
        .collect()
}

fn table(text: &str, path: &Path) -> Result<Rows> {
    let bad = |e: csv::Error| Error::malformed(path, e.to_string());
    let delimiter = delimiter(text.lines().next().unwrap_or_default());
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter as u8).from_reader(text.as_bytes());
    let header = reader.headers().map_err(bad)?.clone();
    let mut rows = vec![];
    for row in reader.records() {
        let row = row.map_err(bad)?;
        let line = row.position().map_or(0, |p| p.line() as usize);
        let cells = header.iter().zip(&row).filter(|(_, v)| !v.is_empty());
        rows.push((line, cells.map(|(k, v)| (k.trim().to_owned(), Value::from(v))).collect()));
    }
    Ok(rows)
}

fn record(row: &Map<String, Value>) -> std::result::Result<(PathBuf, Target), String> {
    let find = |names: &[&str]| names.iter().find_map(|n| row.get(*n));
    let path = find(&PATH).and_then(Value::as_str).ok_or_else(|| {
        let have: Vec<&String> = row.keys().collect();
        format!("no image path: expected one of {PATH:?}, found {have:?}")
    })?;
    let target = match (find(&CLASS), find(&CAPTION)) {
        (Some(class), _) => Target::Class(class_index(class)?),
        (None, Some(text)) => Target::Caption(caption(text)?),
        (None, None) => Target::None,
    };
    Ok((PathBuf::from(path), target))
}

fn class_index(value: &Value) -> std::result::Result<i64, String> {
    let number = value.as_i64().or_else(|| value.as_str().and_then(|s| s.trim().parse().ok()));
    number.filter(|n| *n >= 0).ok_or_else(|| format!("expected a class index, found {value}"))
}

fn caption(value: &Value) -> std::result::Result<String, String> {
    let text = value.as_str().or_else(|| value.as_array().and_then(|a| a.first()).and_then(Value::as_str));
    text.map(str::to_owned).ok_or_else(|| format!("expected a caption, found {value}"))
}

/// All rows must have the same kind of label.
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
