//! Class names: the ImageNet-1k table, `classes.tsv` files, and finding a class by what a person
//! types.

use std::path::Path;
use std::sync::OnceLock;

use base::hint::nearest;

use crate::{Error, Result, table};

/// A class with its label and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// The label.
    pub index: i64,
    /// The WordNet id, such as `n02099601`; empty if there is none.
    pub wnid: String,
    /// The name, such as `golden retriever`.
    pub name: String,
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Class { index, wnid, name } = self;
        if wnid.is_empty() { write!(f, "{index} {name}") } else { write!(f, "{index} {wnid} {name}") }
    }
}

/// A class and all its names, in lower case.
#[derive(Debug, Clone)]
struct Entry {
    class: Class,
    names: Vec<String>,
}

/// Classes that can be looked up by index, WordNet id or name.
#[derive(Debug, Clone)]
pub struct ClassTable {
    entries: Vec<Entry>,
    /// True if these are some of the ImageNet classes rather than all there are.
    subset: bool,
}

impl ClassTable {
    /// All 1,000 classes of ImageNet-1k (ILSVRC 2012), with their WordNet synonyms.
    pub fn imagenet() -> &'static ClassTable {
        static TABLE: OnceLock<ClassTable> = OnceLock::new();
        TABLE.get_or_init(|| {
            let text = include_str!("../assets/imagenet_classes.tsv");
            let entries =
                parse(text, Path::new("imagenet_classes.tsv")).expect("the committed table is valid");
            ClassTable { entries, subset: false }
        })
    }

    /// Only these classes, such as those a model was trained on. Where they are ImageNet's they
    /// keep all their names.
    pub fn of(classes: &[Class]) -> ClassTable {
        let entries = classes.iter().map(|c| Entry { class: c.clone(), names: names_of(c) }).collect();
        ClassTable { entries, subset: true }
    }

    /// Reads a `classes.tsv`: tab-separated, with a header that has the columns `index`, `wnid` and
    /// `name`.
    pub fn read(path: &Path) -> Result<ClassTable> {
        let text = table::read_text(path)?;
        let classes: Vec<Class> = parse(&text, path)?.into_iter().map(|e| e.class).collect();
        Ok(ClassTable::of(&classes))
    }

    /// The classes, in the table's order.
    pub fn classes(&self) -> impl ExactSizeIterator<Item = &Class> {
        self.entries.iter().map(|e| &e.class)
    }

    /// The class with this index.
    pub fn by_index(&self, index: i64) -> Option<&Class> {
        self.classes().find(|c| c.index == index)
    }

    /// The class with this WordNet id.
    pub fn by_wnid(&self, wnid: &str) -> Option<&Class> {
        self.classes().find(|c| !c.wnid.is_empty() && c.wnid.eq_ignore_ascii_case(wnid))
    }

    /// ImageNet-1k's class that a class of some data set is: the one with its WordNet id, else with
    /// its number and name (or a name that was only made of the number), else with its name.
    pub fn imagenet_of(class: &Class) -> Option<&'static Class> {
        let table = ClassTable::imagenet();
        if !class.wnid.is_empty() {
            return table.by_wnid(&class.wnid);
        }
        let named =
            |found: &&Class| class.name == found.name || class.name == format!("class {}", class.index);
        table.by_index(class.index).filter(named).or_else(|| table.resolve(&class.name).ok())
    }

    /// One class: an index (`207`), a WordNet id (`n02099601`) or any of its names (`golden
    /// retriever`), whatever the case.
    pub fn resolve(&self, word: &str) -> Result<&Class> {
        let word = word.trim();
        if let Ok(index) = word.parse::<i64>() {
            return self.by_index(index).ok_or_else(|| self.unknown(word));
        }
        if let Some(class) = self.by_wnid(word) {
            return Ok(class);
        }
        let lower = word.to_lowercase();
        // A class whose first name it is goes before classes that merely have it among their
        // synonyms.
        let first: Vec<&Class> =
            self.entries.iter().filter(|e| e.class.name.to_lowercase() == lower).map(|e| &e.class).collect();
        let any: Vec<&Class> =
            self.entries.iter().filter(|e| e.names.contains(&lower)).map(|e| &e.class).collect();
        let found = if first.is_empty() { any } else { first };
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(self.unknown(word)),
            several => Err(ambiguous(word, several)),
        }
    }

    /// Classes from a list such as `207`, `0-9,207,"golden retriever"` or `tench, goldfish`. Ranges
    /// include both ends. A name that holds a comma is put in quotes.
    pub fn resolve_list(&self, text: &str) -> Result<Vec<Class>> {
        let mut found = vec![];
        for item in split_list(text)? {
            match range(&item) {
                Some((from, to)) => found.extend(self.range(&item, from, to)?),
                None => found.push(self.resolve(&item)?.clone()),
            }
        }
        Ok(found)
    }

    fn range(&self, item: &str, from: i64, to: i64) -> Result<Vec<Class>> {
        if from > to {
            let message = format!("class range `{item}` runs backwards");
            return Err(Error::Class { message, hints: vec![format!("write `{to}-{from}`")] });
        }
        (from..=to).map(|i| self.resolve(&i.to_string()).cloned()).collect()
    }

    fn unknown(&self, word: &str) -> Error {
        let number = word.parse::<i64>().is_ok();
        let elsewhere = if self.subset { ClassTable::imagenet().resolve(word).ok() } else { None };
        let message = match elsewhere {
            Some(class) => format!("class {class} is not among the {} this model knows", self.entries.len()),
            None if number => format!("class index {word} is out of range: expected {}", self.index_range()),
            None => format!("no class is called `{word}`"),
        };
        let mut hints = vec![];
        if elsewhere.is_none() && !number {
            hints.extend(self.similar(word));
        }
        if self.subset {
            let all: Vec<String> = self.classes().map(|c| format!("{} {}", c.index, c.name)).collect();
            hints.push(format!("known: {}", all.join(", ")));
        }
        Error::Class { message, hints }
    }

    fn index_range(&self) -> String {
        let indices = || self.classes().map(|c| c.index);
        match (indices().min(), indices().max()) {
            (Some(a), Some(b)) if (b - a + 1) as usize == self.entries.len() => format!("{a} to {b}"),
            _ => format!("one of the {} indices this model knows", self.entries.len()),
        }
    }

    /// "did you mean …", with index and WordNet id.
    fn similar(&self, word: &str) -> Option<String> {
        let names = self
            .entries
            .iter()
            .flat_map(|e| e.names.iter().map(String::as_str).chain([e.class.wnid.as_str()]));
        let mut classes: Vec<&Class> = vec![];
        for name in nearest(word, names, 8) {
            let entry =
                self.entries.iter().find(|e| e.class.wnid == name || e.names.iter().any(|n| n == name))?;
            if !classes.contains(&&entry.class) {
                classes.push(&entry.class);
            }
        }
        classes.truncate(5);
        (!classes.is_empty()).then(|| format!("did you mean {}?", quoted(&classes, " or ")))
    }
}

