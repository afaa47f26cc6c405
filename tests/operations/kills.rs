//! `kill -9` at random moments.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::common::{TINY, TrainingPlace};

/// Everything with a state: discriminator with batch statistics and running means (LeCam),
/// augmentation, a perceptual loss, accumulated bf16 steps with fp32 weights, moving averages,
/// decoding threads.
const EVERYTHING: &[&str] = &[
    "losses.adversarial={weight: 0.1, start_step: 3, discriminator: {channels: 4, layers: 2}, diffaug: {}, \
     loss: non_saturating, lecam: {weight: 0.1}}",
    "losses.perceptual={type: features, network: features, weight: 0.1}",
    "optimization.batch_size=8",
    "optimization.micro_batches=2",
    "optimization.precision=bf16",
    "optimization.ema=0.9",
    "data.workers=3",
    "every={log: 1, validate: 0, save: 2, keep: 2, milestone: 10}",
];

/// The newest state's name.
fn saved(run: &Path) -> Option<std::ffi::OsString> {
    let names = std::fs::read_dir(run.join("state")).ok()?.map(|e| e.unwrap().file_name());
    names.filter(|n| n.to_string_lossy().ends_with(".json")).max()
}

/// A generator of delays: SplitMix64.
struct Delays(u64);

impl Delays {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// Kills the process at a random moment: sometimes during startup, mostly some time after its first
/// save. True if it was still running.
fn kill(child: &mut Child, run: &Path, delays: &mut Delays) -> bool {
    if delays.below(5) > 0 {
        let (before, began) = (saved(run), Instant::now());
        while saved(run) <= before && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(120), "no state in two minutes");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    std::thread::sleep(Duration::from_millis(delays.below(300)));
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    running
}

/// Names, shapes and values of a file's tensors.
fn tensors(file: &Path) -> Vec<(String, Vec<i64>, Vec<u8>)> {
    let source = weights::Checkpoint::open(file).unwrap().section(None).unwrap();
    let names: Vec<String> = source.names().into_iter().map(str::to_owned).collect();
    let one = |n: String| {
        let (shape, bytes) = (source.info(&n).unwrap().shape, source.bytes(&n).unwrap().into_owned());
        (n, shape, bytes)
    };
    names.into_iter().map(one).collect()
}

/// All logged numbers but those of time.
fn logged(run: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let untimed = |line: &str| {
        let mut all: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        let timed = ["mfu", "data_wait", "images_per_second"];
        all.retain(|key, _| !key.starts_with("seconds") && !timed.contains(&key.as_str()));
        all
    };
    text.lines().map(untimed).collect()
}

/// The command that resumes `broken/`, or starts it if a kill came before the first save.
fn go_on(place: &TrainingPlace, changes: &[&str]) -> (&'static str, Vec<String>) {
    let broken = place.path("broken");
    if saved(&broken).is_some() {
        return ("train-tokenizer --resume --output broken", vec![]);
    }
    let _ = std::fs::remove_dir_all(&broken);
    ("train-tokenizer --data images --output broken", changes.iter().map(|c| (*c).to_owned()).collect())
}

/// `GEN_KILLS=50 cargo test --release --test operations kill` kills more often and trains longer.
#[test]
fn a_run_killed_at_random_moments_ends_like_one_that_was_not() {
    let kills: u64 = std::env::var("GEN_KILLS").map_or(4, |n| n.parse().unwrap());
    let steps = 12 + 4 * kills;
    let place = TrainingPlace::with_pictures();
    let features =
        ["model={image_size: 16, widths: [4, 8]}", "optimization.batch_size=4", "optimization.warmup=1"];
    let features = [&features[..], &["optimization.steps=2"]].concat();
    place.ends(0, "train-features --data images --output features", &features);

    let last_step = format!("optimization.steps={steps}");
    let changes = [TINY, EVERYTHING, &[last_step.as_str()]].concat();
    place.ends(0, "train-tokenizer --data images --output whole", &changes);
    let broken = place.path("broken");
    let (mut delays, mut hit) = (Delays(11), 0);
    for n in 0..kills {
        let (line, changes) = go_on(&place, &changes);
        let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
        let mut child = place.command(line, &changes).stderr(Stdio::null()).spawn().unwrap();
        hit += u64::from(kill(&mut child, &broken, &mut delays));
        eprintln!("kill {n}: newest state {:?}", saved(&broken));
    }
    let (line, rest) = go_on(&place, &changes);
    place.ends(0, line, &rest.iter().map(String::as_str).collect::<Vec<_>>());
    eprintln!("{hit} of {kills} kills met a running process");
    assert!(hit > kills / 2, "only {hit} of {kills} kills met a running process");

    let last = format!("state/step-{steps:09}.safetensors");
    for file in ["weights.safetensors", &last, "state/step-000000010.safetensors"] {
        let (a, b) = (tensors(&place.path("whole").join(file)), tensors(&broken.join(file)));
        assert_eq!(a.len(), b.len());
        for (a, b) in a.into_iter().zip(b) {
            assert!(a == b, "{file}: `{}` differs", a.0);
        }
    }
    assert_eq!(logged(&place.path("whole")), logged(&broken));
    let left = std::fs::read_dir(broken.join("state")).unwrap().chain(std::fs::read_dir(&broken).unwrap());
    let partial = left.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".partial"));
    assert_eq!(partial.count(), 0, "unfinished files are cleared away");
}

#[test]
fn a_damaged_newest_state_is_passed_over_with_a_word() {
    let place = TrainingPlace::with_pictures();
    let steps = ["optimization.steps=4", "every={log: 1, validate: 0, save: 2}"];
    place.ends(0, "train-tokenizer --data images --output run", &[TINY, &steps].concat());
    let newest = place.path("run/state/step-000000004.safetensors");
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&newest, bytes).unwrap();
    let weights = tensors(&place.path("run/weights.safetensors"));
    let (_, stderr) = place.ends(0, "train-tokenizer --resume --output run", &[]);
    assert!(stderr.contains("passing over `run/state/step-000000004.json`"), "{stderr}");
    assert!(stderr.contains("expected SHA-256") && stderr.contains("resuming after step 2"), "{stderr}");
    assert!(weights == tensors(&place.path("run/weights.safetensors")), "the weights differ");
}
