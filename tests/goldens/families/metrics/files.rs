//! Files that other programs wrote: `.npz` of images and statistics, and PyTorch's two layouts.

use anyhow::{Context, Result, ensure};
use base::npz::Npz;
use eval::ReferenceFile;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, Want};

use crate::check::Check;
use crate::golden::Golden;

/// The whole golden; its notes name the files beside it.
pub fn check(check: &mut Check) -> Result<()> {
    for file in named(check.golden, ".npz")? {
        npz(check, &file)?;
    }
    for file in named(check.golden, ".pth")? {
        torch_file(check, &file)?;
    }
    for name in check.golden.tensor_names().into_iter().map(str::to_owned).collect::<Vec<_>>() {
        let _ = check.input(&name)?;
    }
    Ok(())
}

/// The files with this ending that the notes speak of.
fn named(golden: &Golden, ending: &str) -> Result<Vec<PathBuf>> {
    let notes = golden.get("notes").as_array().context("no notes")?;
    let words = notes.iter().filter_map(|n| n.as_str()).flat_map(str::split_whitespace);
    let names = words.map(|w| w.trim_matches(|c: char| ":;,()".contains(c))).filter(|w| w.ends_with(ending));
    let mut files: Vec<PathBuf> = names.map(|n| golden.path().with_file_name(n)).collect();
    files.sort();
    files.dedup();
    ensure!(!files.is_empty(), "the notes name no {ending} file");
    Ok(files)
}

fn same(check: &mut Check, what: &str, found: &Tensor, expected: &Tensor) {
    let good = found.size() == expected.size() && found.to_kind(expected.kind()) == *expected;
    check.must(what, good, format!("{:?} of {:?}", found.size(), found.kind()));
}

fn npz(check: &mut Check, path: &Path) -> Result<()> {
    let mut file = Npz::open(path)?;
    let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> = check
        .golden
        .tensor_names()
        .iter()
        .filter_map(|n| n.strip_prefix("npz."))
        .map(str::to_owned)
        .collect();
    for name in names {
        let expected = check.golden.tensor(&format!("npz.{name}"))?;
        let found = file.read(&name)?;
        // A member may hold fewer digits than the golden.
        let expected = expected.to_kind(found.kind());
        same(check, &format!("{shown}: {name}"), &found, &expected);
    }
    let images = data::open(path)?;
    let expected = check.golden.tensor("npz.arr_0")?;
    for i in 0..images.len() {
        let image = images.get(i)?.image;
        let found =
            Tensor::from_slice(image.as_raw()).view([i64::from(image.height()), i64::from(image.width()), 3]);
        same(check, &format!("{shown}: image {i}"), &found, &expected.get(i as i64));
    }
    let reference = ReferenceFile::open(path)?;
    let both = reference.pool.is_some() && reference.spatial.is_some();
    check.must(
        &format!("{shown}: statistics"),
        both && reference.images == Some(images.len() as u64),
        "found".into(),
    );
    Ok(())
}

fn torch_file(check: &mut Check, path: &Path) -> Result<()> {
    let source = Checkpoint::open(path)?.source(Want::Auto)?;
    let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> = check
        .golden
        .tensor_names()
        .iter()
        .filter_map(|n| n.strip_prefix("pth."))
        .map(str::to_owned)
        .collect();
    for name in names {
        let expected = check.golden.tensor(&format!("pth.{name}"))?;
        let found = source.read(&name, Device::Cpu)?;
        // The golden keeps single numbers as one-element lists, and bfloat16 as fp32.
        let found = if found.dim() == 0 { found.view([1]) } else { found };
        let found = if found.kind() == Kind::BFloat16 { found.to_kind(Kind::Float) } else { found };
        same(check, &format!("{shown}: {name}"), &found, &expected);
    }
    Ok(())
}