fn ambiguous(word: &str, classes: &[&Class]) -> Error {
    let message = format!("{} classes are called `{word}`: {}", classes.len(), quoted(classes, ", "));
    Error::Class { message, hints: vec!["give the index or the WordNet id".into()] }
}

fn quoted(classes: &[&Class], separator: &str) -> String {
    classes.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(separator)
}

/// A class's names in lower case: its own, and ImageNet's synonyms if it is an ImageNet class.
fn names_of(class: &Class) -> Vec<String> {
    let mut names = vec![class.name.to_lowercase()];
    if !class.wnid.is_empty() {
        let twin = ClassTable::imagenet().entries.iter().find(|e| e.class.wnid == class.wnid);
        names.extend(twin.into_iter().flat_map(|e| e.names.clone()));
    }
    names
}

/// Rows of a class table; the columns are found by their header.
fn parse(text: &str, path: &Path) -> Result<Vec<Entry>> {
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines.next().map_or(vec![], |(_, l)| l.split('\t').collect());
    let column = |name: &str| {
        header.iter().position(|h| *h == name).ok_or_else(|| {
            Error::malformed(
                path,
                format!("expected a header `index<TAB>wnid<TAB>name`, found columns {header:?}"),
            )
        })
    };
    let (index, wnid, name) = (column("index")?, column("wnid")?, column("name")?);
    let synonyms = column("synonyms").ok();
    let mut entries: Vec<Entry> = vec![];
    for (i, line) in lines.filter(|(_, l)| !l.is_empty()) {
        let cells: Vec<&str> = line.split('\t').collect();
        let bad = |what: &str| Error::malformed(path, format!("line {}: {what}: {line:?}", i + 1));
        let cell = |c: usize| cells.get(c).copied().ok_or_else(|| bad("a column is missing"));
        let number = cell(index)?.parse().map_err(|_| bad("the index is not a number"))?;
        let class = Class { index: number, wnid: cell(wnid)?.into(), name: cell(name)?.into() };
        if entries.iter().any(|e| e.class.index == number) {
            return Err(bad("the index occurs twice"));
        }
        let more = synonyms.and_then(|c| cells.get(c)).into_iter().flat_map(|s| s.split(", "));
        let names = std::iter::once(class.name.to_lowercase()).chain(more.map(str::to_lowercase)).collect();
        entries.push(Entry { class, names });
    }
    if entries.is_empty() {
        return Err(Error::malformed(path, "it lists no classes"));
    }
    Ok(entries)
}

