//! `gen inspect`: what a file contains.

mod checkpoint;
mod config;
mod format;
mod released;

use std::path::Path;

use base::config::Document;
use cli::inspect::InspectArgs;
use data::codes::CodeIndex;
use serde::Serialize;
use serde_json::Value as Json;

use self::checkpoint::CheckpointReport;
use self::config::ConfigReport;
use self::format::{table, thousands};
use crate::context::{self, Context, ExitStatus};

/// Result of the inspection.
#[derive(Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Report {
    Checkpoint(CheckpointReport),
    Config(ConfigReport),
    Codes(CodesReport),
    ModelDirectory { path: String, parts: Vec<Report> },
}

#[derive(Debug, Serialize)]
struct CodesReport {
    path: String,
    index: CodeIndex,
}

/// Prints what the path contains.
pub fn run(args: &InspectArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let report = inspect(&args.path, args)?;
    context.finish(&report, args.json.json, true)
}

impl context::Report for Report {
    fn text(&self) -> String {
        text(self).trim_end().to_owned()
    }
}

fn inspect(path: &Path, args: &InspectArgs) -> anyhow::Result<Report> {
    if path.is_dir() {
        return directory(path, args);
    }
    let Some(document) = document(path) else {
        return Ok(Report::Checkpoint(checkpoint::inspect(path, args)?));
    };
    let json = document.to_json()?;
    if json.get("weight_map").is_some() {
        return Ok(Report::Checkpoint(checkpoint::inspect(path, args)?));
    }
    if let Some(folder) = path.parent().filter(|_| json.get("shards").is_some()) {
        return codes(path, folder);
    }
    Ok(Report::Config(config::inspect(path, &document, &json)?))
}

/// A directory: code shards, a model with its tokenizer, or the shards of a checkpoint.
fn directory(path: &Path, args: &InspectArgs) -> anyhow::Result<Report> {
    if path.join("index.json").is_file() {
        return codes(path, path);
    }
    let names = ["config.yaml", "weights.safetensors", "tokenizer"];
    if !path.join(names[0]).is_file() {
        return Ok(Report::Checkpoint(checkpoint::inspect(path, args)?));
    }
    let parts = names.iter().map(|name| path.join(name)).filter(|part| part.exists());
    let parts = parts.map(|part| inspect(&part, args)).collect::<anyhow::Result<_>>()?;
    Ok(Report::ModelDirectory { path: path.display().to_string(), parts })
}

fn codes(path: &Path, folder: &Path) -> anyhow::Result<Report> {
    let shards = data::codes::CodeShards::open(folder)?;
    Ok(Report::Codes(CodesReport { path: path.display().to_string(), index: shards.index().clone() }))
}

/// A file's content as YAML (or JSON), if it is a mapping; `None` for files that are not text, and
/// for text that only the reader of checkpoints can identify.
fn document(path: &Path) -> Option<Document> {
    use std::io::Read;
    const LARGEST: u64 = 64 << 20; // an index of shards may have megabytes
    let mut bytes = vec![];
    let file = base::files::open_regular(path).ok()?;
    if file.metadata().ok()?.len() > LARGEST {
        return None;
    }
    file.take(LARGEST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok().filter(|t| !t.contains('\0'))?;
    let document = Document::parse(&path.display().to_string(), &text).ok()?;
    matches!(document.to_json(), Ok(Json::Object(_))).then_some(document)
}

fn text(report: &Report) -> String {
    match report {
        Report::Checkpoint(checkpoint) => checkpoint.text(),
        Report::Config(config) => config.text(),
        Report::Codes(codes) => codes.text(),
        Report::ModelDirectory { path, parts } => {
            let parts: Vec<String> = parts.iter().map(text).collect();
            format!("{path}: a model's directory\n\n{}", parts.join("\n"))
        }
    }
}

impl CodesReport {
    fn text(&self) -> String {
        let CodeIndex { tokenizer, views, precision, records, skipped, data, shards } = &self.index;
        let rows = [
            ("records", format!("{} in {} shards", thousands(*records as u64), shards.len())),
            ("codes", format!("{} of {}", tokenizer.num_tokens, tokenizer.codebook_size)),
            ("views", views.join(", ")),
            ("tokenizer", format!("{} in {precision}", tokenizer.fingerprint)),
            ("made from", data.clone()),
            ("skipped", skipped.to_string()),
        ];
        format!("{}: codes of images\n{}", self.path, table(&rows))
    }
}
