//! Files of prompts.

use std::path::Path;

use crate::table::{self, CAPTION, Content, Row};
use crate::{Error, Result};

/// A file of prompts, unmodified.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptFile {
    /// All its lines, blank ones included.
    Lines(Vec<String>),
    /// Rows of a table or of JSON, each with its prompt.
    Rows(Vec<PromptRow>),
}

/// A prompt and the row it is from, which may name an image.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRow {
    /// The prompt, trimmed.
    pub text: String,
    /// All cells of the row.
    pub row: Row,
}

impl PromptFile {
    /// Reads a file: rows with a column `prompt`, `caption` or `text`, else lines ([`table`] has
    /// the rules).
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or a row has no prompt.
    pub fn read(file: &Path) -> Result<Self> {
        match table::read(file, &CAPTION)? {
            Content::Lines(lines) => Ok(PromptFile::Lines(lines)),
            Content::Rows(rows) => {
                rows.into_iter().map(|row| prompt_row(file, row)).collect::<Result<_>>().map(PromptFile::Rows)
            }
        }
    }
}

fn prompt_row(file: &Path, row: Row) -> Result<PromptRow> {
    let found = row.caption().unwrap_or_else(|| {
        let have = row.columns().join(", ");
        Err(format!("no prompt: expected one of {}, found {have}", CAPTION.join(", ")))
    });
    let text = found.map_err(|e| Error::malformed(file, format!("line {}: {e}", row.line)))?;
    Ok(PromptRow { text, row })
}

/// The prompts of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompts {
    /// In their order, trimmed.
    pub texts: Vec<String>,
    /// Number of lines without text, which are left out.
    pub blank: usize,
    /// Column of the prompts in a table. Its header is not a prompt, although a first line of one
    /// such word may have been meant as one.
    pub column: Option<String>,
}

/// The prompts of a file, in their order: see [`PromptFile::read`].
///
/// # Errors
/// Returns an error if the file cannot be read, a row has no prompt, or there is none at all.
pub fn read_prompts(file: &Path) -> Result<Prompts> {
    let prompts = match PromptFile::read(file)? {
        PromptFile::Rows(rows) => {
            // In JSON there is no doubt.
            let first = rows.first().map(|first| &first.row).filter(|row| row.line > 1);
            let named = first.map(Row::columns).unwrap_or_default();
            let column = CAPTION.iter().find(|name| named.contains(name)).map(|name| (*name).to_owned());
            Prompts { texts: rows.into_iter().map(|row| row.text).collect(), blank: 0, column }
        }
        PromptFile::Lines(lines) => {
            let texts = lines.iter().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty());
            let texts: Vec<String> = texts.collect();
            Prompts { blank: lines.len() - texts.len(), texts, column: None }
        }
    };
    match prompts.texts.is_empty() {
        true => Err(Error::malformed(file, "it holds no prompt")),
        false => Ok(prompts),
    }
}

#[cfg(test)]
mod tests {
    use super::read_prompts;

    fn prompts(content: &[u8]) -> crate::Result<(Vec<String>, usize)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        read_prompts(file.path()).map(|p| (p.texts, p.blank))
    }

    #[test]
    fn a_header_is_told() {
        let column = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            read_prompts(file.path()).unwrap().column
        };
        assert_eq!(column("text\na dog\n").as_deref(), Some("text"));
        assert_eq!(column("logo,Text,wall\na,b,c\n").as_deref(), Some("text"));
        assert_eq!(column("a dog\ntext\n"), None);
        assert_eq!(column("{\"text\": \"a\"}\n"), None);
    }

    #[test]
    fn every_form_is_known_by_its_content() {
        let lines = prompts("\u{feff}a dog\n\n  a cat \n\na dog\n".as_bytes()).unwrap();
        assert_eq!(lines, (vec!["a dog".into(), "a cat".into(), "a dog".into()], 2));
        let parti = "Prompt\tCategory\tChallenge\tNote\n\"a\" dog\tAnimals\tBasic\t\n猫\tAnimals\tBasic\tx\n";
        assert_eq!(prompts(parti.as_bytes()).unwrap().0, ["\"a\" dog", "猫"]);
        let jsonl = "{\"prompt\": \"a \\u0000 dog\"}\n\n{\"text\": [\"blip\", \"llava\"]}\n";
        assert_eq!(prompts(jsonl.as_bytes()).unwrap().0, ["a \0 dog", "blip"]);
        for csv in ["id,Prompt\n1,a dog\n", "\u{feff}id;Prompt\r\n1;a dog\r\n"] {
            assert_eq!(prompts(csv.as_bytes()).unwrap().0, ["a dog"], "{csv}");
        }
        assert_eq!(prompts(b"a dog, a cat\na bird\n").unwrap().0, ["a dog, a cat", "a bird"]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        let error = |content: &[u8]| prompts(content).unwrap_err().to_string();
        assert!(error(b"a dog\na \xff cat\n").contains("line 2: not UTF-8"));
        assert!(error(b"{\"prompt\": \"a\"}\n{\"x\": 1}\n").contains("line 2: no prompt"));
        assert!(error(b"Prompt\tKind\n\tb\n").contains("line 2: no prompt"));
        assert!(error(b"{\"prompt\": \" \"}\n").contains("line 1: the caption is empty"));
        assert!(error(b"\n \n").contains("holds no prompt"));
    }
}
