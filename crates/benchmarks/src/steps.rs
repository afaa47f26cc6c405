//! Commands of a benchmark, and the position of the figures in their results.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base::files::write_atomic;
use data::read_prompts;
use settings::{Metric, SamplingSettings};

use crate::artifacts::{self, Artifact};
use crate::error::{Error, Result};
use crate::find::config_text;
use crate::job::BenchmarkJob;
use crate::schema::{Benchmark, Checkpoint, Expected, Generation, Probe, Reconstruction, Task, TextToImage};

/// One `gen` command, which prints JSON.
#[derive(Debug)]
pub struct Step {
    /// Names the file that keeps its result.
    pub name: &'static str,
    /// Arguments after `gen`.
    pub args: Vec<String>,
}

impl Step {
    fn new(name: &'static str, args: Vec<String>) -> Self {
        Step { name, args }
    }

    /// The command line, quoted for a shell.
    pub fn line(&self) -> String {
        let quoted = |a: &String| match a.contains(|c: char| c.is_whitespace() || "*'\"{}$".contains(c)) {
            true => format!("'{a}'"),
            false => a.clone(),
        };
        format!("gen {}", self.args.iter().map(quoted).collect::<Vec<_>>().join(" "))
    }
}

/// The steps of a run in `dir`, with the guidance scale `cfg` where images are generated.
pub fn of(
    benchmark: &Benchmark,
    artifacts: &[Artifact],
    dir: &Path,
    cfg: Option<f64>,
    job: &BenchmarkJob,
) -> Result<Vec<Step>> {
    let at = StepBuilder { artifacts, dir, job };
    match &benchmark.task {
        Task::Probe(task) => Ok(vec![at.probe(task)?]),
        Task::Generation(task) => at.generation(task, cfg.unwrap_or(1.0)),
        Task::TextToImage(task) => at.text_to_image(task),
        Task::Reconstruction(task) => Ok(vec![at.reconstruction(task, &benchmark.expected)?]),
        Task::NotRunnable(_) => Ok(vec![]),
    }
}

struct StepBuilder<'a> {
    artifacts: &'a [Artifact],
    dir: &'a Path,
    job: &'a BenchmarkJob,
}

/// Builds a list of arguments, each from its `Display` form.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { vec![$($arg.to_string()),*] };
}

