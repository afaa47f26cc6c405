//! Prompts of images: from the data set, from a file beside the images, or from the images
//! themselves.

mod file;

use std::path::Path;

use anyhow::Result;
use data::Target;
use data::table::CAPTION;
use eval::ImageSet;
use serde_json::Value as Json;

use self::file::from_file;
use super::texts;
use crate::context::Context;
use crate::error::UserError;

/// Files of prompts in a folder of images, or beside it: LlamaGen's and GigaGAN's layouts, then
/// GenEval's.
const BESIDE: [&str; 3] = ["captions.txt", "result.jsonl", "metadata.jsonl"];
/// Keywords of PNG text that hold a prompt as it is.
const KEYWORDS: [&str; 3] = ["prompt", "Description", "caption"];

/// Attaches a prompt to each image: from `given`, else from the data set's captions, else from a
/// file beside the images, else from the PNGs' text chunks.
pub fn attach(set: ImageSet, given: Option<&Path>, context: &Context) -> Result<ImageSet> {
    let (prompts, from) = find(&set, given)?;
    context.printer.note(&format!("prompts: {from}"));
    Ok(set.with_prompts(prompts))
}

fn find(set: &ImageSet, given: Option<&Path>) -> Result<(Vec<String>, String)> {
    if let Some(file) = given {
        return Ok((from_file(set, file)?, format!("`{}`", file.display())));
    }
    let captions = |i| match set.target(i) {
        Target::Caption(text) => Some(text),
        _ => None,
    };
    if let Some(all) = (0..set.len()).map(captions).collect::<Option<Vec<String>>>() {
        return Ok((all, "the data set's captions".into()));
    }
    let folders = set.path.is_dir().then(|| [Some(set.path.as_path()), set.path.parent()]);
    let beside = folders.into_iter().flatten().flatten().flat_map(|dir| BESIDE.map(|name| dir.join(name)));
    if let Some(file) = beside.into_iter().find(|file| file.is_file()) {
        return Ok((from_file(set, &file)?, format!("`{}`", file.display())));
    }
    match embedded(set)? {
        Some(all) => Ok((all, "the images' own text".into())),
        None => Err(none(set).into()),
    }
}

fn none(set: &ImageSet) -> UserError {
    UserError::new(format!("`{}` has no prompts, which clip_score compares images with", set.path.display()))
        .hint(format!(
            "looked for: captions of the data set, {} in the folder or beside it, text in the PNGs",
            BESIDE.join(", ")
        ))
        .hint("`--captions FILE` names a file: a line for each image in order, or JSON lines with path and text")
}

/// Prompts in PNGs' text chunks; `None` unless all have one.
fn embedded(set: &ImageSet) -> Result<Option<Vec<String>>> {
    if !set.path.is_dir() {
        return Ok(None);
    }
    let mut all = vec![];
    for i in 0..set.len() {
        match text_of(&set.path.join(set.key(i)))? {
            Some(prompt) => all.push(prompt),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

/// The prompt in a PNG's head: a text of its own, or in what `gen sample` keeps.
fn text_of(path: &Path) -> Result<Option<String>> {
    let texts = texts::of_png(path)?;
    if let Some(text) = KEYWORDS.iter().find_map(|k| texts.get(*k)) {
        return Ok(Some(text.clone()));
    }
    let own: Option<Json> = texts.get("gen:sample").and_then(|t| serde_json::from_str(t).ok());
    Ok(own.and_then(|json| CAPTION.iter().find_map(|p| json[*p].as_str()).map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use generate::Picture;

    fn picture(path: &Path, texts: &[(&str, String)]) {
        let plain = Picture { width: 1, height: 1, rgb: vec![7; 3] };
        plain.write_png(path, texts).unwrap();
    }

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("images")).unwrap();
        names.iter().for_each(|n| picture(&dir.path().join("images").join(n), &[]));
        dir
    }

    fn prompts(dir: &Path, given: Option<&Path>) -> Result<Vec<String>> {
        let context = Context::alone(crate::printer::Printer::new(true));
        Ok(find(&crate::commands::eval::images::open(&dir.join("images"), None, &context)?, given)?.0)
    }

    #[test]
    fn lines_follow_the_natural_order_and_rows_the_names() {
        let dir = folder(&["2.png", "10.png", "9.png"]); // read as 10, 2, 9
        std::fs::write(dir.path().join("captions.txt"), "two\nnine\nten\n").unwrap();
        assert_eq!(prompts(dir.path(), None).unwrap(), ["ten", "two", "nine"]);
        let rows = "{\"prompt\": \"Z\", \"path\": \"elsewhere/10.png\"}\n\n\
                    {\"prompt\": \"B\", \"path\": \"2.png\"}\n{\"prompt\": \"N\", \"path\": \"9.png\"}\n";
        let file = dir.path().join("rows.jsonl");
        std::fs::write(&file, rows).unwrap();
        assert_eq!(prompts(dir.path(), Some(&file)).unwrap(), ["Z", "B", "N"]);
        std::fs::write(&file, "{\"prompt\": \"B\", \"path\": \"2.png\"}\n").unwrap();
        let e = prompts(dir.path(), Some(&file)).unwrap_err().to_string();
        assert!(e.contains("no prompt for `10.png`"), "{e}");
        // A byte-order mark is no part of the text, and a table is none.
        std::fs::write(&file, "\u{feff}path,prompt\n2.png,B\n9.png,N\n10.png,\"Z, or z\"\n").unwrap();
        assert_eq!(prompts(dir.path(), Some(&file)).unwrap(), ["Z, or z", "B", "N"]);
        std::fs::write(&file, "\u{feff}two\nnine\nten\n").unwrap();
        assert_eq!(prompts(dir.path(), Some(&file)).unwrap(), ["ten", "two", "nine"]);
        std::fs::write(&file, "{\"prompt\": 3, \"path\": \"2.png\"}\n").unwrap();
        assert!(prompts(dir.path(), Some(&file)).unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn a_pngs_own_text_is_a_prompt() {
        let dir = folder(&[]);
        let at = |name: &str| dir.path().join("images").join(name);
        picture(&at("a.png"), &[("prompt", "a lion".into())]);
        picture(&at("b.png"), &[("gen:sample", "{\"prompt\": \"the sea\"}".into())]);
        assert_eq!(prompts(dir.path(), None).unwrap(), ["a lion", "the sea"]);
        picture(&at("c.png"), &[("Software", "gen".into())]);
        assert!(prompts(dir.path(), None).unwrap_err().to_string().contains("has no prompts"));
    }
}
