//! `gen train-tokenizer` and `gen train-ar`, end to end on tiny models: killed, stopped, resumed,
//! used.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::common::{TINY, TrainingPlace};

/// The tiny tokenizer with a discriminator that comes in, saved twice a run.
fn tiny<'a>(changes: &[&'a str]) -> Vec<&'a str> {
    let more = [
        "losses.adversarial={weight: 0.1, start_step: 3, discriminator: {channels: 4, layers: 2}}",
        "every={log: 1, validate: 0, save: 3}",
    ];
    [TINY, &more, changes].concat()
}

/// Waits until a training process has logged this many steps.
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
    let place = TrainingPlace::with_pictures();
    let steps = tiny(&["optimization.steps=60", "optimization.micro_batches=2"]);
    place.ends(0, "train-tokenizer --data images --output whole", &steps);

    let line = "train-tokenizer --data images --output broken --resume=auto";
    let mut child = place.command(line, &steps).spawn().unwrap();
    wait_for_steps(&place.path("broken"), 8, &mut child);
    signal(&child, "KILL");
    child.wait().unwrap();

    let mut child = place.command(line, &steps).spawn().unwrap();
    wait_for_steps(&place.path("broken"), 14, &mut child);
    signal(&child, "TERM");
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("`--resume --output broken` goes on"));

    let line = "launch --nproc 2 -- train-tokenizer --resume --output broken --device cpu --threads 1";
    place.ends(0, line, &[]);
    assert!(place.weights("whole") == place.weights("broken"), "the weights differ");
    let text = place.ok("inspect broken/state/step-000000060.rank-00001-of-00002.safetensors");
    assert!(text.contains("safetensors in slices") && text.contains("step: \"60\""), "{text}");
}

#[test]
fn a_transformer_needs_no_more_than_a_tokenizers_run() {
    let place = TrainingPlace::with_pictures();
    let steps = tiny(&["optimization.steps=3"]);
    place.ends(0, "train-tokenizer --data images --output ckpt", &steps);
    let tiny = [
        "model.width=16",
        "model.layers=1",
        "model.heads=2",
        "optimization.steps=3",
        "optimization.batch_size=4",
        "optimization.warmup=1",
    ];
    place.ends(0, "train-ar --tokenizer ckpt/ --output run", &tiny);
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
    let text = place.refuses("train-ar --tokenizer ckpt/ --output run", &tiny);
    assert!(text.contains("`run` is not empty") && text.contains("`--resume`"), "{text}");
    let text = place.refuses("train-tokenizer --output new", &["optimization.stps=3"]);
    assert!(text.contains("did you mean `optimization.steps`?"), "{text}");
    let text = place.refuses("train-tokenizer --output new", &[]);
    assert!(text.contains("no training images"), "{text}");
    let text = place.refuses("train-tokenizer --resume --output ckpt/tokenizer", &[]);
    assert!(text.contains("no saved state"), "{text}");
    assert!(!place.path("new").exists());
}

#[test]
fn a_classifier_of_ones_own_guides_a_tokenizer() {
    let place = TrainingPlace::with_pictures();
    let small =
        ["model={image_size: 16, widths: [4, 8]}", "optimization.batch_size=4", "optimization.warmup=1"];
    let steps = [&small[..], &["optimization.steps=3", "every={log: 1, validate: 3, save: 3}"]].concat();
    place.ends(0, "train-features --data images --validation images --output features", &steps);
    let log = std::fs::read_to_string(place.path("features/log.jsonl")).unwrap();
    assert!(log.contains("validation/top1"), "{log}");
    std::fs::create_dir_all(place.path("more/n01440764")).unwrap();
    std::fs::copy(place.path("images/n02099601/1.png"), place.path("more/n01440764/1.png")).unwrap();
    let text = place.refuses("train-features --data images --validation more --output other", &small);
    assert!(text.contains("is of class 0 (`tench`), which does not occur in the training images"), "{text}");

    let guided = "losses.perceptual={type: features, network: features, weight: 0.1}";
    let steps = tiny(&["optimization.steps=2", guided]);
    place.ends(0, "train-tokenizer --data images --output tokenizer", &steps);
    let log = std::fs::read_to_string(place.path("tokenizer/log.jsonl")).unwrap();
    assert!(log.contains("\"perceptual\":"), "{log}");

    let steps = tiny(&["losses.perceptual={type: features, network: nowhere, weight: 0.1}"]);
    let text = place.refuses("train-tokenizer --data images --output other", &steps);
    assert!(text.contains("nowhere/config.yaml"), "{text}");
    std::fs::create_dir(place.path("one")).unwrap();
    std::fs::rename(place.path("images/n02099601"), place.path("one/n02099601")).unwrap();
    let text = place.refuses("train-features --data one --output other", &small);
    assert!(text.contains("at least two classes"), "{text}");
}

