//! Files that come with the program.

use std::path::{Path, PathBuf};

/// Folders of files that come with the program, first match wins: `share/gen/NAME` beside the
/// folder of the executable, then `in_checkout` of the checkout that the program is built from.
pub fn folders(name: &str, in_checkout: &str) -> Vec<PathBuf> {
    let exe = std::env::current_exe().ok().and_then(|e| e.canonicalize().ok());
    let installed = exe.as_deref().and_then(Path::parent).map(|bin| bin.join("../share/gen").join(name));
    let checkout =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(|root| root.join(in_checkout));
    [installed, checkout].into_iter().flatten().collect()
}
