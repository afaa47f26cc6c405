//! The rules of the workspace that the compiler does not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Who may depend on whom: an arrow added is an arrow decided.
const MAY_USE: [(&str, &[&str]); 22] = [
    ("libtorch-ext", &[]),
    ("cpu-kernels", &[]),
    ("libjpeg", &[]),
    ("cuda-kernels", &["libtorch-ext"]),
    // What is known before libtorch is loaded: neither may lead to it.
    ("settings", &[]),
    ("cli", &["settings"]),
    ("base", &["settings", "libtorch-ext"]),
    ("nn", &["base", "libtorch-ext", "cpu-kernels", "cuda-kernels"]),
    ("dist", &["base", "settings", "libtorch-ext"]),
    ("weights", &["base", "libtorch-ext"]),
    ("data", &["base", "libjpeg", "libtorch-ext"]),
    // `backbones` for a frozen vision network beside the encoder.
    ("tokenizer", &["nn", "base", "weights", "libtorch-ext", "backbones"]),
    ("ar-model", &["nn", "base", "libtorch-ext", "weights", "cpu-kernels", "cuda-kernels"]),
    (
        "sampler",
        &["settings", "base", "libtorch-ext", "ar-model", "tokenizer", "cpu-kernels", "cuda-kernels"],
    ),
    // `data` for Pillow's resampling, which the networks' input paths ask for.
    ("backbones", &["nn", "base", "weights", "data"]),
    ("eval", &["settings", "base", "weights", "backbones", "data", "dist"]),
    (
        "generate",
        &[
            "settings",
            "base",
            "libtorch-ext",
            "cuda-kernels",
            "weights",
            "data",
            "dist",
            "tokenizer",
            "ar-model",
            "sampler",
            "backbones",
        ],
    ),
    ("engine", &["settings", "base", "libtorch-ext", "data", "tokenizer", "ar-model", "sampler", "generate"]),
    // The engine decides on images; `generate` for pictures and their provenance.
    ("server", &["settings", "base", "data", "engine", "generate"]),
    (
        "benchmarks",
        &["settings", "base", "data", "tokenizer", "ar-model", "sampler", "backbones", "generate"],
    ),
    (
        "train",
        &["nn", "base", "libtorch-ext", "weights", "data", "dist", "tokenizer", "ar-model", "backbones"],
    ),
    (
        "gen",
        &[
            "settings",
            "cli",
            "base",
            "dist",
            "libtorch-ext",
            "cpu-kernels",
            "cuda-kernels",
            "weights",
            "data",
            "tokenizer",
            "ar-model",
            "sampler",
            "backbones",
            "eval",
            "generate",
            "engine",
            "server",
            "benchmarks",
            "train",
        ],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn members() -> Vec<Package> {
    let mut command = MetadataCommand::new();
    command.current_dir(root()).no_deps().other_options(["--offline".to_owned()]);
    command.exec().expect("cargo reads this workspace").packages
}

/// Plain `cargo test` and `cargo clippy` leave out the crates that are no default members.
#[test]
fn all_crates_are_checked_by_default() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let names = |packages: Vec<&Package>| {
        let mut names: Vec<String> = packages.into_iter().map(|p| p.name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(metadata.workspace_packages()), names(metadata.workspace_default_packages()));
}

#[test]
fn crates_depend_only_on_what_the_table_allows() {
    let members = members();
    let ours: BTreeSet<&str> = members.iter().map(|p| p.name.as_str()).collect();
    let table: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    assert_eq!(ours, table.keys().copied().collect(), "a crate was added or removed: decide its arrows");
    for package in &members {
        let allowed = table[package.name.as_str()];
        for dependency in &package.dependencies {
            // Tests may also use what they like.
            let used =
                dependency.kind != DependencyKind::Development && ours.contains(dependency.name.as_str());
            assert!(
                !used || allowed.contains(&dependency.name.as_str()),
                "`{}` must not depend on `{}`",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn every_crate_takes_part_in_the_workspaces_lints() {
    for package in members() {
        let text = std::fs::read_to_string(&package.manifest_path).unwrap();
        let denies = text.contains("[lints]\nworkspace = true") || text.contains("unsafe_code = \"deny\"");
        assert!(denies, "`{}` has no lints", package.name);
        assert_eq!(package.publish, Some(vec![]), "`{}` must not be published", package.name);
    }
}

#[test]
fn unsafe_code_is_in_three_crates() {
    let homes = ["crates/libjpeg", "crates/libtorch-ext", "crates/cpu-kernels"].map(|home| root().join(home));
    let word = ["un", "safe"].concat(); // not to find this very line
    for file in sources(root()).into_iter().filter(|f| !homes.iter().any(|home| f.starts_with(home))) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let uses = code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word);
            let allows = code.contains("allow(") && code.contains(&format!("{word}_code"));
            assert!(!uses && !allows, "{}:{}: {line}", file.display(), number + 1);
        }
    }
}

#[test]
fn printing_is_in_one_file() {
    let homes = ["src/printer.rs", "src/bin/gen.rs"].map(|home| root().join(home)); // the launcher has no results
    for file in sources(&root().join("src")).into_iter().filter(|f| !homes.contains(f)) {
        let text = std::fs::read_to_string(&file).unwrap();
        let found = ["print!(", "println!(", "stdout()", "stderr()"].iter().find(|p| text.contains(**p));
        assert!(found.is_none(), "{} uses {found:?}; results go through the printer", file.display());
    }
}

/// A verb is arguments → job → report; what needs more belongs into a library.
#[test]
fn files_of_verbs_are_short() {
    const MOST: usize = 150;
    for file in sources(&root().join("src/commands")) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= MOST, "{} has {lines} lines, more than {MOST}", file.display());
    }
}

#[test]
fn pages_name_files_that_exist() {
    for page in ["CONTRIBUTING.md", "docs/architecture.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let spans = text.split('`').skip(1).step_by(2);
        for path in spans.filter(|span| span.contains('/') && !span.contains([' ', '<', '\n'])) {
            assert!(root().join(path).exists(), "{page} names `{path}`, which does not exist");
        }
    }
}

/// Every Rust file of the project under `dir`.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let skip = name.starts_with('.') || name.starts_with("target") || name == "shared" || name == "runs";
        if path.is_dir() && !skip {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}
