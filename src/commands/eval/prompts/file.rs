//! Prompts of a set in a file.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use data::table::{PATH, Row};
use data::{PromptFile, PromptRow};
use eval::ImageSet;
use serde_json::Value as Json;

use crate::error::UserError;

/// Lines in the images' order, or rows that name their images or follow their order.
pub fn from_file(set: &ImageSet, file: &Path) -> Result<Vec<String>> {
    match PromptFile::read(file)? {
        PromptFile::Lines(lines) => by_order(set, file, "lines", lines),
        PromptFile::Rows(rows) if rows.iter().all(|prompt| prompt.row.find(&PATH).is_none()) => {
            by_order(set, file, "rows", rows.into_iter().map(|prompt| prompt.text).collect())
        }
        PromptFile::Rows(rows) => by_name(set, file, &rows),
    }
}

fn wrong(file: &Path, row: &Row, why: &str) -> UserError {
    UserError::new(format!("`{}`, line {}: {why}", file.display(), row.line))
}

/// Line n belongs to image n, in natural order (`2.png` before `10.png`), as in GigaGAN's script.
fn by_order(set: &ImageSet, file: &Path, what: &str, lines: Vec<String>) -> Result<Vec<String>> {
    if lines.len() != set.len() {
        let (n, images) = (lines.len(), set.len());
        let message =
            format!("`{}` has {n} {what}, but `{}` has {images} images", file.display(), set.path.display());
        return Err(UserError::new(message).hint("each line is the prompt of one image").into());
    }
    let mut order: Vec<usize> = (0..set.len()).collect();
    order.sort_by_cached_key(|&i| natural(&set.key(i)));
    let mut prompts = vec![String::new(); set.len()];
    for (line, image) in lines.into_iter().zip(order) {
        prompts[image] = line;
    }
    Ok(prompts)
}

/// Text and numbers by turns, as they are compared.
fn natural(name: &str) -> Vec<(String, Option<u128>)> {
    let mut parts = vec![];
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (before, after) = rest.split_at(text);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, tail) = after.split_at(digits);
        parts.push((before.to_lowercase(), number.parse().ok()));
        rest = tail;
    }
    parts
}

/// Rows that name an image by its path: the set's path, or the file's name if no other image has
/// it.
fn by_name(set: &ImageSet, file: &Path, rows: &[PromptRow]) -> Result<Vec<String>> {
    let mut by_path = HashMap::new();
    for PromptRow { text, row } in rows {
        let path = row.find(&PATH).and_then(Json::as_str);
        let path = path.ok_or_else(|| wrong(file, row, &format!("none of {PATH:?} is there")))?;
        if by_path.insert(path.to_owned(), text.clone()).is_some() {
            return Err(wrong(file, row, "a second row of this image").into());
        }
    }
    let mut by_last: HashMap<&str, Option<&String>> = HashMap::new(); // `None` of a name that several have
    for (path, prompt) in &by_path {
        by_last.entry(last(path)).and_modify(|p| *p = None).or_insert(Some(prompt));
    }
    let keys: Vec<String> = (0..set.len()).map(|i| set.key(i)).collect();
    let mut images: HashMap<&str, usize> = HashMap::new();
    keys.iter().for_each(|key| *images.entry(last(key)).or_default() += 1);
    let prompt = |key: &String| -> Result<String> {
        let alone = by_last.get(last(key)).copied().flatten().filter(|_| images[last(key)] == 1);
        let lacks = || {
            UserError::new(format!("`{}` has no prompt for `{key}`", file.display())).hint(
                "images are found by their paths as the set names them, or by file names that occur once",
            )
        };
        Ok(by_path.get(key).or(alone).ok_or_else(lacks)?.clone())
    };
    keys.iter().map(prompt).collect()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_numbers() {
        let mut names = ["b/10.png", "b/9.png", "a2", "A10", "b/9a.png"];
        names.sort_by_cached_key(|n| natural(n));
        assert_eq!(names, ["a2", "A10", "b/9.png", "b/9a.png", "b/10.png"]);
    }
}
