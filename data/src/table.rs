//! Text files of rows: lists of images, captions, prompts. One set of rules for all of them.
//!
//! - UTF-8; a byte-order mark is not part of the text.
//! - JSON lines, where the first line with text begins with `{`.
//! - A table, where the first line has a column of a known name, whatever its case, between commas,
//!   semicolons or tabs. Of commas and semicolons quotes are CSV's. Of tabs they are part of the
//!   text, but where a cell is quoted whole. No cell holds a line break: a quote that is never
//!   closed would swallow the rows behind it.
//! - Lines, else.

use std::path::Path;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Columns that hold an image's path.
pub const PATH: [&str; 8] =
    ["path", "image_path", "image", "file_name", "filename", "filepath", "file_path", "file"];
/// Columns that hold a class index.
pub const CLASS: [&str; 3] = ["class", "label", "class_index"];
/// Columns that hold a caption or a prompt.
pub const CAPTION: [&str; 3] = ["prompt", "caption", "text"];

const DELIMITERS: [char; 3] = ['\t', ';', ','];
const BYTE_ORDER_MARK: char = '\u{feff}';

/// One row of a table, or one line of JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its line in the file, from 1.
    pub line: usize,
    cells: Map<String, Value>, // keys in lower case
}

impl Row {
    /// The value of the first of these columns that the row has.
    pub fn find(&self, names: &[&str]) -> Option<&Value> {
        names.iter().find_map(|name| self.cells.get(*name))
    }

    /// A caption or prompt, if there is one: a text, or the first of a list (LlamaGen's [BLIP,
    /// LLaVA, …]).
    pub fn caption(&self) -> Option<std::result::Result<String, String>> {
        let value = self.find(&CAPTION)?;
        let text = value.as_str().or_else(|| value.get(0).and_then(Value::as_str)).map(str::trim);
        Some(match text {
            Some("") => Err("the caption is empty".into()),
            Some(text) => Ok(text.to_owned()),
            None => Err(format!("expected a caption, found {}", shortened(&value.to_string()))),
        })
    }

    /// The names of its columns.
    pub fn columns(&self) -> Vec<&str> {
        self.cells.keys().map(String::as_str).collect()
    }
}

/// Contents of a text file.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Rows with named columns.
    Rows(Vec<Row>),
    /// All lines as they are.
    Lines(Vec<String>),
}

/// Reads a text file, without its byte-order mark.
///
/// # Errors
/// Returns an error if the file cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::read(path))?;
    text_of(bytes).map_err(|e| Error::malformed(path, e))
}

/// Bytes as text, without a byte-order mark.
pub(crate) fn text_of(bytes: Vec<u8>) -> std::result::Result<String, String> {
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err("UTF-16 text; save it as UTF-8".into());
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        format!("line {}: not UTF-8 text", good.iter().filter(|b| **b == b'\n').count() + 1)
    })?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_owned).unwrap_or(text))
}

/// A caption file's text: one caption.
pub(crate) fn caption_of(bytes: Vec<u8>) -> std::result::Result<String, String> {
    match text_of(bytes)?.trim() {
        "" => Err("the caption is empty".into()),
        text => Ok(text.to_owned()),
    }
}

/// Text found, for a message of one line: the end of a long one is cut off.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A class index as text, or as a number of JSON.
pub(crate) fn class_of(text: &str) -> std::result::Result<i64, String> {
    let index = text.trim().parse().ok().filter(|n| *n >= 0);
    index.ok_or_else(|| format!("expected a class index, found {}", shortened(&format!("{text:?}"))))
}

/// Reads a file whose tables have one of the columns `known`.
///
/// # Errors
/// Returns an error if the file cannot be read, a line is not like the others, or a `.csv` or
/// `.tsv` has none of the columns.
pub fn read(path: &Path, known: &[&str]) -> Result<Content> {
    parse(&read_text(path)?, path, known)
}

/// The content of a file's text.
pub(crate) fn parse(text: &str, path: &Path, known: &[&str]) -> Result<Content> {
    let first = text.lines().enumerate().find(|(_, line)| !line.trim().is_empty());
    let Some((at, first)) = first else {
        return Ok(Content::Lines(text.lines().map(str::to_owned).collect()));
    };
    if is_json(first) {
        return json_lines(text, path).map(Content::Rows);
    }
    let suffix = path.extension().map(|e| e.to_ascii_lowercase());
    let named_table = suffix.is_some_and(|e| e == "csv" || e == "tsv");
    if let Some(delimiter) = header(first, known, named_table) {
        return table(text, at, delimiter, path).map(Content::Rows);
    }
    if named_table {
        let found = first.chars().take(200).collect::<String>();
        let message = format!("no header with one of the columns {}; it begins {found:?}", known.join(", "));
        return Err(Error::malformed(path, message));
    }
    Ok(Content::Lines(text.lines().map(str::to_owned).collect()))
}

