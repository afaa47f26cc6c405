//! Files of the model hub.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use backbones::ClipTokenizer;
use backbones::files::{HubFile, PublicFile, sha256};
use base::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError};

use crate::context::Context;
use crate::error::UserError;
use crate::files;
use crate::printer::Printer;

/// Downloads a file into the weights folder; returns its path.
pub fn fetch(public: &PublicFile, hub: HubFile, models: &Path, context: &Context) -> Result<PathBuf> {
    let target = models.join(public.file);
    let target = match Path::new(hub.file).extension() {
        Some(extension) => target.with_extension(extension),
        None => target,
    };
    files::make_folder(base::files::folder_of(&target))?;
    // Beside the target, so that the last step is a rename; an interrupted download resumes there.
    let staging = models.join(".hub");
    let blob = download(hub, &staging, context).map_err(|e| cannot_fetch(public, hub, &target, &e))?;
    let placed = check(public, &blob, &target).and_then(|()| {
        std::fs::rename(&blob, &target).with_context(|| format!("cannot write `{}`", target.display()))
    });
    std::fs::remove_dir_all(&staging).with_context(|| format!("cannot remove `{}`", staging.display()))?;
    placed?;
    Ok(target)
}

/// Downloads into `staging`; returns the file itself, whose name is the digest that the hub states.
fn download(hub: HubFile, staging: &Path, context: &Context) -> Result<PathBuf, ApiError> {
    let api = ApiBuilder::from_env().with_cache_dir(staging.to_owned()).with_progress(false).build()?;
    let report = Report { to: context.printer.clone(), started: false };
    let link = api.model(hub.repository.to_owned()).download_with_progress(hub.file, report)?;
    Ok(std::fs::canonicalize(link)?)
}

/// Checks that the file is the known one, or the one that the hub names, and can be opened.
fn check(public: &PublicFile, blob: &Path, target: &Path) -> Result<()> {
    let stated = blob.file_name().unwrap_or_default().to_string_lossy();
    if stated.len() == 64 && stated.chars().all(|c| c.is_ascii_hexdigit()) {
        let found = sha256(blob)?;
        if found != stated {
            let message =
                format!("the download of `{}` is damaged: SHA-256 {found}, expected {stated}", public.name);
            return Err(UserError::new(message).hint("try again").into());
        }
    }
    if target.extension() == Path::new(public.file).extension() {
        public.check(blob)?;
    }
    let opened = match target.extension().is_some_and(|e| e == "json") {
        true => ClipTokenizer::open(blob).map(drop).map_err(anyhow::Error::new),
        false => weights::Checkpoint::open(blob).map(drop).map_err(anyhow::Error::new),
    };
    opened.with_context(|| format!("what came for `{}` cannot be used", public.name))
}

fn cannot_fetch(public: &PublicFile, hub: HubFile, target: &Path, error: &ApiError) -> UserError {
    let HubFile { repository, file, .. } = hub;
    UserError::new(format!("cannot fetch `{}` from `{repository}` on the hub: {error}", public.name)).hint(
        format!(
            "without a network, get `{file}` of that repository elsewhere and put it at `{}`",
            target.display()
        ),
    )
}

/// Progress in bytes.
struct Report {
    to: Printer,
    started: bool, // the client begins twice
}

impl hf_hub::api::Progress for Report {
    fn init(&mut self, size: usize, filename: &str) {
        if !std::mem::replace(&mut self.started, true) {
            self.to.start(&format!("bytes of {filename}"), Some(size as u64));
        }
    }

    fn update(&mut self, size: usize) {
        self.to.advance(size as u64);
    }

    fn finish(&mut self) {
        Progress::finish(&mut self.to);
    }
}
