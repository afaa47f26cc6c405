//! `gen sample --prompt`, end to end, on a tiny model with random weights.

use std::process::Output;

use crate::common::{
    Place, Tiny, pixels, stderr, write_model, write_text_encoder, write_text_model,
    write_text_model_without_encoder,
};

fn place() -> Place {
    let place = Place::new("sample --device cpu", "");
    write_text_model(&place.path("model"));
    place
}

/// Arguments one by one, since prompts hold blanks; with the model where no other is named.
fn sample(place: &Place, args: &[&str]) -> Output {
    let mut command = place.command("");
    if !args.iter().any(|a| ["--from", "--model"].contains(a)) {
        command.args(["--model", "model"]);
    }
    command.args(args).output().unwrap()
}

fn ok(place: &Place, args: &[&str]) -> Output {
    let out = sample(place, args);
    assert!(out.status.success(), "{args:?}: {}", stderr(&out));
    out
}

/// The message of a command that must fail with exit code 2.
fn fails(place: &Place, args: &[&str]) -> String {
    let out = sample(place, args);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {}", stderr(&out));
    stderr(&out)
}

/// Asserts that what a picture remembers makes it again.
fn remembers(place: &Place, png: &str) {
    let again = ok(place, &["--from", png, "--output", "again"]);
    assert!(stderr(&again).contains("pixel for pixel"), "{}", stderr(&again));
}

#[test]
fn the_same_seed_and_prompt_make_the_same_image_whatever_stands_beside_it() {
    let place = place();
    std::fs::write(place.path("a.txt"), "a dog\na photo of a red panda\n\na dog\n").unwrap();
    std::fs::write(
        place.path("b.txt"),
        "a dog\na dog on a very long and winding road to nowhere at all\nb\n",
    )
    .unwrap();
    // Weak guidance: strong guidance of random weights leaves one code at most places, and no
    // randomness.
    for (file, batch, folder) in [("a.txt", "1", "one"), ("a.txt", "3", "three"), ("b.txt", "3", "others")] {
        ok(&place, &["--prompts", file, "--cfg", "1.5", "--batch-size", batch, "--output", folder]);
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
    let place = place();
    let long = "word ".repeat(2000);
    let prompts = ["🐶🏽 émoji ❤️", &long, "", "a\u{1}b\tc\nd\u{7f}", "\u{202b}כלב אדום\u{202c} قط", "x"];
    let mut args: Vec<&str> = prompts.iter().flat_map(|p| ["--prompt", p]).collect();
    args.extend(["--output", "out", "--json"]);
    let out = ok(&place, &args);
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
        remembers(&place, &png);
    }
}

#[test]
fn a_negative_prompt_replaces_the_null_condition_and_is_remembered() {
    let place = place();
    let dog = ["--prompt", "a dog", "--cfg", "4", "--seed", "3"];
    let run = |more: &[&str]| ok(&place, &[&dog[..], more].concat());
    run(&["--output", "plain"]);
    run(&["--output", "negative", "--negative-prompt", "a photo of a red panda"]);
    let image = |folder: &str| pixels(&place.path(folder).join("000000.png"));
    assert_ne!(image("plain"), image("negative"));
    remembers(&place, "negative/000000.png");
    assert_eq!(image("negative"), image("again"));
}

#[test]
fn an_npz_of_prompts_is_refused_to_another_list_and_sizes_are_obeyed() {
    let place = place();
    ok(&place, &["--prompt", "a dog", "--prompt", "a cat", "--num", "2", "--npz", "x.npz", "--size", "20"]);
    let bytes = std::fs::read(place.path("x.npz")).unwrap();
    assert!(bytes.len() > 4 * 20 * 20 * 3);
    std::fs::write(place.path("y.npz.partial.json"), "{}").unwrap();
    let error = fails(&place, &["--prompt", "a dog", "--npz", "y.npz"]);
    assert!(error.contains("prompts"), "{error}");
}

#[test]
fn what_does_not_go_together_is_said() {
    let place = place();
    assert!(fails(&place, &["--class", "207"]).contains("draws prompts, not classes"));
    assert!(fails(&place, &["--num-images", "3"]).contains("draws prompts"));
    assert!(fails(&place, &["--prompts", "none.txt"]).contains("none.txt"));
    let error = fails(&place, &["--prompt", "a dog", "--text-encoder", "elsewhere"]);
    assert!(error.contains("a text encoder of its own"), "{error}");
    write_model(&place.path("classes"), Tiny::default());
    let error = fails(&place, &["--prompt", "a dog", "--model", "classes"]);
    assert!(error.contains("draws classes, not prompts"), "{error}");
    std::fs::write(place.path("blank.txt"), "\n  \n").unwrap();
    assert!(fails(&place, &["--prompts", "blank.txt"]).contains("holds no prompt"));
}

#[test]
fn an_encoder_in_a_folder_of_its_own_runs_in_the_precision_that_goes_with_the_models() {
    let place = place();
    write_text_encoder(&place.path("t5"));
    write_text_model_without_encoder(&place.path("published"));
    let model = ["--model", "published"];
    let dog = [&model[..], &["--prompt", "a dog", "--cfg", "1.5", "--text-encoder", "t5"]].concat();
    for precision in ["fp32", "bf16", "fp16", "int8"] {
        let said =
            stderr(&ok(&place, &[&dog[..], &["--precision", precision, "--output", precision]].concat()));
        assert!(said.contains("text encoder: `t5`"), "{said}");
        assert_eq!(pixels(&place.path(precision).join("000000.png")).len(), 16 * 16 * 3);
        remembers(&place, &format!("{precision}/000000.png"));
    }
    let error = fails(&place, &[&model[..], &["--prompt", "a dog"]].concat());
    assert!(error.contains("does not say where its text encoder is"), "{error}");
    std::fs::remove_file(place.path("t5/pytorch_model-00002-of-00002.bin")).unwrap();
    let error = fails(&place, &dog);
    assert!(error.contains("pytorch_model-00002-of-00002.bin"), "{error}");
}
