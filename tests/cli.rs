//! The command line itself: help, exit codes and error messages.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::{Place, Tiny, stderr, write_model};
use assert_cmd::Command;
use weights::{Checkpoint, Want};

fn place() -> Place {
    let place = Place::new("", "");
    write_model(&place.path("model"), Tiny::default());
    place.picture("a.png", (16, 16), |_, _| [9, 99, 199]);
    place
}

/// Message of a command that must fail in the common way: a sentence, a hint, exit code 2, nothing
/// on stdout, and no new files in the folder.
fn fails(place: &Place, line: &str) -> String {
    let before = listing(place.dir());
    let text = place.fails(line);
    assert!(text.contains("error: ") && text.contains("hint: "), "{line}: {text}");
    assert!(!text.contains("panicked") && !text.contains(".rs:"), "{line}: {text}");
    assert_eq!(listing(place.dir()), before, "{line}");
    text
}

fn gen_in(dir: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gen"));
    command.env("OMP_NUM_THREADS", "1").current_dir(dir).args(line.split_whitespace()).output().unwrap()
}

/// Every file and folder below `dir`.
fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![];
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(listing(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

#[test]
fn every_verb_explains_itself() {
    let here = Path::new(".");
    let out = gen_in(here, "--help");
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).unwrap();
    let verbs: Vec<&str> = text
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty())
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(verbs.contains(&"reconstruct") && verbs.contains(&"doctor"), "{text}");
    for verb in verbs.iter().filter(|v| **v != "help") {
        let out = gen_in(here, &format!("{verb} --help"));
        assert!(out.status.success(), "{verb}");
    }
    assert!(gen_in(here, "--version").status.success());
    assert_eq!(gen_in(here, "paint").status.code(), Some(2));
    assert_eq!(gen_in(here, "doctor --device tpu").status.code(), Some(2));
}

/// `gen` itself does not load libtorch, so that help is instant; commands that need it run in
/// `gen-torch` beside it.
#[test]
fn help_and_usage_errors_need_only_the_launcher() {
    let place = Place::new("", "");
    let (alone, linked) = (place.path("gen"), place.path("linked"));
    std::fs::copy(env!("CARGO_BIN_EXE_gen"), &alone).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_gen"), &linked).unwrap();
    let run =
        |program: &Path, line: &str| Command::new(program).args(line.split_whitespace()).output().unwrap();

    assert!(run(&alone, "sample --help").status.success());
    let out = run(&alone, "sample --clas 207");
    assert!(out.status.code() == Some(2) && stderr(&out).contains("'--class'"), "{}", stderr(&out));
    let out = run(&alone, "doctor");
    assert!(out.status.code() == Some(2) && stderr(&out).contains("`gen-torch`"), "{}", stderr(&out));
    assert!(stderr(&out).contains("hint: "), "{}", stderr(&out));
    assert!(run(&linked, "doctor --device cpu --threads 1").status.success());
}

#[test]
fn the_launcher_says_how_long_openmp_looks_for_work_unless_told() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("", "");
    let (launcher, program) = (place.path("gen"), place.path("gen-torch"));
    std::fs::copy(env!("CARGO_BIN_EXE_gen"), &launcher).unwrap();
    std::fs::write(&program, "#!/bin/sh\necho \"$GOMP_SPINCOUNT\"\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let spins = |name: &str, value: &str| {
        let mut command = Command::new(&launcher);
        command.arg("doctor").env_remove("GOMP_SPINCOUNT").env_remove("OMP_WAIT_POLICY").env(name, value);
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_string()
    };
    assert_eq!(spins("OTHER", ""), "10000");
    assert_eq!(spins("GOMP_SPINCOUNT", "7"), "7");
    assert_eq!(spins("OMP_WAIT_POLICY", "active"), "");
}

#[test]
fn cuda_graphs_are_for_cuda() {
    let text = fails(&place(), "sample --class 1 --cuda-graph --device cpu");
    assert!(text.contains("the device is cpu"), "{text}");
}

