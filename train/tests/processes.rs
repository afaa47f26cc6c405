//! Training by several processes gives the bits of one: this binary starts itself again.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{ar_task, contents, go, go_with, images, newest_state, tokenizer_task};
use dist::{JoinSettings, LIMIT_VARIABLE, LaunchPlan, World, launch};
use settings::Launch;

const SCENARIO: &str = "TRAIN_TEST_SCENARIO";
const PLACE: &str = "TRAIN_TEST_PLACE";
const OUTPUT: &str = "TRAIN_TEST_OUTPUT";
const STEPS: &str = "TRAIN_TEST_STEPS";

/// Runs a scenario of [`child`] in `processes` processes for at most `steps` steps; returns the exit
/// code and the launcher's notes.
fn run(
    place: &Path,
    scenario: &str,
    output: &str,
    (processes, steps): (usize, u64),
    max_restarts: u32,
) -> (i32, Vec<String>) {
    let stop = AtomicBool::new(false);
    let plan = LaunchPlan { processes, max_restarts, threads: 1, stop: &stop };
    let command = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--nocapture"]).env(SCENARIO, scenario).env(LIMIT_VARIABLE, "8");
        command.env(PLACE, place).env(OUTPUT, output).env(STEPS, steps.to_string());
        command
    };
    let notes = std::cell::RefCell::new(vec![]);
    let code = launch(&plan, command, |note| notes.borrow_mut().push(note.to_owned())).unwrap();
    (code, notes.into_inner())
}

/// One of the processes; nothing where this is the test's own.
#[test]
fn child() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let world = Launch::from_env().unwrap().map_or_else(World::default, |launch| {
        let settings = JoinSettings {
            program: "test".into(),
            rendezvous: Duration::from_secs(60),
            exchange: Duration::from_secs(60),
            last_words: Box::new(|_| {}),
        };
        World::join(launch, settings).unwrap()
    });
    tch::set_num_threads(1);
    let variable = |name| std::env::var(name).unwrap();
    let place = Path::new(&variable(PLACE)).to_owned();
    let steps = variable(STEPS).parse().unwrap();
    if scenario == "killed" && world.rank() == 1 && !world.is_restart() {
        let states = place.join(variable(OUTPUT)).join("state");
        std::thread::spawn(move || {
            let saved = |entry: std::io::Result<std::fs::DirEntry>| {
                entry.is_ok_and(|entry| entry.path().extension().is_some_and(|e| e == "json"))
            };
            while !std::fs::read_dir(&states).is_ok_and(|mut all| all.any(saved)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::process::abort();
        });
    }
    if let Err(error) = train(&scenario, &place, &place.join(variable(OUTPUT)), steps, &world) {
        world.fail(&error.to_string());
        world.end(3);
        std::process::exit(3);
    }
    world.leave();
}

fn train(
    scenario: &str,
    place: &Path,
    output: &Path,
    steps: u64,
    world: &World,
) -> train::Result<train::Outcome> {
    let pictures = place.join("images");
    let validation = format!("data.validation={}", pictures.display());
    let every = "every={log: 1, validate: 3, save: 2}";
    let shared = ["optimization.batch_size=8", "optimization.micro_batches=4", every];
    let lecam = "losses.adversarial.lecam={weight: 0.1}";
    match scenario {
        "transformer" => {
            let data = format!("data.images.train={}", pictures.display());
            let validation = format!("data.images.validation={}", pictures.display());
            let dropout = "model.dropout={token: 0.1, residual: 0.1, feed_forward: 0.1, condition: 0.1}";
            let changes = [&shared[..], &[&data, &validation, dropout]].concat();
            go_with(ar_task(&place.join("tokenizer"), &changes), output, steps, world)
        }
        "odd" => go_with(tokenizer_task(&pictures, &["optimization.micro_batches=2"]), output, steps, world),
        "killed" => {
            let long = ["optimization.steps=40", "every={log: 1, validate: 0, save: 2}"];
            let changes = [&shared[..2], &long].concat();
            go_with(tokenizer_task(&pictures, &changes), output, steps, world)
        }
        _ => {
            let changes = [&shared[..], &[&validation, lecam]].concat();
            go_with(tokenizer_task(&pictures, &changes), output, steps, world)
        }
    }
}

/// The log without times and speeds.
fn log(dir: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(dir.join("log.jsonl")).unwrap();
    let timed = ["seconds", "images_per_second", "codes_per_second", "mfu", "data_wait"];
    let line = |line: &str| {
        let mut line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        line.retain(|key, _| !timed.contains(&key.as_str()) && !key.starts_with("seconds/"));
        line.into()
    };
    text.lines().map(line).collect()
}

fn assert_same(place: &Path, one: &str, other: &str) {
    let [one, other] = [one, other].map(|name| place.join(name));
    assert_eq!(log(&one), log(&other), "{}", other.display());
    let weights = [&one, &other].map(|dir| dir.join("weights.safetensors"));
    for [one, other] in [[newest_state(&one), newest_state(&other)], weights] {
        let [a, b] = [&one, &other].map(|file| {
            let mut all = contents(file);
            all.sort();
            all
        });
        let names = |all: &[(String, Vec<i64>, Vec<u8>)]| all.iter().map(|t| t.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&a), names(&b), "{}", other.display());
        for (a, b) in a.into_iter().zip(b) {
            assert!(a == b, "{} of {}", a.0, other.display());
        }
    }
}

/// Without a difference in any bit: weights, moments, averages, buffers, losses, validation.
#[test]
fn the_number_of_processes_does_not_matter() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let pictures = images(place);
    go(tokenizer_task(&pictures, &[]), &place.join("tokenizer"), 2).unwrap();
    for (scenario, many) in [("patchgan", &[2, 4][..]), ("transformer", &[2])] {
        let output = |processes: usize| format!("{scenario}-{processes}");
        for &processes in [1].iter().chain(many) {
            assert_eq!(run(place, scenario, &output(processes), (processes, 99), 0).0, 0, "{processes}");
            assert_same(place, &output(1), &output(processes));
        }
    }
}

/// Several processes agree to stop a step after the signal. Where a run is stopped, a validation that
/// is due is left out; here none is.
#[test]
fn another_number_of_processes_resumes() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    images(place);
    assert_eq!(run(place, "patchgan", "whole", (1, 99), 0).0, 0);
    for part in [(2, 3), (1, 1), (4, 99)] {
        assert_eq!(run(place, "patchgan", "parts", part, 0).0, 0, "{part:?}");
    }
    assert_same(place, "whole", "parts");
}

#[test]
fn a_killed_process_is_named_and_a_restart_continues() {
    let place = tempfile::tempdir().unwrap();
    images(place.path());
    let (code, notes) = run(place.path(), "killed", "run", (2, 99), 1);
    assert_eq!(code, 0, "{notes:?}");
    assert!(notes[0].contains("rank 1 of 2") && notes[0].contains("SIGABRT"), "{notes:?}");
    assert_eq!(log(&place.path().join("run")).last().unwrap()["step"], 40);
}

#[test]
fn processes_that_cannot_share_the_micro_batches_are_refused() {
    let place = tempfile::tempdir().unwrap();
    images(place.path());
    assert_eq!(run(place.path(), "odd", "run", (3, 9), 0).0, 3);
    assert!(!place.path().join("run").exists());
}
