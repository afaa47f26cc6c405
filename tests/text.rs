//! `gen sample --prompt`, end to end, on a tiny model with random weights.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use common::{Tiny, write_model, write_text_model};
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_text_model(&dir.path().join("model"));
        Place(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn sample(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gen"));
        command.current_dir(self.0.path()).args(["sample", "--device", "cpu"]);
        if !args.iter().any(|a| ["--from", "--model"].contains(a)) {
            command.args(["--model", "model"]);
        }
        command.args(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> Output {
        let out = self.sample(args);
        assert!(out.status.success(), "{args:?}: {}", stderr(&out));
        out
    }

    /// The message of a command that must fail with exit code 2.
    fn fails(&self, args: &[&str]) -> String {
        let out = self.sample(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", stderr(&out));
        stderr(&out)
    }
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn pixels(path: &Path) -> Vec<u8> {
    image::open(path).unwrap().to_rgb8().into_raw()
}

#[test]
fn the_same_seed_and_prompt_make_the_same_image_whatever_stands_beside_it() {
    let place = Place::new();
    std::fs::write(place.path("a.txt"), "a dog\na photo of a red panda\n\na dog\n").unwrap();
    std::fs::write(
        place.path("b.txt"),
        "a dog\na dog on a very long and winding road to nowhere at all\nb\n",
    )
    .unwrap();
    // Weak guidance: strong guidance of random weights leaves one code at most places, and nothing to chance.
    for (file, batch, folder) in [("a.txt", "1", "one"), ("a.txt", "3", "three"), ("b.txt", "3", "others")] {
        place.ok(&["--prompts", file, "--cfg", "1.5", "--batch-size", batch, "--output", folder]);
    }
    for i in 0..3 {
        let name = format!("{i:06}.png");
        let (one, three) = (place.path("one").join(&name), place.path("three").join(&name));
        assert_eq!(pixels(&one), pixels(&three), "image {i}");
    }
    let first = |folder: &str| pixels(&place.path(folder).join("000000.png"));
    assert_eq!(first("one"), first("others"), "the same prompt with other neighbours");
    let third = pixels(&place.path("one/000002.png"));
    assert!(first("one") != third, "the same prompt under another number");
}

#[test]
fn prompts_of_every_kind_have_a_defined_outcome() {
    let place = Place::new();
    let long = "word ".repeat(2000);
    let prompts = ["🐶🏽 émoji ❤️", &long, "", "a\u{1}b\tc\nd\u{7f}", "\u{202b}כלב אדום\u{202c} قط", "x"];
    let mut args: Vec<&str> = prompts.iter().flat_map(|p| ["--prompt", p]).collect();
    args.extend(["--output", "out", "--json"]);
    let out = place.ok(&args);
    assert!(stderr(&out).contains("longer than 12 tokens"), "{}", stderr(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let images = report["images"].as_array().unwrap();
    assert_eq!(images.len(), prompts.len());
    let listed = std::fs::read_to_string(place.path("out/result.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = listed.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for (i, prompt) in prompts.iter().enumerate() {
        assert_eq!(images[i]["prompt"], *prompt);
        assert_eq!(rows[i]["text"], *prompt);
        assert_eq!(rows[i]["image_path"], format!("{i:06}.png"));
        // What the picture itself remembers makes it again.
        let png = format!("out/{i:06}.png");
        let again = place.ok(&["--from", &png, "--output", "again"]);
        assert!(stderr(&again).contains("pixel for pixel"), "{}", stderr(&again));
    }
}

#[test]
fn a_negative_prompt_replaces_the_null_condition_and_is_remembered() {
    let place = Place::new();
    let dog = ["--prompt", "a dog", "--cfg", "4", "--seed", "3"];
    let run = |more: &[&str]| place.ok(&[&dog[..], more].concat());
    run(&["--output", "plain"]);
    run(&["--output", "negative", "--negative-prompt", "a photo of a red panda"]);
    let image = |folder: &str| pixels(&place.path(folder).join("000000.png"));
    assert_ne!(image("plain"), image("negative"));
    let again = place.ok(&["--from", "negative/000000.png", "--output", "again"]);
    assert!(stderr(&again).contains("pixel for pixel"), "{}", stderr(&again));
    assert_eq!(image("negative"), image("again"));
}

#[test]
fn an_npz_of_prompts_is_refused_to_another_list_and_sizes_are_obeyed() {
    let place = Place::new();
    place.ok(&["--prompt", "a dog", "--prompt", "a cat", "--num", "2", "--npz", "x.npz", "--size", "20"]);
    let bytes = std::fs::read(place.path("x.npz")).unwrap();
    assert!(bytes.len() > 4 * 20 * 20 * 3);
    std::fs::write(place.path("y.npz.partial.json"), "{}").unwrap();
    let error = place.fails(&["--prompt", "a dog", "--npz", "y.npz"]);
    assert!(error.contains("prompts"), "{error}");
}

#[test]
fn what_does_not_go_together_is_said() {
    let place = Place::new();
    assert!(place.fails(&["--class", "207"]).contains("draws prompts, not classes"));
    assert!(place.fails(&["--num-images", "3"]).contains("draws prompts"));
    assert!(place.fails(&["--prompts", "none.txt"]).contains("none.txt"));
    let error = place.fails(&["--prompt", "a dog", "--text-encoder", "elsewhere"]);
    assert!(error.contains("a text encoder of its own"), "{error}");
    write_model(&place.path("classes"), Tiny::default());
    let error = place.fails(&["--prompt", "a dog", "--model", "classes"]);
    assert!(error.contains("draws classes, not prompts"), "{error}");
    std::fs::write(place.path("blank.txt"), "\n  \n").unwrap();
    assert!(place.fails(&["--prompts", "blank.txt"]).contains("holds no prompt"));
}
