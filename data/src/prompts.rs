//! Files of prompts.

use std::path::Path;

use crate::table::{self, CAPTION, Content};
use crate::{Error, Result};

/// Contents of a file of prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompts {
    /// In their order.
    pub texts: Vec<String>,
    /// Lines without text, which are left out.
    pub blank: usize,
    /// Column of the prompts in a table. Its header is not a prompt, although a first line of one
    /// such word may have been meant as one.
    pub column: Option<String>,
}

/// The prompts of a file: rows with a column `prompt`, `caption` or `text`, else a prompt a
/// line ([`table`] has the rules).
///
/// # Errors
/// Returns an error if the file cannot be read, a row has no prompt, or there is none at all.
pub fn read_prompts(file: &Path) -> Result<Prompts> {
    let mut column = None;
    let (texts, blank) = match table::read(file, &CAPTION)? {
        Content::Rows(rows) => {
            let prompt = |row: &table::Row| {
                let found = row.caption().unwrap_or_else(|| {
                    let have = row.columns().join(", ");
                    Err(format!("no prompt: expected one of {}, found {have}", CAPTION.join(", ")))
                });
                found.map_err(|e| Error::malformed(file, format!("line {}: {e}", row.line)))
            };
            // JSON is unambiguous.
            let named = rows.first().filter(|row| row.line > 1).map(table::Row::columns).unwrap_or_default();
            column = CAPTION.iter().find(|name| named.contains(name)).map(|name| (*name).to_owned());
            (rows.iter().map(prompt).collect::<Result<Vec<_>>>()?, 0)
        }
        Content::Lines(lines) => {
            let all = lines.len();
            let lines: Vec<String> =
                lines.iter().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect();
            let blank = all - lines.len();
            (lines, blank)
        }
    };
    if texts.is_empty() {
        return Err(Error::malformed(file, "it holds no prompt"));
    }
    Ok(Prompts { texts, blank, column })
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