/// True if a text that begins like this holds rows.
pub(crate) fn has_rows(head: &str, known: &[&str]) -> bool {
    let head = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head);
    let first = head.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    is_json(first) || header(first, known, false).is_some()
}

fn is_json(first: &str) -> bool {
    first.trim_start().starts_with('{')
}

/// The delimiter of a header that has one of the columns. In a file that is not named like a table,
/// a line of several words between two commas is a prompt rather than a header ("a logo, text, on a
/// wall").
fn header(line: &str, known: &[&str], named_table: bool) -> Option<char> {
    let name = |cell: &str| column(cell.trim().trim_matches('"'));
    let fits = |d: &char| {
        let names: Vec<String> = line.split(*d).map(name).collect();
        let words = *d == '\t' || named_table || names.iter().all(|n| !n.contains(char::is_whitespace));
        words && names.iter().any(|n| known.contains(&n.as_str()))
    };
    DELIMITERS.into_iter().filter(fits).max_by_key(|d| line.matches(*d).count())
}

fn column(name: &str) -> String {
    name.trim().to_lowercase()
}

/// The cells of a line of JSON, by their names in lower case; none may come twice.
struct Cells(Map<String, Value>);

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Cells;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Cells, A::Error> {
                let mut cells = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    let name = column(&key);
                    if cells.insert(name.clone(), value).is_some() {
                        return Err(serde::de::Error::custom(format!("it has `{}` twice", shortened(&name))));
                    }
                }
                Ok(Cells(cells))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

fn json_lines(text: &str, path: &Path) -> Result<Vec<Row>> {
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    let row = |(i, line): (usize, &str)| match serde_json::from_str::<Cells>(line) {
        Ok(Cells(cells)) => Ok(Row { line: i + 1, cells }),
        Err(e) => Err(Error::malformed(path, format!("line {}: not a JSON object: {e}", i + 1))),
    };
    lines.map(row).collect()
}

/// Rows below a header in line `at` (from 0).
fn table(text: &str, at: usize, delimiter: char, path: &Path) -> Result<Vec<Row>> {
    let bad = |line: usize, e: String| Error::malformed(path, format!("line {line}: {e}"));
    let mut rows = if delimiter == '\t' { by_tabs(text) } else { by_csv(text, delimiter, path)? };
    let names: Vec<String> = rows.remove(0).1.iter().map(|name| column(name)).collect();
    if let Some(twice) = names.iter().enumerate().find(|(i, n)| !n.is_empty() && names[..*i].contains(n)) {
        return Err(bad(at + 1, format!("two columns are called `{}`", twice.1)));
    }
    let row = |(line, cells): (usize, Vec<String>)| {
        if cells.len() != names.len() {
            return Err(bad(line, format!("{} cells, but {} columns", cells.len(), names.len())));
        }
        if cells.iter().any(|cell| cell.contains(['\n', '\r'])) {
            let why = "a cell that begins with a quote runs over several lines: write `\"\"` for a quote in a cell, and \
                       JSON lines for texts with line breaks";
            return Err(bad(line, why.into()));
        }
        let cells = names.iter().zip(cells).filter(|(_, cell)| !cell.trim().is_empty());
        Ok(Row { line, cells: cells.map(|(name, cell)| (name.clone(), Value::from(cell))).collect() })
    };
    rows.into_iter().map(row).collect()
}

type Rows = Vec<(usize, Vec<String>)>;

fn by_tabs(text: &str) -> Rows {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(i, line)| (i + 1, line.split('\t').map(unquoted).collect())).collect()
}

/// `"a ""red"" car"` → `a "red" car`; any other cell as it is.
fn unquoted(cell: &str) -> String {
    let inside = cell.strip_prefix('"').and_then(|c| c.strip_suffix('"'));
    let whole = inside.filter(|inside| !inside.replace("\"\"", "").contains('"'));
    whole.map_or_else(|| cell.to_owned(), |inside| inside.replace("\"\"", "\""))
}

