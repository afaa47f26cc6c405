//! Codes in safetensors files, as written by `gen encode`, and in folders of shards, as written by
//! `gen extract`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base::Codes;
use data::Class;
use data::codes::{CodeShards, CodeSource};
use generate::{Location, classes_of, locate};
use settings::ModelChoice;
use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, TensorSource, Want};

use crate::context::Context;
use crate::error::UserError;

/// The metadata key of the tokenizer's fingerprint.
pub const TOKENIZER: &str = "tokenizer";

/// Names that codes go by: ours, the tokenizer's and the transformer's official ones.
const CODES: [&str; 3] = ["codes", "indices", "tokens"];
const CLASSES: [&str; 2] = ["class_ids", "labels"];

/// Content of such a file or folder.
pub struct CodeFile {
    rows: Rows,
    /// (B) int64.
    pub classes: Option<Tensor>,
    /// Meaning of the class numbers, as far as the file records it.
    pub numbering: Vec<Class>,
    /// Fingerprint of the tokenizer that made the codes.
    pub tokenizer: Option<String>,
}

enum Rows {
    /// (B, N).
    All(Codes),
    /// Some records of stored codes, each in all its views, one after the other.
    Stored(Arc<dyn CodeSource>, Range<usize>),
}

impl CodeFile {
    /// Opens a file of codes, a folder of code shards, or one of its shards.
    pub fn read(path: &Path) -> Result<Self> {
        if let Some((source, records)) = stored(path)? {
            return Self::of_stored(source, records);
        }
        let file = Checkpoint::open(path)?;
        let source = file.source(Want::Auto)?;
        let codes = integers(source.as_ref(), &CODES)?.ok_or_else(|| {
            let shown = path.display();
            UserError::new(format!("`{shown}` holds no tensor `codes`"))
                .hint(format!("`gen inspect {shown}` lists what it contains; `gen encode` writes such files"))
        })?;
        let what = || format!("the codes of `{}`", path.display());
        Ok(CodeFile {
            rows: Rows::All(Codes::new(codes).with_context(what)?),
            classes: integers(source.as_ref(), &CLASSES)?,
            numbering: vec![],
            tokenizer: file.metadata().get(TOKENIZER).and_then(|v| v.as_str()).map(str::to_owned),
        })
    }

    fn of_stored(source: Arc<dyn CodeSource>, records: Range<usize>) -> Result<Self> {
        let mut labels = Vec::with_capacity(records.len() * source.views());
        for record in records.clone() {
            let label = source.read(record, 0)?.label;
            labels.extend(std::iter::repeat_n(label, source.views()));
        }
        let classes = (!labels.contains(&data::NO_CLASS)).then(|| Tensor::from_slice(&labels));
        let tokenizer = source.tokenizer().map(|id| id.fingerprint.clone());
        let numbering = source.classes().to_vec();
        Ok(CodeFile { rows: Rows::Stored(source, records), classes, numbering, tokenizer })
    }

    /// The number of rows.
    pub fn len(&self) -> i64 {
        match &self.rows {
            Rows::All(codes) => codes.tensor().size()[0],
            Rows::Stored(source, records) => (records.len() * source.views()) as i64,
        }
    }

    /// Some rows of the codes.
    pub fn rows(&self, from: i64, count: i64) -> Result<Codes> {
        match &self.rows {
            Rows::All(codes) => Ok(Codes::new(codes.tensor().narrow(0, from, count))?),
            Rows::Stored(source, records) => {
                let mut codes = Vec::with_capacity(count as usize * source.num_tokens());
                for row in from as usize..(from + count) as usize {
                    let (record, view) = (records.start + row / source.views(), row % source.views());
                    codes.extend(source.read(record, view)?.codes);
                }
                Ok(Codes::new(Tensor::from_slice(&codes).view([count, -1]))?)
            }
        }
    }
}

/// Codes and which of their records are meant.
type Stored = (Arc<dyn CodeSource>, Range<usize>);