#[test]
fn a_run_is_forked_and_a_model_begun_from_another() {
    let place = TrainingPlace::with_pictures();
    place.ends(0, "train-tokenizer --data images --output ckpt", &tiny(&["optimization.steps=3"]));
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
    place.ends(0, "train-ar --tokenizer ckpt --output long", &steps("optimization.steps=8"));
    let state = "long/state/step-000000004.safetensors";
    assert!(place.path(state).is_file());
    // The same run broken off there and begun anew under another name ends the same.
    place.ends(0, &format!("train-ar --fork {state} --output same"), &[]);
    assert!(place.weights("same") == place.weights("long"), "the weights differ");
    place.ends(0, &format!("train-ar --fork {state} --output longer"), &["optimization.steps=10"]);
    assert!(place.weights("longer") != place.weights("long"));
    let note = std::fs::read_to_string(place.path("same/forked-from.yaml")).unwrap();
    assert!(note.contains("step-000000004.safetensors") && note.contains("step: '4'"), "{note}");
    let text = place.refuses(&format!("train-ar --fork {state} --output no"), &["optimization.steps=6"]);
    assert!(text.contains("the learning rate falls from step 3 on"), "{text}");
    let text = place.refuses("train-ar --fork long --output no", &[]);
    assert!(text.contains("the run ends with 8"), "{text}");
    let text = place.refuses("train-ar --fork long --tokenizer ckpt --output no", &["optimization.steps=30"]);
    assert!(text.contains("has its tokenizer"), "{text}");

    let two = [&tiny[..], &["optimization.steps=2", "model.conditioning.num_classes=250"]].concat();
    let (_, text) = place.ends(0, "train-ar --init-from long --tokenizer ckpt --output own", &two);
    assert!(text.contains("new: cls_embedding.embedding_table.weight"), "{text}");
    assert!(
        std::fs::read_to_string(place.path("own/initial-weights.yaml")).unwrap().contains("long/weights")
    );
    let text = place.refuses("train-tokenizer --init-from long --data images --output no", TINY);
    assert!(text.contains("does not fit the model"), "{text}");
    assert!(!place.path("no").exists());
}

#[test]
fn a_plan_needs_neither_data_nor_weights_and_samples_are_drawn_on_the_way() {
    let place = TrainingPlace::with_pictures();
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/train");
    let plan = |verb: &str, recipe: &str| {
        place.ends(0, &format!("{verb} --plan --recipe {}", recipes.join(recipe).display()), &[]).0
    };
    // Expected content: parameters, GFLOP per position, hours at 395 TFLOP/s, states with an
    // average.
    let text = plan("train-ar", "gigatok-bl+gpt-b.yaml");
    assert!(text.contains("111.1 M") && text.contains("0.61 GFLOP") && text.contains(" 43 h"), "{text}");
    let text = plan("train-tokenizer", "gigatok-bl256.yaml");
    assert!(text.contains("621.6 M") && text.contains("2265 GFLOP") && text.contains(" 408 h"), "{text}");
    let text = place.refuses("train-ar", &[]);
    assert!(text.contains("--output"), "{text}");

    // A step of each phase is tried, the last one's too, and what would fail then is refused now.
    let late = ["losses.adversarial={weight: 0.1, start_step: 50, discriminator: {channels: 4, layers: 2}}"];
    let side_by_side = ["optimization.micro_batches=2", "optimization.workers=2", "optimization.steps=100"];
    let recipe = [TINY, &late, &side_by_side].concat();
    let said = place.ends(0, "train-tokenizer --plan", &recipe).1;
    assert!(said.contains("every phase takes its step"), "{said}");
    for (verb, change, expected) in [
        (
            "train-tokenizer",
            "losses.semantic={weight: 0.5, teacher: {type: vision}}",
            "the model has no `vision`",
        ),
        ("train-tokenizer", "optimization.clip=-1.0", "optimization.clip must be 0 or more, found -1"),
        (
            "train-ar",
            "model.conditioning={type: text, length: 8, feature_width: 12}",
            "`model.conditioning` is text",
        ),
    ] {
        let text = place.refuses(&format!("{verb} --plan"), &[change]);
        assert!(text.contains(expected), "{text}");
    }

    let all = tiny(&["optimization.steps=3", "every={log: 1, validate: 0, samples: 2, save: 3}"]);
    place.ends(0, "train-tokenizer --data images --output ckpt", &all);
    let small = ["model.width=16", "model.layers=1", "model.heads=2", "optimization.batch_size=4"];
    let more =
        ["optimization.steps=3", "optimization.warmup=1", "every={log: 1, validate: 0, samples: 2, save: 3}"];
    place.ends(0, "train-ar --tokenizer ckpt --output run", &[&small[..], &more].concat());
    for run in ["ckpt", "run"] {
        for step in ["000000002", "000000003"] {
            let picture = image::open(place.path(run).join(format!("samples/step-{step}.png"))).unwrap();
            assert!(picture.width() > 100, "{run}");
        }
    }
    assert!(std::fs::read_to_string(place.path("ckpt/log.jsonl")).unwrap().contains("samples/psnr"));
    assert!(std::fs::read_to_string(place.path("run/log.jsonl")).unwrap().contains("samples/distinct_codes"));
}
