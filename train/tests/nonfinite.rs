//! Losses and gradients that are not finite, with a toy task.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use base::carried::{self, Change};
use base::{Build, Init, Progress, Vars};
use data::{LeftOut, Partition};
use dist::World;
use serde::Serialize;
use serde_json::json;
use tch::{Device, Kind, Tensor};
use train::recipe::{Intervals, OnNonfinite, Optimization};
use train::{
    Common, CommonKeys, DataFacts, Error, Losses, Module, Outcome, Phase, Recipe, Result, Run, RunCost,
    Share, Task, TrainingData,
};

#[derive(Serialize)]
struct ToyRecipe {
    optimization: Optimization,
}

impl CommonKeys for ToyRecipe {
    fn common(&self) -> Common<'_> {
        let every = json!({ "log": 1, "validate": 0, "save": 1, "keep": 1 });
        let every: Intervals = serde_json::from_value(every).unwrap();
        Common { seed: 0, optimization: &self.optimization, every, init_from: None, freeze: &[] }
    }
}

impl Recipe for ToyRecipe {
    fn cost(&self) -> Result<RunCost> {
        Err(Error::Recipe("nobody asks what a toy costs".into()))
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        vec![]
    }
}

/// Fault that is injected in a range of steps.
#[derive(Clone, Copy, PartialEq)]
enum Harm {
    /// A term of the loss is NaN.
    Loss,
    /// The loss is 0, its gradient infinite: the square root of 0.
    Gradient,
}

/// `(a · 1 - 1)² + √(b² + c)`, with a running count of forward passes as a buffer.
struct Toy {
    vars: Vars,
    a: Tensor,
    b: Tensor,
    seen: Tensor,
    recipe: ToyRecipe,
    harm: (Harm, std::ops::Range<u64>),
    phases: Vec<Phase>,
    data: NoData,
    /// Whether the loss of a second phase has no gradient.
    broken: bool,
}

impl Toy {
    fn new(on_nonfinite: OnNonfinite, harm: Harm, steps: std::ops::Range<u64>) -> Self {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let root = vars.root();
        let optimization = json!({
            "steps": 6, "batch_size": 4, "micro_batches": 2, "lr": 0.1, "warmup": 0, "clip": 0.0, "ema": null,
            "schedule": { "type": "constant" }, "precision": "fp32", "on_nonfinite": on_nonfinite,
            "adamw": { "betas": [0.9, 0.95], "weight_decay": 0.0, "decay": "all" },
        });
        Toy {
            a: (&root / "first").var("weight", &[3], Init::Const(0.0)),
            b: (&root / "second").var("weight", &[3], Init::Const(0.0)),
            seen: root.buffer("seen", &[], Kind::Float, Init::Const(0.0)),
            vars,
            recipe: ToyRecipe { optimization: serde_json::from_value(optimization).unwrap() },
            harm: (harm, steps),
            phases: vec![Phase { name: "model", start: 1 }],
            data: NoData,
            broken: false,
        }
    }

    fn seen(&self) -> f64 {
        self.seen.double_value(&[])
    }
}

struct NoData;

impl TrainingData for NoData {
    type Batch = ();

    fn next(&mut self) -> Result<()> {
        Ok(())
    }
    fn share(&mut self, _partition: Partition) {}
    fn position(&self) -> Result<String> {
        Ok(String::new())
    }
    fn restore(&mut self, _position: &str) -> Result<()> {
        Ok(())
    }
    fn facts(&self) -> Result<DataFacts> {
        Ok(DataFacts { description: "nothing".into(), records: 0, fingerprint: "0".into() })
    }
    fn skipped(&self) -> Vec<LeftOut> {
        vec![]
    }
}

impl Task for Toy {
    type Batch = ();
    type Recipe = ToyRecipe;
    type Data = NoData;

    fn phases(&self) -> &[Phase] {
        &self.phases
    }
    fn module(&self, phase: usize) -> Module<'_> {
        Module { name: ["model", "late"][phase], vars: &self.vars }
    }
    fn recipe(&self) -> &ToyRecipe {
        &self.recipe
    }
    fn data(&self) -> &NoData {
        &self.data
    }
    fn data_mut(&mut self) -> &mut NoData {
        &mut self.data
    }
    fn prepare(&self, _batch: ()) -> Result<()> {
        Ok(())
    }
    fn losses(&self, _batch: &mut (), phase: usize, step: u64) -> Result<Losses> {
        let mut losses = Losses::new();
        if phase == 1 && self.broken {
            losses.add("late", self.a.detach().sum(Kind::Float), 1.0);
            return Ok(losses);
        }
        let harmed = self.harm.1.contains(&step);
        let poison = if harmed { f32::NAN } else { 1.0 };
        carried::change(&self.seen, Change::Add(Tensor::from(poison)));
        let scale = if harmed && self.harm.0 == Harm::Loss { f64::NAN } else { 1.0 };
        losses.add("square", (&self.a - 1.0).square().sum(Kind::Float) * scale, 1.0);
        let shift = if harmed && self.harm.0 == Harm::Gradient { 0.0 } else { 1.0 };
        losses.add("root", (self.b.square() + shift).sqrt().sum(Kind::Float), 1.0);
        Ok(losses)
    }
    fn validate(&mut self, _share: Share<'_>) -> Result<Vec<(&'static str, f64)>> {
        Ok(vec![])
    }
    fn write_model_files(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }
}