impl StepBuilder<'_> {
    fn artifact(&self, what: &str) -> Result<String> {
        let found = self.artifacts.iter().find(|p| p.what == what).and_then(|p| p.found.as_deref());
        let found = found.ok_or_else(|| Error::NoArtifact { what: what.to_owned() })?;
        Ok(text(found)?.to_owned())
    }

    fn file(&self, name: &str) -> Result<String> {
        Ok(text(&self.dir.join(name))?.to_owned())
    }

    /// Path of a configuration: a released one is written beside the results; otherwise a file of
    /// the user's own.
    fn config(&self, checkpoint: &Checkpoint, tokenizer: bool) -> Result<String> {
        let name = &checkpoint.config;
        let Some(content) = config_text(tokenizer, name) else {
            let own = PathBuf::from(name);
            return match own.is_file() {
                true => Ok(name.clone()),
                false => Err(Error::UnknownConfig { name: name.clone() }),
            };
        };
        let path = self.dir.join(format!("{name}.yaml"));
        write(&path, content.as_bytes())?;
        Ok(text(&path)?.to_owned())
    }

    fn models(&self, tokenizer: &Checkpoint, transformer: &Checkpoint) -> Result<Vec<String>> {
        Ok(args![
            "--model",
            self.config(transformer, false)?,
            "--weights",
            self.artifact(artifacts::TRANSFORMER)?,
            "--tokenizer",
            self.config(tokenizer, true)?,
            "--tokenizer-weights",
            self.artifact(artifacts::TOKENIZER)?,
        ])
    }

    fn probe(&self, task: &Probe) -> Result<Step> {
        // A dry run has too few images for a step of full size.
        let most = self.job.limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let batch = task.batch_size.min(most);
        let accumulate = (task.accumulate as i64).min(most / batch.max(1)).max(1);
        let mut args = args!["probe", "--data", self.artifact(artifacts::TRAIN_DATA)?];
        args.extend(args!["--validation", self.artifact(artifacts::DATA)?, "--output", self.file("probe")?]);
        args.extend(self.models(&task.tokenizer, &task.transformer)?);
        args.extend(args!["--batch-size", batch, "--accumulate", accumulate, "--seed", task.seed]);
        args.extend(args!["--precision", task.precision, "--device", self.job.device, "--json"]);
        if let Some(limit) = self.job.limit {
            args.extend(args!["--limit", limit, "--cache-views", 1]);
        }
        Ok(Step::new("probe", args))
    }

    fn generation(&self, task: &Generation, cfg: f64) -> Result<Vec<Step>> {
        let images = self.job.limit.map_or(task.images, |l| l.min(task.images));
        let npz = self.file("samples.npz")?;
        let mut args = args!["sample", "--num-images", images, "--npz", npz, "--size", task.side];
        args.extend(self.models(&task.tokenizer, &task.transformer)?);
        args.extend(sampling_options(SamplingSettings { cfg: Some(cfg), ..task.sampling.clone() }));
        args.extend(args!["--seed", task.seed, "--batch-size", task.batch_size]);
        args.extend(args!["--precision", task.precision, "--device", self.job.device, "--json"]);
        let mut score = args![
            "eval",
            npz,
            "--protocol",
            task.reference.kind.name(),
            "--reference",
            self.artifact(artifacts::REFERENCE)?
        ];
        score.extend(args!["--metrics", "fid,sfid,is,precision,recall"]);
        score.extend(self.scoring()?);
        Ok(vec![Step::new("sample", args), Step::new("eval", score)])
    }

    /// Generates one image per prompt, with `result.jsonl` beside them, and scores them.
    fn text_to_image(&self, task: &TextToImage) -> Result<Vec<Step>> {
        let encoder = self.artifact(artifacts::TEXT_ENCODER)?;
        let encoder = Path::new(&encoder).parent().filter(|p| !p.as_os_str().is_empty());
        let encoder = encoder.unwrap_or(Path::new("."));
        let (folder, npz) = (self.file("samples")?, self.file("samples.npz")?);
        let mut args = args!["sample", "--prompts", self.prompts()?, "--text-encoder", text(encoder)?];
        args.extend(args!["--output", folder, "--npz", npz, "--size", task.side]);
        args.extend(self.models(&task.tokenizer, &task.transformer)?);
        let cfg = task.sampling.cfg.unwrap_or(1.0);
        args.extend(sampling_options(SamplingSettings { cfg: Some(cfg), ..task.sampling.clone() }));
        args.extend(args!["--seed", task.seed, "--batch-size", task.batch_size]);
        args.extend(args!["--precision", task.precision, "--device", self.job.device, "--json"]);
        let mut score = match task.photographs {
            Some(_) => {
                let mut args =
                    args!["eval", npz, "--reference", self.artifact(artifacts::DATA)?, "--metrics", "fid"];
                args.extend(args!["--resize", task.side]); // photographs come in all sizes
                args
            }
            None => {
                let mut args =
                    args!["eval", folder, "--metrics", "clip_score", "--clip-score-network", "clip-b32"];
                args.extend(args!["--clip-score-weights", self.artifact(artifacts::CLIP)?]);
                args.extend(args!["--clip-text", self.artifact(artifacts::CLIP_TEXT)?]);
                args
            }
        };
        score.extend(self.scoring()?);
        Ok(vec![Step::new("sample", args), Step::new("eval", score)])
    }

    fn reconstruction(&self, task: &Reconstruction, expected: &[Expected]) -> Result<Step> {
        let images = match self.job.limit {
            Some(limit) => self.subset(limit)?,
            None => self.artifact(artifacts::DATA)?,
        };
        let mut args = args!["eval", "--reconstruct", images, "--resize", task.images.side];
        if task.scored_side != task.images.side {
            args.extend(args!["--score-size", task.scored_side]);
        }
        args.extend(args!["--tokenizer", self.config(&task.tokenizer, true)?]);
        args.extend(args![
            "--tokenizer-weights",
            self.artifact(artifacts::TOKENIZER)?,
            "--protocol",
            task.reference.kind.name()
        ]);
        let metrics: Vec<Metric> = expected.iter().filter_map(|e| e.metric.metric()).collect();
        let names: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
        args.extend(args!["--metrics", names.join(",")]);
        if metrics.contains(&Metric::Lpips) {
            args.extend(args!["--lpips-trunk", self.artifact(artifacts::VGG)?]);
            args.extend(args!["--lpips-heads", self.artifact(artifacts::LPIPS)?]);
        }
        args.extend(args!["--batch-size", task.batch_size, "--precision", task.precision]);
        args.extend(self.scoring()?);
        Ok(Step::new("eval", args))
    }

    /// The file of prompts; in a dry run, one with the first `limit` prompts.
    fn prompts(&self) -> Result<String> {
        let all = self.artifact(artifacts::PROMPTS)?;
        let Some(limit) = self.job.limit else { return Ok(all) };
        let prompts = read_prompts(Path::new(&all))?.texts;
        let first = prompts.iter().take(limit as usize);
        let lines: String = first.map(|p| format!("{}\n", serde_json::json!({ "prompt": p }))).collect();
        write(&self.dir.join("prompts.jsonl"), lines.as_bytes())?;
        self.file("prompts.jsonl")
    }

    /// A folder of `limit` held-out images at equal distances, unchanged.
    fn subset(&self, limit: u64) -> Result<String> {
        let all = data::open(Path::new(&self.artifact(artifacts::DATA)?))?;
        let folder = self.dir.join("images");
        make_folder(&folder)?;
        let most = (limit as usize).min(all.len());
        for i in 0..most {
            let path = folder.join(format!("{i:06}.png"));
            if !path.is_file() {
                let record = all.get(i * all.len() / most)?;
                let mut bytes = std::io::Cursor::new(vec![]);
                record.image.write_to(&mut bytes, image::ImageFormat::Png)?;
                write(&path, bytes.get_ref())?;
            }
        }
        Ok(text(&folder)?.to_owned())
    }

    fn scoring(&self) -> Result<Vec<String>> {
        let mut args = args!["--partial", self.file("eval.partial")?, "--report", self.file("eval.html")?];
        args.extend(args!["--device", self.job.device, "--json"]);
        if self.artifacts.iter().any(|p| p.what == artifacts::INCEPTION) {
            args.extend(args!["--inception", self.artifact(artifacts::INCEPTION)?]);
        }
        Ok(args)
    }
}

