//! The commands that a recipe stands for, and where their results hold the figures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use super::pieces::{self, Piece};
use super::run::Order;
use super::{Checkpoint, Generation, Metric, Probe, Recipe, Task, config_text};
use crate::failure::Failure;
use crate::files;

/// What each step printed, by its name.
pub type Made = BTreeMap<&'static str, Value>;

/// One `gen` command, which prints JSON.
#[derive(Debug)]
pub struct Step {
    /// Names the file that keeps its result.
    pub name: &'static str,
    /// What is typed after `gen`.
    pub args: Vec<String>,
}

impl Step {
    fn new(name: &'static str, args: Vec<String>) -> Self {
        Step { name, args }
    }

    /// As one would type it.
    pub fn line(&self) -> String {
        let quoted = |a: &String| match a.contains(|c: char| c.is_whitespace() || "*'\"{}$".contains(c)) {
            true => format!("'{a}'"),
            false => a.clone(),
        };
        format!("gen {}", self.args.iter().map(quoted).collect::<Vec<_>>().join(" "))
    }
}

/// The steps of a run in `dir`, with the guidance scale `cfg` where images are made.
pub fn of(
    recipe: &Recipe,
    pieces: &[Piece],
    dir: &Path,
    cfg: Option<f64>,
    order: &Order,
) -> anyhow::Result<Vec<Step>> {
    let at = At { pieces, dir, order };
    match &recipe.task {
        Task::Probe(task) => Ok(vec![at.probe(task)?]),
        Task::Generation(task) => at.generation(task, cfg.unwrap_or(1.0)),
        Task::Reconstruction(_) | Task::NotRunnable(_) => Ok(vec![]),
    }
}

struct At<'a> {
    pieces: &'a [Piece],
    dir: &'a Path,
    order: &'a Order,
}

/// Arguments one after the other; each is shown as it would be typed.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { vec![$($arg.to_string()),*] };
}

impl At<'_> {
    fn piece(&self, what: &str) -> anyhow::Result<String> {
        let found = self.pieces.iter().find(|p| p.what == what).and_then(|p| p.found.as_deref());
        Ok(text(found.with_context(|| format!("the recipe has no {what}"))?)?.to_owned())
    }

    fn file(&self, name: &str) -> anyhow::Result<String> {
        Ok(text(&self.dir.join(name))?.to_owned())
    }

    /// The file of a configuration: one of the released, written beside the results, or a file of the user's own.
    fn config(&self, checkpoint: &Checkpoint, tokenizer: bool) -> anyhow::Result<String> {
        let name = &checkpoint.config;
        let Some(content) = config_text(tokenizer, name) else {
            let own = PathBuf::from(name);
            return match own.is_file() {
                true => Ok(name.clone()),
                false => {
                    Err(Failure::new(format!("`{name}` is no released configuration and no file")).into())
                }
            };
        };
        let path = self.dir.join(format!("{name}.yaml"));
        files::write(&path, content.as_bytes())?;
        Ok(text(&path)?.to_owned())
    }

    fn models(&self, tokenizer: &Checkpoint, transformer: &Checkpoint) -> anyhow::Result<Vec<String>> {
        Ok(args![
            "--model",
            self.config(transformer, false)?,
            "--weights",
            self.piece(pieces::TRANSFORMER)?,
            "--tokenizer",
            self.config(tokenizer, true)?,
            "--tokenizer-weights",
            self.piece(pieces::TOKENIZER)?,
        ])
    }

    fn probe(&self, task: &Probe) -> anyhow::Result<Step> {
        // A dry run has too few images for a step of full size.
        let most = self.order.limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let batch = task.batch_size.min(most);
        let accumulate = (task.accumulate as i64).min(most / batch.max(1)).max(1);
        let mut args = args!["probe", "--data", self.piece(pieces::TRAIN_DATA)?];
        args.extend(args!["--validation", self.piece(pieces::DATA)?, "--output", self.file("probe")?]);
        args.extend(self.models(&task.tokenizer, &task.transformer)?);
        args.extend(args!["--batch-size", batch, "--accumulate", accumulate, "--seed", task.seed]);
        args.extend(args!["--precision", task.precision, "--device", self.order.device, "--json"]);
        if let Some(limit) = self.order.limit {
            args.extend(args!["--limit", limit, "--cache-views", 1]);
        }
        Ok(Step::new("probe", args))
    }

    fn generation(&self, task: &Generation, cfg: f64) -> anyhow::Result<Vec<Step>> {
        let images = self.order.limit.map_or(task.images, |l| l.min(task.images));
        let npz = self.file("samples.npz")?;
        let how = &task.sampling;
        let mut args = args!["sample", "--num-images", images, "--npz", npz, "--size", task.side];
        args.extend(self.models(&task.tokenizer, &task.transformer)?);
        args.extend(args!["--cfg", cfg, "--cfg-schedule", how.cfg_schedule]);
        if let Some(start) = how.cfg_start {
            args.extend(args!["--cfg-start", start]);
        }
        args.extend(args!["--temperature", how.temperature, "--top-k", how.top_k, "--top-p", how.top_p]);
        args.extend(args!["--seed", task.seed, "--batch-size", task.batch_size]);
        args.extend(args!["--precision", task.precision, "--device", self.order.device, "--json"]);
        Ok(vec![Step::new("sample", args)])
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("`{}` is not valid UTF-8", path.display()))
}

/// A figure among the results.
pub fn measured(made: &Made, metric: Metric) -> Option<f64> {
    match metric {
        Metric::Top1 => made.get("probe")?["top1"].as_f64().map(|share| 100.0 * share),
        _ => None,
    }
}