#[test]
fn the_doctor_finds_libtorch_and_it_computes() {
    let out = gen_in(Path::new("."), "doctor --device cpu --threads 1 --json");
    assert!(out.status.success(), "{}", stderr(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(report["libtorch"].as_str().unwrap().starts_with("2.11."));
    assert_eq!(report["cpu"]["threads"], 1);
    assert_eq!(report["device"], "cpu");
    let checks = report["self_test"].as_array().unwrap();
    assert!(checks.len() >= 4 && checks.iter().all(|c| c["passed"] == true), "{checks:?}");
}

#[test]
fn paths_that_do_not_exist_are_named() {
    let place = place();
    let message = fails(&place, "reconstruct nowhere.png --tokenizer model -o out");
    assert!(message.contains("nowhere.png"), "{message}");
    let message = fails(&place, "reconstruct a.png --tokenizer modle -o out");
    assert!(message.contains("modle"), "{message}");
    let message =
        fails(&place, "reconstruct a.png --tokenizer model/tokenizer/config.yaml --weights gone.pt -o out");
    assert!(message.contains("gone.pt"), "{message}");
    let message = fails(&place, "reconstruct a.png --tokenizer model/tokenizer/config.yaml -o out");
    assert!(message.contains("add `--weights FILE`"), "{message}");
}

#[test]
fn damaged_and_wrong_checkpoints_are_told_apart() {
    let place = place();
    let weights = std::fs::read(place.path("model/tokenizer/weights.safetensors")).unwrap();
    std::fs::write(place.path("cut.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let config = "--tokenizer model/tokenizer/config.yaml";
    let message = fails(&place, &format!("reconstruct a.png {config} --weights cut.safetensors -o out"));
    assert!(message.contains("cut.safetensors` is damaged"), "{message}");
    let message = fails(&place, &format!("reconstruct a.png {config} --weights a.png -o out"));
    assert!(message.contains("a.png` is not a checkpoint"), "{message}");
    let message =
        fails(&place, &format!("reconstruct a.png {config} --weights model/weights.safetensors -o out"));
    assert!(message.contains("missing") && message.contains("gen inspect"), "{message}");
}

#[test]
fn a_cut_pt_file_is_told_from_a_whole_one() {
    let place = place();
    let file = Checkpoint::open(&place.path("model/tokenizer/weights.safetensors")).unwrap();
    let source = file.source(Want::Auto).unwrap();
    let tensors: Vec<_> = source
        .names()
        .into_iter()
        .map(|name| (name.to_owned(), source.read(name, tch::Device::Cpu).unwrap()))
        .collect();
    weights::save_torch(&place.path("whole.pt"), Some("model"), &tensors).unwrap();
    let line = "encode a.png --tokenizer model/tokenizer/config.yaml -o c.safetensors --weights";
    let out = place.run(&format!("{line} whole.pt"));
    assert!(out.status.success(), "{}", stderr(&out));
    assert!(stderr(&out).contains("`whole.pt` (section `model`)"), "it says what it took: {}", stderr(&out));
    let bytes = std::fs::read(place.path("whole.pt")).unwrap();
    std::fs::write(place.path("cut.pt"), &bytes[..bytes.len() * 2 / 3]).unwrap();
    let message = fails(&place, &format!("{line} cut.pt"));
    assert!(message.contains("cut.pt"), "{message}");
}

#[test]
fn a_typing_error_in_a_config_gets_a_suggestion() {
    let place = place();
    let config = place.path("model/tokenizer/config.yaml");
    let text = std::fs::read_to_string(&config).unwrap().replace("image_size", "image_siez");
    std::fs::write(&config, text).unwrap();
    let message = fails(&place, "reconstruct a.png --tokenizer model -o out");
    assert!(message.contains("did you mean `image_size`?"), "{message}");
}

#[test]
fn a_place_that_cannot_be_written_leaves_nothing_behind() {
    let place = place();
    std::fs::write(place.path("taken"), "a file").unwrap();
    let message = fails(&place, "reconstruct a.png --tokenizer model -o taken/out");
    assert!(message.contains("taken"), "{message}");
    let message = fails(&place, "encode a.png --tokenizer model -o nowhere/c.safetensors");
    assert!(message.contains("nowhere"), "{message}");
}

/// Runs `gen` where `disk` is a mount of its own; `None` where mounting is not allowed here.
fn on_a_mount(place: &Place, options: &str, line: &str) -> Option<Output> {
    std::fs::create_dir_all(place.path("disk")).unwrap();
    let script = format!(
        "mount -t tmpfs -o {options} none disk || exit 1; echo mounted; \"$0\" {line}; code=$?; \
         test -z \"$(ls -A disk)\" || exit 98; exit $code"
    );
    let out = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_gen")])
        .current_dir(place.dir())
        .output()
        .ok();
    let out = out.filter(|out| out.stdout.starts_with(b"mounted"));
    if out.is_none() {
        println!("skipped: this machine lets no one mount a file system");
    }
    out
}

#[test]
fn a_full_disk_and_a_read_only_one_are_told_with_a_hint() {
    let place = place();
    let lines = [
        "encode a.png --features --tokenizer model -o disk/c.safetensors",
        "decode full.safetensors --tokenizer model -o disk/i.safetensors",
    ];
    let many = tch::Tensor::zeros([64, 16], (tch::Kind::Int64, tch::Device::Cpu));
    weights::save_safetensors(
        &place.path("full.safetensors"),
        &[("codes".into(), many)],
        &Default::default(),
    )
    .unwrap();
    if let Some(out) = on_a_mount(&place, "size=16k", lines[1]) {
        let text = stderr(&out);
        assert_eq!(out.status.code(), Some(2), "{text}");
        assert!(text.contains("No space left") && text.contains("free some space"), "{text}");
    }
    for line in lines {
        if let Some(out) = on_a_mount(&place, "ro,size=1m", line) {
            let text = stderr(&out);
            assert_eq!(out.status.code(), Some(2), "{text}");
            assert!(text.contains("Read-only") && text.contains("hint: "), "{text}");
        }
    }
}

/// The lines `$ gen …` of a page's console blocks, continued lines joined.
fn commands_of(page: &str) -> Vec<String> {
    let text = page.replace("\\\n", " ");
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ gen "));
    lines.map(|line| line.split(" # ").next().unwrap_or_default().trim_end().to_owned()).collect()
}

#[test]
fn the_pages_show_commands_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<_> = pages.filter(|p| p.extension().is_some_and(|e| e == "md")).collect();
    assert!(pages.len() > 5, "{pages:?}");
    let place = Place::new("", ""); // for what a line redirects
    for page in pages.into_iter().chain([root.join("README.md")]) {
        for line in commands_of(&std::fs::read_to_string(&page).unwrap()) {
            // An unknown verb or flag is refused before the help is printed.
            let script = format!("\"$0\" {line} --help");
            let out = std::process::Command::new("sh")
                .args(["-c", &script, env!("CARGO_BIN_EXE_gen")])
                .current_dir(place.dir())
                .output()
                .unwrap();
            assert!(out.status.success(), "{}: gen {line}: {}", page.display(), stderr(&out));
        }
    }
}