/// The text of a `classes.tsv` for these classes.
pub fn to_tsv(classes: &[Class]) -> String {
    let rows = classes.iter().map(|c| format!("{}\t{}\t{}\n", c.index, c.wnid, c.name));
    std::iter::once("index\twnid\tname\n".to_owned()).chain(rows).collect()
}

/// Items between commas outside quotes, trimmed and without their quotes.
fn split_list(text: &str) -> Result<Vec<String>> {
    let bad = |message: String| Error::Class {
        message,
        hints: vec!["for example 0-9,207,\"golden retriever\"".into()],
    };
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(text.as_bytes());
    let record = reader.records().next().transpose().map_err(|e| bad(format!("classes `{text}`: {e}")))?;
    let items: Vec<String> = record.iter().flatten().map(|s| s.trim_matches('"').trim().to_owned()).collect();
    if items.is_empty() || items.iter().any(String::is_empty) {
        return Err(bad(format!("an empty class in `{text}`")));
    }
    Ok(items)
}

/// `3-7` → (3, 7).
fn range(item: &str) -> Option<(i64, i64)> {
    let (a, b) = item.split_once('-')?;
    Some((a.trim().parse().ok()?, b.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Hint;

    #[test]
    fn a_class_is_found_by_index_wnid_and_any_name() {
        let table = ClassTable::imagenet();
        for word in ["207", "n02099601", "golden retriever", "Golden Retriever"] {
            assert_eq!(table.resolve(word).unwrap().index, 207, "{word}");
        }
        assert_eq!(table.resolve("Tinca tinca").unwrap().index, 0);
    }

    #[test]
    fn lists_and_ranges_keep_their_order() {
        let found = ClassTable::imagenet().resolve_list("2-4, 207,\"golden retriever\",tench").unwrap();
        assert_eq!(found.iter().map(|c| c.index).collect::<Vec<_>>(), [2, 3, 4, 207, 207, 0]);
        for bad in ["", "1,,2", "9-3", "0-1000"] {
            assert!(ClassTable::imagenet().resolve_list(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ambiguous_and_misspelled_names_list_candidates_with_index_and_wnid() {
        let e = ClassTable::imagenet().resolve("crane").unwrap_err().to_string();
        assert!(e.contains("134 n02012849") && e.contains("517 n03126707"), "{e}");
        let e = ClassTable::imagenet().resolve("goldn retreiver").unwrap_err();
        assert!(e.hints()[0].contains("`207 n02099601 golden retriever`"), "{:?}", e.hints());
        assert!(ClassTable::imagenet().resolve("1000").unwrap_err().to_string().contains("0 to 999"));
    }

    #[test]
    fn a_model_that_knows_some_classes_says_which() {
        let all = ClassTable::imagenet();
        let some = ["0", "207"].map(|w| all.resolve(w).unwrap().clone());
        let table = ClassTable::of(&some);
        assert_eq!(table.resolve("Tinca tinca").unwrap().index, 0);
        let e = table.resolve("goldfish").unwrap_err();
        assert!(e.to_string().contains("1 n01443537 goldfish"), "{e}");
        assert!(e.hints()[0].contains("0 tench, 207 golden retriever"), "{:?}", e.hints());
    }

    #[test]
    fn written_tables_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classes.tsv");
        let classes = vec![ClassTable::imagenet().by_index(5).unwrap().clone()];
        std::fs::write(&path, to_tsv(&classes)).unwrap();
        let back: Vec<Class> = ClassTable::read(&path).unwrap().classes().cloned().collect();
        assert_eq!(back, classes);
        std::fs::write(&path, "id\tname\n1\tx\n").unwrap();
        assert!(ClassTable::read(&path).unwrap_err().to_string().contains("header"));
    }
}
