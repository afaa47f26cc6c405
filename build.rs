//! Sets the checkout's libtorch as the binary's search path, so that `gen` runs from anywhere, and
//! records the commit it is built from.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH")
        && let Ok(lib) = std::fs::canonicalize(Path::new(&libtorch).join("lib"))
    {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{}", lib.display());
    }
    if let Some(commit) = commit() {
        println!("cargo:rustc-env=GEN_COMMIT={commit}");
    }
}

/// The commit, with a `+` where sources differ from it; none outside a git checkout.
fn commit() -> Option<String> {
    let sources =
        ["src", "crates", "tokenizer", "ar-model", "sampler", "eval", "data", "Cargo.lock", "build.rs"];
    for source in sources {
        println!("cargo:rerun-if-changed={source}");
    }
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&[&["status", "--porcelain", "--untracked-files=no", "--"], &sources[..]].concat())?;
    Some(if changes.is_empty() { commit } else { format!("{commit}+") })
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_owned())
}
