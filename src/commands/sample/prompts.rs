//! `--prompt` and `--prompts FILE`.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value as Json;

use super::subject::{Prompt, Subject};
use crate::commands::Context;
use crate::failure::Failure;

/// Names under which a table or JSON holds a prompt; PartiPrompts has `Prompt`.
const COLUMNS: [&str; 4] = ["prompt", "Prompt", "text", "caption"];

/// The prompts that were typed, then those of the file, in their order. A prompt that occurs twice is two prompts.
pub fn gather(typed: &[String], file: Option<&Path>, context: &Context) -> Result<Vec<Subject>> {
    let mut all = typed.to_vec();
    if let Some(file) = file {
        let (prompts, blank) = read(file)?;
        if blank > 0 {
            let lines = if blank == 1 { "line" } else { "lines" };
            context.printer.note(&format!("`{}`: {blank} blank {lines} left out", file.display()));
        }
        all.extend(prompts);
    }
    let prompt = |(place, text)| Subject::Prompt(Prompt { text, place });
    Ok(all.into_iter().enumerate().map(prompt).collect())
}

/// The prompts of a file, and how many blank lines it has: JSON lines with `prompt`, `text` or `caption`; a table,
/// separated by tabs, with such a column; else a prompt a line.
pub fn read(file: &Path) -> Result<(Vec<String>, usize)> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Failure::new(format!("`{}`, line {line}: not UTF-8 text", file.display()))
            .hint("save the file as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).collect();
    let blank = text.lines().count() - lines.len();
    let prompts = match lines.first() {
        Some((_, first)) if first.trim_start().starts_with('{') => json_lines(file, &lines)?,
        Some((_, first)) if first.contains('\t') => table(file, &lines)?,
        _ => lines.iter().map(|(_, line)| line.trim().to_owned()).collect(),
    };
    if prompts.is_empty() {
        return Err(Failure::new(format!("`{}` holds no prompt", file.display())).into());
    }
    Ok((prompts, blank))
}

fn json_lines(file: &Path, lines: &[(usize, &str)]) -> Result<Vec<String>> {
    let one = |&(i, line): &(usize, &str)| {
        let wrong = |why: String| Failure::new(format!("`{}`, line {}: {why}", file.display(), i + 1));
        let row: Json = serde_json::from_str(line).map_err(|e| wrong(format!("not a JSON object: {e}")))?;
        let found = COLUMNS.iter().find_map(|name| row.get(name));
        let text = found.and_then(|v| v.as_str().or_else(|| v.get(0).and_then(Json::as_str)));
        let known = COLUMNS.join(", ");
        Ok(text.ok_or_else(|| wrong(format!("no prompt: expected one of {known}")))?.to_owned())
    };
    lines.iter().map(one).collect()
}

/// Cells hold no tabs and no line breaks, and quotes are part of the text, as in PartiPrompts' file.
fn table(file: &Path, lines: &[(usize, &str)]) -> Result<Vec<String>> {
    let header: Vec<&str> = lines[0].1.split('\t').map(str::trim).collect();
    let column = COLUMNS.iter().find_map(|name| header.iter().position(|h| h == name)).ok_or_else(|| {
        Failure::new(format!(
            "`{}` has no column of prompts; its columns: {}",
            file.display(),
            header.join(", ")
        ))
        .hint(format!("name one of them {}", COLUMNS.join(", ")))
    })?;
    let one = |&(i, line): &(usize, &str)| {
        let cell = line.split('\t').nth(column).map(str::trim).filter(|cell| !cell.is_empty());
        let missing = || Failure::new(format!("`{}`, line {}: it has no prompt", file.display(), i + 1));
        Ok(cell.ok_or_else(missing)?.to_owned())
    };
    lines[1..].iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::read;

    fn prompts(content: &[u8]) -> anyhow::Result<(Vec<String>, usize)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        read(file.path())
    }

    #[test]
    fn every_form_is_known_by_its_content() {
        let lines = prompts("\u{feff}a dog\n\n  a cat \n\na dog\n".as_bytes()).unwrap();
        assert_eq!(lines, (vec!["a dog".into(), "a cat".into(), "a dog".into()], 2));
        let parti = "Prompt\tCategory\tChallenge\tNote\n\"a\" dog\tAnimals\tBasic\t\n猫\tAnimals\tBasic\tx\n";
        assert_eq!(prompts(parti.as_bytes()).unwrap().0, ["\"a\" dog", "猫"]);
        let jsonl = "{\"prompt\": \"a \\u0000 dog\"}\n\n{\"text\": [\"blip\", \"llava\"]}\n";
        assert_eq!(prompts(jsonl.as_bytes()).unwrap().0, ["a \0 dog", "blip"]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        let error = |content: &[u8]| prompts(content).unwrap_err().to_string();
        assert!(error(b"a dog\na \xff cat\n").contains("line 2: not UTF-8"));
        assert!(error(b"{\"prompt\": \"a\"}\n{\"x\": 1}\n").contains("line 2: no prompt"));
        assert!(error(b"Name\tKind\na\tb\n").contains("no column of prompts"));
        assert!(error(b"Prompt\tKind\n\tb\n").contains("line 2: it has no prompt"));
        assert!(error(b"\n \n").contains("holds no prompt"));
    }
}