/// Keeps the warnings.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Progress for Warnings {
    fn start(&mut self, _what: &str, _total: Option<u64>) {}
    fn advance(&mut self, _n: u64) {}
    fn message(&mut self, _text: &str) {}
    fn warn(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
    fn finish(&mut self) {}
}

fn go(toy: &mut Toy, dir: &Path) -> (Result<Outcome>, Vec<String>) {
    let stop = AtomicBool::new(false);
    let run = Run {
        dir,
        resume: None,
        stop: &stop,
        program: "test",
        device: "CPU",
        tf32: false,
        world: &World::default(),
        peak: None,
    };
    let mut warnings = Warnings::default();
    let outcome = train::train(toy, &run, &mut warnings);
    (outcome, warnings.0)
}

fn logged(dir: &Path, key: &str) -> Vec<Option<f64>> {
    let text = std::fs::read_to_string(dir.join("log.jsonl")).unwrap();
    text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()[key].as_f64()).collect()
}

#[test]
fn term_and_layer_are_named_before_anything_is_updated() {
    for (harm, says) in [
        (Harm::Loss, "step 3, model: loss `square`, the gradient of `first.weight` is not finite"),
        (Harm::Gradient, "step 3, model: the gradient of `second.weight` is not finite"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut toy = Toy::new(OnNonfinite::Stop, harm, 3..4);
        let error = go(&mut toy, dir.path()).0.unwrap_err();
        assert!(matches!(error, Error::NotFinite { step: 3, .. }));
        assert!(error.to_string().starts_with(says), "{error}");
        assert!(toy.a.isfinite().all().int64_value(&[]) == 1 && toy.b.isfinite().all().int64_value(&[]) == 1);
        assert_eq!(train::TrainCheckpoint::newest(dir.path()).unwrap().0.step, 2);
    }
}

/// Before anything is written, and without a trace where it can run.
#[test]
fn a_late_phase_that_cannot_run_stops_the_run_at_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut toy = Toy::new(OnNonfinite::Stop, Harm::Loss, 0..0);
    toy.phases.push(Phase { name: "late", start: 4 });
    toy.broken = true;
    let (outcome, _) = go(&mut toy, dir.path());
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Later { step: 4, .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(toy.seen(), 0.0);
    // `--plan` finds it too.
    assert!(matches!(train::rehearse(&mut toy), Err(Error::Later { step: 4, .. })));
    assert_eq!(toy.seen(), 0.0);

    toy.broken = false;
    go(&mut toy, dir.path()).0.unwrap();
    assert_eq!(toy.seen(), 18.0, "six steps of two micro-batches, three of them in both phases");
    let mut never = Toy::new(OnNonfinite::Stop, Harm::Loss, 0..0);
    never.phases.push(Phase { name: "late", start: 7 });
    never.broken = true;
    go(&mut never, tempfile::tempdir().unwrap().path()).0.unwrap();
}

#[test]
fn single_steps_can_be_left_out_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut toy = Toy::new(OnNonfinite::Skip, Harm::Gradient, 3..5);
    let (outcome, warnings) = go(&mut toy, dir.path());
    assert_eq!(outcome.unwrap(), Outcome { step: 6, interrupted: false });
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[1].contains("step 4") && warnings[1].contains("(2 left out so far)"), "{warnings:?}");
    assert_eq!(logged(dir.path(), "skipped_steps"), [None, None, Some(1.0), Some(2.0), Some(2.0), Some(2.0)]);
    let squares = logged(dir.path(), "square");
    assert_eq!((squares[2], squares[3]), (None, None), "what was left out is no part of any average");
    assert_eq!(
        toy.seen(),
        8.0,
        "four steps of two micro-batches; the statistics of the others are taken back"
    );
    // The same updates as a run that has only the four steps.
    let other = tempfile::tempdir().unwrap();
    let mut four = Toy::new(OnNonfinite::Stop, Harm::Loss, 0..0);
    four.recipe.optimization.steps = 4;
    go(&mut four, other.path()).0.unwrap();
    assert_eq!(toy.a, four.a);
    let saved = train::TrainCheckpoint::newest(dir.path()).unwrap().0;
    assert_eq!((saved.stats.skipped, saved.stats.samples), (2, 24));
}

#[test]
fn a_run_that_only_skips_stops_after_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut toy = Toy::new(OnNonfinite::Skip, Harm::Loss, 3..1000);
    toy.recipe.optimization.steps = 500;
    let (outcome, warnings) = go(&mut toy, dir.path());
    assert!(matches!(outcome, Err(Error::NotFinite { step: 102, .. })));
    assert_eq!(warnings.len(), 99);
}