/// Command-line options for the settings.
fn sampling_options(settings: SamplingSettings) -> Vec<String> {
    let SamplingSettings {
        cfg,
        cfg_schedule,
        cfg_start,
        cfg_end,
        cfg_interval,
        temperature,
        top_k,
        top_p,
        min_p,
        typical_p,
    } = settings;
    let number = |x: Option<f64>| x.map(|x| x.to_string());
    let whole = |n: Option<i64>| n.map(|n| n.to_string());
    let options = [
        ("--cfg", number(cfg)),
        ("--cfg-schedule", cfg_schedule),
        ("--cfg-start", number(cfg_start)),
        ("--cfg-end", number(cfg_end)),
        ("--cfg-interval", whole(cfg_interval)),
        ("--temperature", number(temperature)),
        ("--top-k", whole(top_k)),
        ("--top-p", number(top_p)),
        ("--min-p", number(min_p)),
        ("--typical-p", number(typical_p)),
    ];
    let given = options.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?]));
    given.flatten().collect()
}

/// Writes a whole file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |file| file.write_all(bytes)).map_err(Error::write(path))
}

/// Creates a folder and its missing parents.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    let what = format!("cannot make the folder `{}`", folder.display());
    std::fs::create_dir_all(folder).map_err(Error::io(what))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::NotUtf8 { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::artifacts::SearchDirs;
    use crate::find::names;
    use cli::Cli;

    #[test]
    fn the_steps_of_every_benchmark_are_commands_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        let mut steps = 0;
        for name in names() {
            let benchmark = Benchmark::find(&name).unwrap();
            let mut artifacts = artifacts::locate(&benchmark, &SearchDirs::default()).unwrap();
            artifacts.iter_mut().for_each(|p| p.found = Some("there".into()));
            let job = BenchmarkJob {
                benchmark: name.clone(),
                dirs: SearchDirs::default(),
                output: dir.path().to_owned(),
                limit: None,
                search: false,
                device: "cpu".into(),
                program: "gen".into(),
            };
            for step in of(&benchmark, &artifacts, dir.path(), Some(1.5), &job).unwrap() {
                let line = step.line();
                let typed = std::iter::once("gen".to_owned()).chain(step.args);
                Cli::try_parse_from(typed).unwrap_or_else(|e| panic!("{name}: {line}: {e}"));
                steps += 1;
            }
        }
        assert!(steps > 60, "{steps}");
    }

    #[test]
    fn a_dry_run_draws_the_first_prompts() {
        let dir = tempfile::tempdir().unwrap();
        let parti = dir.path().join("PartiPrompts.tsv");
        std::fs::write(&parti, "Prompt\tCategory\na \"dog\"\tAnimals\nb\tAbstract\nc\tAbstract\n").unwrap();
        let benchmark = Benchmark::find("llamagen-xl-t2i-256-partiprompts").unwrap();
        let mut artifacts = artifacts::locate(&benchmark, &SearchDirs::default()).unwrap();
        artifacts.iter_mut().for_each(|p| p.found = Some("files/there".into()));
        artifacts.iter_mut().find(|p| p.what == artifacts::PROMPTS).unwrap().found = Some(parti.clone());
        let mut job = BenchmarkJob {
            benchmark: String::new(),
            dirs: SearchDirs::default(),
            output: dir.path().to_owned(),
            limit: None,
            search: false,
            device: "cpu".into(),
            program: "gen".into(),
        };
        let prompts = |job: &BenchmarkJob| {
            of(&benchmark, &artifacts, dir.path(), None, job).unwrap()[0].args[2].clone()
        };
        assert_eq!(Path::new(&prompts(&job)), parti);
        job.limit = Some(2);
        let written = std::fs::read_to_string(prompts(&job)).unwrap();
        assert_eq!(written, "{\"prompt\":\"a \\\"dog\\\"\"}\n{\"prompt\":\"b\"}\n");
    }
}