fn by_csv(text: &str, delimiter: char, path: &Path) -> Result<Rows> {
    // The last line's end shows a quote that is not closed in it.
    let ended = format!("{text}\n");
    let mut reader = csv::ReaderBuilder::new();
    let mut reader =
        reader.delimiter(delimiter as u8).has_headers(false).flexible(true).from_reader(ended.as_bytes());
    let mut rows = vec![];
    for row in reader.records() {
        let row = row.map_err(|e| Error::malformed(path, e.to_string()))?;
        // The reader's position may be before blank lines.
        let line = row.position().map_or(0, |p| {
            let rest = &ended.as_bytes()[p.byte() as usize..];
            let blank =
                rest.iter().take_while(|b| matches!(b, b'\n' | b'\r')).filter(|b| **b == b'\n').count();
            p.line() as usize + blank
        });
        let cells: Vec<String> = row.iter().map(str::to_owned).collect();
        if cells.iter().any(|cell| !cell.trim().is_empty()) {
            rows.push((line, cells));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, text: &str) -> Result<Vec<Row>> {
        match parse(text, Path::new(name), &PATH)? {
            Content::Rows(rows) => Ok(rows),
            Content::Lines(lines) => panic!("{name}: {lines:?}"),
        }
    }

    fn error(name: &str, text: &str) -> String {
        rows(name, text).unwrap_err().to_string()
    }

    #[test]
    fn a_header_is_seen_behind_any_delimiter_in_any_case_and_however_long() {
        let names: String = (0..500).map(|i| format!("attribute_{i},")).collect();
        let wide = format!("{names}path\n{}a.png\n", "1,".repeat(500));
        for text in [
            "path,label\na.png,1\n",
            "Path;label\na.png;1",
            "\"FILENAME\"\tlabel\na.png\t1\n",
            "\n\nfile_path,x\n\na.png,1\n",
            "{\"Image\": \"a.png\"}",
            &wide,
        ] {
            let found = rows("list", text).unwrap();
            assert_eq!(found[0].find(&PATH).and_then(Value::as_str), Some("a.png"), "{text}");
            assert_eq!(found.len(), 1);
        }
        assert!(error("l.csv", "id,url\n1,x\n").contains("no header with one of the columns path"));
        assert!(error("l.csv", "path,a,a\n1,2,3\n").contains("two columns are called `a`"));
        assert!(error("l.jsonl", "{\"path\": \"a\", \"Path\": \"b\"}").contains("it has `path` twice"));
        assert!(error("l.csv", "path,a\n\n1,2,3\n").contains("line 3: 3 cells, but 2 columns"));
        assert!(matches!(parse("a dog, and a path\n", Path::new("p.txt"), &PATH), Ok(Content::Lines(_))));
    }

    #[test]
    fn no_quote_swallows_rows() {
        let tsv = "path\tcaption\na.png\t\"a\" dog\nb.png\t\"never closed\nc.png\t\"a \"\"red\"\" car\"\nd.png\t5\"\n";
        let captions: Vec<String> =
            rows("l.tsv", tsv).unwrap().iter().map(|r| r.caption().unwrap().unwrap()).collect();
        assert_eq!(captions, ["\"a\" dog", "\"never closed", "a \"red\" car", "5\""]);
        let csv = rows("l.csv", "path,caption\na.png,\"a, \"\"red\"\" car\"\nb.png,5\" disk\n").unwrap();
        assert_eq!(csv[0].caption().unwrap().unwrap(), "a, \"red\" car");
        assert_eq!(csv[1].caption().unwrap().unwrap(), "5\" disk");
        for open in ["path,caption\na.png,\"a\nb.png,b\n", "path,caption\na.png,a\nb.png,\"b"] {
            assert!(error("l.csv", open).contains("runs over several lines"), "{open}");
        }
    }

    #[test]
    fn marks_and_encodings_are_told() {
        assert_eq!(text_of(b"\xEF\xBB\xBFa dog".to_vec()).unwrap(), "a dog");
        assert!(text_of(b"\xFF\xFEa\0".to_vec()).unwrap_err().contains("UTF-16"));
        assert!(text_of(b"a\nb \xFF\n".to_vec()).unwrap_err().contains("line 2"));
        assert!(caption_of(b"\xEF\xBB\xBF \n".to_vec()).is_err());
        assert_eq!(class_of(" 7\n"), Ok(7));
        assert!(class_of("-1").is_err() && class_of("dog").is_err());
        assert!(class_of(&"3".repeat(200_000)).unwrap_err().len() < 300);
    }
}
