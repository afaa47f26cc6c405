//! Several processes on this machine: this binary starts itself again.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use dist::{Error, JoinSettings, LIMIT_VARIABLE, LaunchPlan, World, launch};
use settings::Launch;

const SCENARIO: &str = "DIST_TEST_SCENARIO";
const HEARD: &str = "DIST_TEST_HEARD";

fn heard_file(scenario: &str) -> PathBuf {
    std::env::temp_dir().join(format!("dist-test-{}-{scenario}", std::process::id()))
}

/// Runs a scenario of [`child`] in several processes; returns the exit code and the launcher's
/// notes.
fn run(scenario: &str, processes: usize, max_restarts: u32) -> (i32, Vec<String>) {
    let stop = AtomicBool::new(false);
    let plan = LaunchPlan { processes, max_restarts, threads: 1, stop: &stop };
    let command = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--nocapture"]).env(SCENARIO, scenario).env(LIMIT_VARIABLE, "8");
        command.env(HEARD, heard_file(scenario));
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
    let launch = Launch::from_env().unwrap().unwrap();
    let rank = launch.rank;
    let other = if scenario == "another program" && rank == 1 { "b" } else { "a" };
    let settings = JoinSettings {
        program: other.into(),
        rendezvous: Duration::from_secs(60),
        exchange: Duration::from_secs(60),
        last_words: Box::new(heard), // the exit code that follows is 2
    };
    let world = match World::join(launch, settings) {
        Ok(world) => world,
        Err(error @ Error::Mismatch { .. }) if scenario == "another program" => {
            assert!(error.to_string().contains("`a` and `b`"), "{error}");
            std::process::exit(4);
        }
        Err(error) => panic!("{error}"),
    };
    world.note("work");
    match scenario.as_str() {
        "exchange" => exchange(&world),
        "killed" if rank == 1 => {
            std::thread::sleep(Duration::from_secs(3)); // some heartbeats
            std::process::abort();
        }
        "restarted" if std::env::var("TORCHELASTIC_RESTART_COUNT").unwrap() == "0" && rank == 1 => {
            world.fail("the first attempt");
            world.end(7);
        }
        "failed" if rank == 1 => {
            assert!(world.fail("the disk is full"));
            world.end(3);
        }
        "failed" => {
            let error = world.barrier().unwrap_err();
            let text = error.to_string();
            heard(&text);
            assert!(text.contains("rank 1") && text.ends_with("failed: the disk is full"), "{text}");
            world.end(6);
        }
        _ => world.barrier().unwrap_or_else(|_| std::thread::sleep(Duration::from_secs(30))),
    }
    world.leave();
}

/// Keeps the failure that a process heard of for the test, which sees exit codes only.
fn heard(text: &str) {
    if let Ok(file) = std::env::var(HEARD) {
        std::fs::write(file, text).unwrap();
    }
}

fn exchange(world: &World) {
    let (rank, size) = (world.rank(), world.size());
    let long = vec![u8::try_from(rank).unwrap(); 100_000 * rank];
    let all = world.gather(long).unwrap();
    if world.is_first() {
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [0, 100_000, 200_000]);
        assert!(all[2].iter().all(|byte| *byte == 2));
    }
    let told: Vec<String> = world.from_first(|| Ok::<_, Error>(vec!["a".into(), "b".into()])).unwrap();
    assert_eq!(told, ["a", "b"]);
    let units: Vec<usize> = (0..20).collect();
    let mut mine = vec![];
    while let Some(unit) = world.take("units", &units).unwrap() {
        mine.push(*unit);
    }
    let mut taken = world.gather_values(&mine).unwrap().concat();
    taken.sort_unstable();
    assert!(if rank == 0 { taken == units } else { taken.is_empty() });
    world.add("sum", 2).unwrap();
    world.barrier().unwrap();
    assert_eq!(world.add("sum", 0).unwrap(), 2 * i64::try_from(size).unwrap());
}

#[test]
fn processes_exchange_bytes_and_share_work() {
    assert_eq!(run("exchange", 3, 0), (0, vec![]));
}

#[test]
fn a_failure_is_told_to_the_others_in_its_own_words() {
    let (code, notes) = run("failed", 2, 0);
    assert!(code == 3 || code == 6, "{code}");
    assert!(notes[0].contains("ended first"), "{notes:?}");
    let text = std::fs::read_to_string(heard_file("failed")).unwrap();
    assert!(text.contains("rank 1") && text.ends_with("failed: the disk is full"), "{text}");
    std::fs::remove_file(heard_file("failed")).unwrap();
}

#[test]
fn a_process_that_is_gone_is_named_by_the_heartbeats() {
    let start = Instant::now();
    let (code, notes) = run("killed", 3, 0);
    let text = std::fs::read_to_string(heard_file("killed")).unwrap();
    assert!(text.contains("rank 1") && text.contains("it was at: work"), "{text}");
    std::fs::remove_file(heard_file("killed")).unwrap();
    assert_eq!(code, 2);
    assert!(notes[0].contains("rank 1 of 3") && notes[0].contains("SIGABRT"), "{notes:?}");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn all_are_started_again_after_a_failure() {
    let (code, notes) = run("restarted", 2, 1);
    assert_eq!(code, 0);
    assert!(notes.len() == 1 && notes[0].contains("starting again (1 of 1)"), "{notes:?}");
}

#[test]
fn another_program_is_refused_by_name() {
    let (code, _) = run("another program", 2, 0);
    assert_eq!(code, 4);
}

#[test]
fn a_single_process_is_a_world_of_one() {
    let world = World::default();
    assert_eq!((world.rank(), world.size(), world.is_first()), (0, 1, true));
    assert_eq!(world.gather(vec![1, 2]).unwrap(), [vec![1, 2]]);
    assert_eq!(world.from_first(|| Ok::<_, Error>(5)).unwrap(), 5);
    let units = [7, 8];
    let taken: Vec<i32> = std::iter::from_fn(|| world.take("units", &units).unwrap().copied()).collect();
    assert_eq!(taken, units);
    world.barrier().unwrap();
    assert!(world.fail("alone"));
    world.leave();
}
