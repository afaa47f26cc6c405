//! Files of a crate do not import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module's path within its crate; the root's is empty.
type Module = Vec<String>;

/// A file as its `use` lines show it, paths from the crate's root.
#[derive(Debug, Default)]
struct Imports {
    used: Vec<Module>,
    /// Names that `pub use` gives away, and where they are from.
    exported: BTreeMap<String, Module>,
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = entries(&root.join("crates")).chain(entries(root)).chain([root.to_owned()]);
    for dir in crates.filter(|dir| dir.join("src").is_dir() && dir.join("Cargo.toml").is_file()) {
        let name = dir.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let found = circles(&dir.join("src"));
        assert!(found.is_empty(), "`{name}`: circles of imports: {found:?}");
    }
}

/// Entries of a folder.
fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path())
}

/// Pairs of files, each of which leads to the other.
fn circles(src: &Path) -> Vec<(String, String)> {
    let mut files = BTreeMap::new();
    read(src, &vec![], &mut files);
    let known: BTreeSet<Module> = files.keys().cloned().collect();
    let imports: BTreeMap<Module, Imports> =
        files.iter().map(|(module, text)| (module.clone(), parse(module, text, &known))).collect();
    let edges: BTreeMap<&Module, BTreeSet<Module>> = imports
        .iter()
        .map(|(module, file)| {
            let to = file.used.iter().map(|path| resolve(path, &imports, 0));
            (module, to.filter(|to| to != module).collect())
        })
        .collect();
    let pairs = edges.iter().flat_map(|(from, to)| to.iter().map(move |to| (*from, to)));
    let circular = pairs.filter(|(from, to)| leads(to, from, &edges, &mut BTreeSet::new()));
    circular.map(|(from, to)| (from.join("::"), to.join("::"))).collect()
}

fn leads(
    from: &Module,
    to: &Module,
    edges: &BTreeMap<&Module, BTreeSet<Module>>,
    seen: &mut BTreeSet<Module>,
) -> bool {
    from == to
        || seen.insert(from.clone())
            && edges.get(from).is_some_and(|next| next.iter().any(|n| leads(n, to, edges, seen)))
}

/// Text of each module without its tests and comments.
fn read(dir: &Path, at: &Module, files: &mut BTreeMap<Module, String>) {
    for path in entries(dir) {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let child = || at.iter().cloned().chain([stem.clone()]).collect::<Module>();
        if path.is_dir() {
            read(&path, &child(), files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
            let root = at.is_empty() && (stem == "lib" || stem == "main");
            let module = if root || stem == "mod" { at.clone() } else { child() };
            files.insert(module, code.join("\n"));
        }
    }
}

fn parse(module: &Module, text: &str, known: &BTreeSet<Module>) -> Imports {
    let mut imports = Imports::default();
    for statement in text.split(';') {
        let mut uses = statement.match_indices("use ").map(|(at, _)| (at, same_line(&statement[..at])));
        let Some((at, before)) = uses.find(|(_, b)| b.is_empty() || is_pub(b)) else { continue };
        for path in expand(&statement[at + 4..]) {
            let Some(path) = absolute(module, &path, known) else { continue };
            match (is_pub(before), path.last()) {
                (true, Some(name)) => drop(imports.exported.insert(name.clone(), path)),
                _ => imports.used.push(path),
            }
        }
    }
    imports
}

/// Text before, on the last line.
fn same_line(before: &str) -> &str {
    before.rsplit('\n').next().unwrap_or("").trim()
}

fn is_pub(word: &str) -> bool {
    word == "pub" || word.starts_with("pub(") && word.ends_with(')')
}

/// The paths of a tree `a::{b, c::{d}}`.
fn expand(tree: &str) -> Vec<Module> {
    let Some((prefix, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or("").trim();
        return vec![path.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let prefix: Module =
        prefix.split("::").map(str::trim).filter(|p| !p.is_empty()).map(Into::into).collect();
    let body = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in body.chars() {
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            _ => parts.last_mut().expect("one at least").push(c),
        }
        depth += i32::from(c == '{') - i32::from(c == '}');
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expand(part)).map(|path| prefix.iter().cloned().chain(path).collect()).collect()
}

/// A path from the crate's root; `None` for another crate's.
fn absolute(module: &Module, path: &Module, known: &BTreeSet<Module>) -> Option<Module> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let below = |base: &[String], rest: &[String]| base.iter().chain(rest).cloned().collect::<Module>();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some(below(module, &path[1..])),
        "super" => Some(below(&module[..module.len() - supers], &path[supers..])),
        first if known.contains(&below(module, &[first.to_owned()])) => Some(below(module, path)),
        _ => None,
    }
}

/// The file that a path leads to, through what others re-export.
fn resolve(path: &Module, imports: &BTreeMap<Module, Imports>, depth: usize) -> Module {
    let known = (0..=path.len()).rev().find(|n| imports.contains_key(&path[..*n])).unwrap_or(0);
    let file = path[..known].to_vec();
    let exported = path.get(known).and_then(|name| imports.get(&file)?.exported.get(name));
    match exported {
        Some(from) if from != path && depth < 5 => resolve(from, imports, depth + 1),
        _ => file,
    }
}
