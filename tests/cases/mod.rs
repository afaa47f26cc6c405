//! Odd files of other people and other programs, in one folder per kind: `../shared/cases` beside
//! the checkout, or `CASES_DIR`. Its README gives the correct result for each. Without the folder
//! the tests pass, as they have nothing to run.

mod config;
mod evaluation;
mod sets;
mod weights;

use std::path::{Path, PathBuf};

/// A folder of the cases, if it exists.
fn case(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/cases");
    let all = std::env::var_os("CASES_DIR").map_or_else(beside, PathBuf::from);
    let folder = all.join(name);
    folder.is_dir().then_some(folder)
}
