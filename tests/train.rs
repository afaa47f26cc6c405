//! `gen train-tokenizer` and `gen train-ar`, end to end on tiny models: killed, stopped, resumed, used.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const TINY: &[&str] = &[
    "model.image_size=16",
    "model.latent.num_tokens=16",
    "model.cnn={channels: 8, norm_groups: 4, encoder_multipliers: [1, 1, 1], decoder_multipliers: [1, 1, 1], \
     res_blocks: 1, z_channels: 8, attention: false, adaptive_norm: true, upsample: depth_to_space}",
    "model.encoder={width: 16, layers: 1, heads: 2}",
    "model.decoder={width: 16, layers: 1, heads: 2}",
    "model.quantizer.codebook_size=32",
    "losses.adversarial={weight: 0.1, start_step: 3, discriminator: {channels: 4, layers: 2}}",
    "optimization.batch_size=4",
    "optimization.warmup=2",
    "every={log: 1, validate: 0, save: 3}",
];

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        for i in 0..8u32 {
            let class = place.path("images").join(["n01443537", "n02099601"][i as usize % 2]);
            std::fs::create_dir_all(&class).unwrap();
            let picture =
                image::RgbImage::from_fn(18, 20, |x, y| image::Rgb([(9 * x + 30 * i) as u8, y as u8, 70]));
            picture.save(class.join(format!("{i}.png"))).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, line: &str, changes: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gen"));
        command.current_dir(self.0.path()).args(line.split_whitespace()).args(changes);
        command.args(["--device", "cpu", "--threads", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, line: &str, changes: &[&str]) -> Output {
        self.command(line, changes).output().unwrap()
    }

    fn succeeds(&self, line: &str, changes: &[&str]) {
        let out = self.run(line, changes);
        assert_eq!(out.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn fails(&self, line: &str, changes: &[&str]) -> String {
        let out = self.run(line, changes);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{line}: {text}");
        text
    }

    fn weights(&self, run: &str) -> Vec<u8> {
        std::fs::read(self.path(run).join("weights.safetensors")).unwrap()
    }
}

/// Waits until a training process has logged so many steps.
fn wait_for_steps(run: &Path, steps: usize, child: &mut Child) {
    let began = Instant::now();
    loop {
        let logged = std::fs::read_to_string(run.join("log.jsonl")).map_or(0, |t| t.lines().count());
        if logged >= steps {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before step {steps}");
        assert!(began.elapsed() < Duration::from_secs(120), "no step {steps} after two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_run_that_was_killed_and_stopped_ends_like_one_that_was_not() {
    let place = Place::new();
    let steps = [TINY, &["optimization.steps=60"]].concat();
    place.succeeds("train-tokenizer --data images --output whole", &steps);

    let mut child = place.command("train-tokenizer --data images --output broken", &steps).spawn().unwrap();
    wait_for_steps(&place.path("broken"), 8, &mut child);
    signal(&child, "KILL");
    child.wait().unwrap();

    let mut child = place.command("train-tokenizer --resume --output broken", &[]).spawn().unwrap();
    wait_for_steps(&place.path("broken"), 14, &mut child);
    signal(&child, "TERM");
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("`--resume --output broken` goes on"));

    place.succeeds("train-tokenizer --resume --output broken", &[]);
    assert!(place.weights("whole") == place.weights("broken"), "the weights differ");
}

#[test]
fn a_transformer_needs_no_more_than_a_tokenizers_run() {
    let place = Place::new();
    let steps = [TINY, &["optimization.steps=3"]].concat();
    place.succeeds("train-tokenizer --data images --output ckpt", &steps);
    let tiny = [
        "model.width=16",
        "model.layers=1",
        "model.heads=2",
        "optimization.steps=3",
        "optimization.batch_size=4",
        "optimization.warmup=1",
    ];
    place.succeeds("train-ar --tokenizer ckpt/ --output run", &tiny);
    for file in [
        "config.yaml",
        "weights.safetensors",
        "classes.tsv",
        "recipe.yaml",
        "log.jsonl",
        "tokenizer/config.yaml",
    ] {
        assert!(place.path("run").join(file).is_file(), "{file}");
    }
    let text = place.fails("train-ar --tokenizer ckpt/ --output run", &tiny);
    assert!(text.contains("`run` is not empty") && text.contains("`--resume`"), "{text}");
    let text = place.fails("train-tokenizer --output new", &["optimization.stps=3"]);
    assert!(text.contains("did you mean `optimization.steps`?"), "{text}");
    let text = place.fails("train-tokenizer --output new", &[]);
    assert!(text.contains("no training images"), "{text}");
    let text = place.fails("train-tokenizer --resume --output ckpt/tokenizer", &[]);
    assert!(text.contains("no saved state"), "{text}");
    assert!(!place.path("new").exists());
}

#[test]
fn a_classifier_of_ones_own_guides_a_tokenizer() {
    let place = Place::new();
    let small =
        ["model={image_size: 16, widths: [4, 8]}", "optimization.batch_size=4", "optimization.warmup=1"];
    let steps = [&small[..], &["optimization.steps=3", "every={log: 1, validate: 3, save: 3}"]].concat();
    place.succeeds("train-features --data images --validation images --output features", &steps);
    let log = std::fs::read_to_string(place.path("features/log.jsonl")).unwrap();
    assert!(log.contains("validation/top1"), "{log}");

    let guided = "losses.perceptual={type: features, network: features, weight: 0.1}";
    let steps = [TINY, &["optimization.steps=2", guided]].concat();
    place.succeeds("train-tokenizer --data images --output tokenizer", &steps);
    let log = std::fs::read_to_string(place.path("tokenizer/log.jsonl")).unwrap();
    assert!(log.contains("\"perceptual\":"), "{log}");

    let steps = [TINY, &["losses.perceptual={type: features, network: nowhere, weight: 0.1}"]].concat();
    let text = place.fails("train-tokenizer --data images --output other", &steps);
    assert!(text.contains("nowhere/config.yaml"), "{text}");
    std::fs::create_dir(place.path("one")).unwrap();
    std::fs::rename(place.path("images/n02099601"), place.path("one/n02099601")).unwrap();
    let text = place.fails("train-features --data one --output other", &small);
    assert!(text.contains("at least two classes"), "{text}");
}

#[test]
fn a_run_is_forked_and_a_model_begun_from_another() {
    let place = Place::new();
    place
        .succeeds("train-tokenizer --data images --output ckpt", &[TINY, &["optimization.steps=3"]].concat());
    let tiny = [
        "model.width=16",
        "model.layers=1",
        "model.heads=2",
        "model.conditioning.num_classes=300",
        "optimization.batch_size=4",
        "optimization.warmup=1",
        "optimization.schedule={type: wsd, decay_fraction: 0.5}",
        "every={log: 1, validate: 0, save: 4}",
    ];
    let steps = |n: &'static str| [&tiny[..], &[n]].concat();
    place.succeeds("train-ar --tokenizer ckpt --output long", &steps("optimization.steps=8"));
    let state = "long/state/step-000000004.safetensors";
    assert!(place.path(state).is_file());
    // The same run broken off there and begun anew under another name ends the same.
    place.succeeds(&format!("train-ar --fork {state} --output same"), &[]);
    assert!(place.weights("same") == place.weights("long"), "the weights differ");
    place.succeeds(&format!("train-ar --fork {state} --output longer"), &["optimization.steps=10"]);
    assert!(place.weights("longer") != place.weights("long"));
    let note = std::fs::read_to_string(place.path("same/forked-from.yaml")).unwrap();
    assert!(note.contains("step-000000004.safetensors") && note.contains("step: '4'"), "{note}");
    let text = place.fails(&format!("train-ar --fork {state} --output no"), &["optimization.steps=6"]);
    assert!(text.contains("the learning rate falls from step 3 on"), "{text}");
    let text = place.fails("train-ar --fork long --output no", &[]);
    assert!(text.contains("the run ends with 8"), "{text}");
    let text = place.fails("train-ar --fork long --tokenizer ckpt --output no", &["optimization.steps=30"]);
    assert!(text.contains("has its tokenizer"), "{text}");

    let two = [&tiny[..], &["optimization.steps=2", "model.conditioning.num_classes=250"]].concat();
    let out = place.run("train-ar --init-from long --tokenizer ckpt --output own", &two);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("new: cls_embedding.embedding_table.weight"), "{text}");
    assert!(
        std::fs::read_to_string(place.path("own/initial-weights.yaml")).unwrap().contains("long/weights")
    );
    let text = place.fails("train-tokenizer --init-from long --data images --output no", TINY);
    assert!(text.contains("does not fit the model"), "{text}");
    assert!(!place.path("no").exists());
}

#[test]
fn a_plan_needs_neither_data_nor_weights_and_samples_are_drawn_on_the_way() {
    let place = Place::new();
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/train");
    let plan = |verb: &str, recipe: &str| {
        let recipe = recipes.join(recipe);
        let out = place.run(&format!("{verb} --plan --recipe {}", recipe.display()), &[]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    // What is known of them: parameters, GFLOP a position, hours at 395 TFLOP/s, states with an average.
    let text = plan("train-ar", "gigatok-bl+gpt-b.yaml");
    assert!(text.contains("111.1 M") && text.contains("0.61 GFLOP") && text.contains(" 43 h"), "{text}");
    let text = plan("train-tokenizer", "gigatok-bl256.yaml");
    assert!(text.contains("621.6 M") && text.contains("2265 GFLOP") && text.contains(" 408 h"), "{text}");
    let text = place.fails("train-ar", &[]);
    assert!(text.contains("--output"), "{text}");

    let all = [TINY, &["optimization.steps=3", "every={log: 1, validate: 0, samples: 2, save: 3}"]].concat();
    place.succeeds("train-tokenizer --data images --output ckpt", &all);
    let small = ["model.width=16", "model.layers=1", "model.heads=2", "optimization.batch_size=4"];
    let more =
        ["optimization.steps=3", "optimization.warmup=1", "every={log: 1, validate: 0, samples: 2, save: 3}"];
    place.succeeds("train-ar --tokenizer ckpt --output run", &[&small[..], &more].concat());
    for run in ["ckpt", "run"] {
        for step in ["000000002", "000000003"] {
            let picture = image::open(place.path(run).join(format!("samples/step-{step}.png"))).unwrap();
            assert!(picture.width() > 100, "{run}");
        }
    }
    assert!(std::fs::read_to_string(place.path("ckpt/log.jsonl")).unwrap().contains("samples/psnr"));
    assert!(std::fs::read_to_string(place.path("run/log.jsonl")).unwrap().contains("samples/distinct_codes"));
}