/// The stored codes that a path names: a folder's, or those of one of its shards.
fn stored(path: &Path) -> Result<Option<Stored>> {
    if path.is_dir() {
        let source = data::open_codes(&[path])?;
        let all = 0..source.len();
        return Ok(Some((source, all)));
    }
    let folder = path.parent().filter(|folder| folder.join("index.json").is_file());
    let Some(shards) = folder.and_then(|folder| CodeShards::open(folder).ok()) else { return Ok(None) };
    let mut start = 0;
    for entry in &shards.index().shards {
        if path.file_name().is_some_and(|name| name == entry.file.as_str()) {
            let records = start..start + entry.records;
            return Ok(Some((Arc::new(shards), records)));
        }
        start += entry.records;
    }
    Ok(None)
}

/// Rejects codes at `path` whose tokenizer has another fingerprint than the transformer's, if both
/// are known. `given` is the choice of models on the command line, if it has one.
pub fn same_tokenizer(
    (path, fingerprint): (&Path, Option<&str>),
    model: &Location,
    given: Option<&ModelChoice>,
    context: &Context,
) -> Result<()> {
    let Some(theirs) = fingerprint else { return Ok(()) };
    let Ok(tokenizer) = locate::tokenizer_of(model, given.unwrap_or(&ModelChoice::default())) else {
        let how = if given.is_some() { " (`--tokenizer` says)" } else { "" };
        context.printer.note(&format!(
            "the codes are of the tokenizer {theirs}; whether it is the transformer's is not known{how}"
        ));
        return Ok(());
    };
    let mut progress = context.printer.clone();
    let own = tokenizer.open_tokenizer(Device::Cpu, base::Precision::Fp32, &mut progress)?.fingerprint()?;
    if own == theirs {
        return Ok(());
    }
    let message = format!(
        "the codes in `{}` are of the tokenizer {theirs}, and the transformer's is {own}",
        path.display()
    );
    Err(UserError::new(message).hint("extract them again with the transformer's own tokenizer").into())
}

/// Labels are numbers, which must mean the same classes in the data and in a model with so many
/// classes.
pub fn same_classes(
    (described, classes): (&str, &[Class]),
    model: &Location,
    num_classes: Option<i64>,
) -> Result<()> {
    let Some(table) = classes_of(model, num_classes)? else { return Ok(()) };
    let known: Vec<Class> = table.classes().cloned().collect();
    Ok(data::same_numbering(("the model", &known), (described, classes))?)
}

/// Refuses codes (B, N) that a transformer does not take.
pub fn check_codes(codes: &Codes, num_tokens: i64, vocab_size: i64) -> Result<()> {
    let size = codes.tensor().size();
    if size[1] != num_tokens {
        return Err(
            UserError::new(format!("the codes are {size:?}, and the model takes (B, {num_tokens})")).into()
        );
    }
    match codes.range() {
        None => Err(UserError::new("there are no codes in the file").into()),
        Some((low, high)) if low < 0 || high >= vocab_size => {
            let message = format!("the codes are in {low}..={high}, and the model knows 0..{vocab_size}");
            Err(UserError::new(message).hint("was another tokenizer used?").into())
        }
        Some(_) => Ok(()),
    }
}

/// The first of the names that exists, as int64.
fn integers(source: &dyn TensorSource, names: &[&str]) -> Result<Option<Tensor>> {
    let Some(name) = names.iter().find(|name| source.info(name).is_some()) else { return Ok(None) };
    if source.unsupported(name).is_some_and(|u| u.what == "U16") {
        let message = format!("tensor `{name}` of {} is of code shards", source.origin());
        return Err(UserError::new(message)
            .hint("give the folder that `gen extract` wrote: its `index.json` tells what the numbers are")
            .into());
    }
    let tensor = source.read(name, Device::Cpu)?;
    match tensor.kind() {
        Kind::Int64 | Kind::Int | Kind::Int16 | Kind::Uint8 => Ok(Some(tensor.to_kind(Kind::Int64))),
        other => {
            let message =
                format!("tensor `{name}` of {}: expected integers, found {other:?}", source.origin());
            Err(UserError::new(message).into())
        }
    }
}
