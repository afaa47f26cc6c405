//! Agreement with the official code, tensor by tensor.
//!
//! A golden is a manifest `NAME.json` with `NAME.safetensors` beside it, and weights as `NAME.pt`,
//! `NAME.weights.safetensors` or a recipe in the manifest (see `README.md`). Everything is built
//! from the manifest: its configuration, its tensor list, its scalars. The family is determined by
//! the manifest's content, never by its file name. A manifest that matches no family fails, and so
//! does a tensor or scalar that its family neither checks nor names a reason for leaving out.
//!
//! `GOLDENS_DIR` names another folder to run, `GOLDENS_ONLY` a part of the names to run.

mod check;
mod families;
mod golden;
mod recipe;
mod run;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use check::Check;
use golden::Golden;

fn folder() -> PathBuf {
    match std::env::var_os("GOLDENS_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/data"),
    }
}

/// Every manifest under `dir`, in order. `NAME.x.json` beside `NAME.json` is a file that NAME's
/// family reads.
fn manifests(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading `{}`", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(manifests(&path)?);
        } else if path.extension().is_some_and(|e| e == "json") {
            files.push(path);
        }
    }
    files.sort();
    let stems: BTreeSet<PathBuf> = files.iter().map(|f| f.with_extension("")).collect();
    files.retain(|f| {
        let stem = f.with_extension("");
        let owner = stem.with_extension("");
        owner == stem || !stems.contains(&owner)
    });
    Ok(files)
}

/// Result of one manifest.
enum Outcome {
    Agrees { compared: usize },
    Failed(Vec<String>),
}

fn examine(path: &Path) -> Result<Outcome> {
    let golden = Golden::open(path)?;
    let matching: Vec<_> = families::ALL.iter().filter(|f| (f.recognise)(&golden)).collect();
    let family = match matching.as_slice() {
        [family] => family,
        [] => return Ok(Outcome::Failed(vec!["no family understands this manifest".into()])),
        several => {
            let names: Vec<_> = several.iter().map(|f| f.name).collect();
            return Ok(Outcome::Failed(vec![format!("several families claim it: {names:?}")]));
        }
    };
    println!("  family: {}", family.name);
    let mut check = Check::new(&golden)?;
    (family.check)(&mut check)?;
    let (compared, failures) = check.finish();
    Ok(if failures.is_empty() { Outcome::Agrees { compared } } else { Outcome::Failed(failures) })
}

/// libtorch's panics become failures of one golden, so that the others are still run.
fn examine_caught(path: &Path) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| examine(path))) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(e)) => Outcome::Failed(vec![format!("{e:#}")]),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Outcome::Failed(vec![format!("panicked: {}", text.unwrap_or_default())])
        }
    }
}

#[test]
fn goldens_agree() {
    let dir = folder();
    let only = std::env::var("GOLDENS_ONLY").unwrap_or_default();
    let mut summary = vec![];
    let mut failed = false;
    let files = manifests(&dir).unwrap();
    for path in files.iter().filter(|p| p.to_string_lossy().contains(&only)) {
        let name = path.strip_prefix(&dir).unwrap_or(path).with_extension("").display().to_string();
        println!("{name}");
        let started = Instant::now();
        let outcome = examine_caught(path);
        let seconds = started.elapsed().as_secs_f64();
        summary.push(match outcome {
            Outcome::Agrees { compared } => format!("ok       {name}: {compared} values, {seconds:.1} s"),
            Outcome::Failed(failures) => {
                failed = true;
                format!("FAILED   {name}:\n           {}", failures.join("\n           "))
            }
        });
    }
    println!("\n{}", summary.join("\n"));
    assert!(summary.iter().any(|s| s.starts_with("ok")), "nothing was compared in `{}`", dir.display());
    assert!(!failed, "goldens disagree");
}
