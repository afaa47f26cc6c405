//! The odd files of `../shared/cases` beside the checkout, or of the folder that CASES_DIR names: its README says what is
//! right for each. Where the folder is absent these tests pass.

mod data;

use std::path::{Path, PathBuf};

use crate::common::{Place, Tiny, write_model};

/// A place with a tiny model and a copy of a case's folder, which is read-only where it lies; `None` where it is absent.
fn place(case: &str) -> Option<Place> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/cases");
    let cases = std::env::var_os("CASES_DIR").map_or(beside, PathBuf::from);
    let from = cases.join(case);
    if !from.is_dir() {
        return None;
    }
    let place = Place::new("", "");
    write_model(&place.path("model"), Tiny::default());
    copy(&from, place.dir());
    Some(place)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => std::fs::write(&target, std::fs::read(&path).unwrap()).unwrap(),
        }
    }
}
