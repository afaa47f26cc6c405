//! `gen convert`: weights from one file format to another.

use std::collections::BTreeMap;
use std::path::Path;

use cli::convert::{ConvertArgs, TargetFormat};
use serde::Serialize;
use serde_json::Value as Json;
use weights::{Checkpoint, TensorSource, Want};

use crate::context::{self, Context, ExitStatus};
use crate::error::UserError;

#[derive(Debug, Serialize)]
struct Report {
    /// File, and section of it.
    #[serde(skip)]
    origin: String,
    output: String,
    /// The section that was taken; nothing when the tensors stood at the top level.
    section: Option<String>,
    tensors: usize,
    /// Size of the values in the input, in bytes.
    bytes: u64,
    /// Sections and other values that were left out, those beside the tensors by their names.
    left_out: Vec<String>,
}

/// Converts, and reports the values taken and those left out.
pub fn run(args: &ConvertArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let format = format(args)?;
    let checkpoint = Checkpoint::open(&args.input)?;
    let source = match &args.section {
        Some(name) => checkpoint.section(Some(name))?,
        None => checkpoint.source(Want::Auto)?,
    };
    let source = source.as_ref();
    match format {
        TargetFormat::Safetensors => {
            weights::export_safetensors(&args.output, source, args.precision, &metadata(&checkpoint))?;
        }
        TargetFormat::Pt => {
            let under = (!args.bare).then_some(args.under.as_str());
            weights::export_torch(&args.output, under, source, args.precision)?;
        }
    }
    let report = report(args, &checkpoint, source);
    context.finish(&report, args.json.json, true)
}

fn format(args: &ConvertArgs) -> anyhow::Result<TargetFormat> {
    let ending = |path: &Path| path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
    let by_name = || match ending(&args.output).as_deref() {
        Some("pt" | "pth" | "bin") => Some(TargetFormat::Pt),
        Some("safetensors") => Some(TargetFormat::Safetensors),
        _ => None,
    };
    args.format.or_else(by_name).ok_or_else(|| {
        let message = format!("the ending of `{}` does not say what to write", args.output.display());
        UserError::new(message).hint("add `--format pt` or `--format safetensors`").into()
    })
}

/// Non-tensor values of a training dictionary, as text; other programs require `format`.
fn metadata(checkpoint: &Checkpoint) -> BTreeMap<String, String> {
    let is_section = |key: &str| checkpoint.sections().iter().any(|s| s.name.as_deref() == Some(key));
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut all: BTreeMap<String, String> = checkpoint
        .metadata()
        .iter()
        .filter(|(k, _)| !is_section(k))
        .map(|(k, v)| (k.clone(), text(v)))
        .collect();
    all.entry("format".into()).or_insert_with(|| "pt".into());
    all
}

fn report(args: &ConvertArgs, checkpoint: &Checkpoint, source: &dyn TensorSource) -> Report {
    let section = source.origin().section.clone();
    let others = checkpoint.sections().iter().filter(|s| s.name != section);
    let names = source.names();
    Report {
        origin: source.origin().to_string(),
        output: args.output.display().to_string(),
        tensors: names.len(),
        bytes: names.iter().filter_map(|n| source.info(n)).map(|i| i.bytes).sum(),
        left_out: others
            .map(|s| s.name.clone().unwrap_or_else(|| "(top level)".into()))
            .chain(beside(checkpoint, section.as_deref()))
            .chain(checkpoint.not_shown().iter().map(|(name, why)| format!("{name} ({why})")))
            .collect(),
        section,
    }
}

/// More values than this are counted only.
const MOST_NAMED: usize = 20;

/// Non-tensor values of the section that was taken: numbers, bytes, lists, objects.
fn beside(checkpoint: &Checkpoint, section: Option<&str>) -> Vec<String> {
    let mut all = vec![];
    if let Some((name, values)) = section.and_then(|name| Some((name, checkpoint.metadata().get(name)?))) {
        leaves(name.to_owned(), values, &mut all);
    }
    let more = all.len().saturating_sub(MOST_NAMED);
    all.truncate(MOST_NAMED);
    all.extend((more > 0).then(|| format!("{more} more values that are not tensors")));
    all
}

/// Values by their paths, with what they are; an empty one is none.
fn leaves(path: String, value: &Json, out: &mut Vec<String>) {
    let what = match value {
        Json::Null => return,
        Json::Object(map) => match (map.get("__class__"), map.contains_key("__args__")) {
            (Some(Json::String(class)), true) => format!("an object of {class}"),
            _ => {
                let values = map.iter().filter(|(key, _)| *key != "__class__");
                return values.for_each(|(key, value)| leaves(format!("{path}.{key}"), value, out));
            }
        },
        Json::Array(list) if list.is_empty() => return,
        Json::Array(list) => format!("a list of {} values", list.len()),
        Json::Bool(_) | Json::Number(_) => "a number".to_owned(),
        Json::String(text) => match text.strip_suffix(" bytes").is_some_and(|n| n.parse::<u64>().is_ok()) {
            true => text.clone(),
            false => "a text".to_owned(),
        },
    };
    out.push(format!("{path} ({what}, not a tensor)"));
}

impl context::Report for Report {
    fn text(&self) -> String {
        let mut text = format!("{}: {} tensors from {}", self.output, self.tensors, self.origin);
        if !self.left_out.is_empty() {
            text.push_str(&format!("; left out: {}", self.left_out.join(", ")));
        }
        text
    }
}
