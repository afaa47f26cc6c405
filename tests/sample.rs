//! `gen sample`, end to end, on a tiny model with random weights.

use std::process::Output;

use crate::common::{Place, Tiny, pixels, stderr, write_model};

fn place() -> Place {
    let place = Place::new("sample --device cpu", "");
    write_model(&place.path("model"), Tiny::default());
    place
}

/// With the model, and with blanks where the line has underscores.
fn sample(place: &Place, line: &str) -> Output {
    let mut command = place.command("");
    if !line.contains("--from") && !line.contains("--model") {
        command.args(["--model", "model"]);
    }
    command.args(line.split_whitespace().map(|a| a.replace('_', " "))).output().unwrap()
}

fn ok(place: &Place, line: &str) -> String {
    let out = sample(place, line);
    assert!(out.status.success(), "{line}: {}", stderr(&out));
    String::from_utf8(out.stdout).unwrap()
}

/// The message of a command that must fail with exit code 2.
fn fails(place: &Place, line: &str) -> String {
    let out = sample(place, line);
    assert_eq!(out.status.code(), Some(2), "{line}: {}", stderr(&out));
    stderr(&out)
}

#[test]
fn pngs_a_grid_and_a_report() {
    let place = place();
    let text = ok(&place, "--class 207,golden_retriever --num 2 --output out --json");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let images = report["images"].as_array().unwrap();
    assert_eq!(images.len(), 4);
    assert_eq!(images[3]["path"], "out/000003.png");
    assert_eq!(images[3]["wnid"], "n02099601");
    assert_eq!(report["settings"]["sampling"]["cfg"], 2.0, "the published default");
    for i in 0..4 {
        assert_eq!(pixels(&place.path(&format!("out/{i:06}.png"))).len(), 16 * 16 * 3);
    }
    let grid = image::open(place.path("out/grid.png")).unwrap();
    assert_eq!((grid.width(), grid.height()), (34, 34));
}

/// Reduced precisions draw other images than fp32, the same at any batch size, and record the
/// precision.
#[test]
fn reduced_precisions_keep_their_promises_too() {
    let place = place();
    for precision in ["bf16", "int8"] {
        let line = "--class 0,207,281 --cfg 3 --num 1 --tokenizer-precision bf16 --precision";
        for batch in [1, 3] {
            ok(&place, &format!("{line} {precision} --batch-size {batch} --output {precision}{batch}"));
        }
        for i in 0..3 {
            let file = |batch| place.path(&format!("{precision}{batch}/{i:06}.png"));
            assert_eq!(pixels(&file(1)), pixels(&file(3)), "{precision}, image {i}");
        }
        let again = ok(&place, &format!("--from {precision}3/000002.png --output again-{precision} --json"));
        let report: serde_json::Value = serde_json::from_str(&again).unwrap();
        assert_eq!(report["largest_difference"], 0, "{report}");
    }
}

#[test]
fn image_i_is_the_same_at_batch_1_and_batch_7_and_on_its_own() {
    let place = place();
    for batch in [1, 7] {
        ok(&place, &format!("--class 0,207,281 --num 3 --cfg 3 --batch-size {batch} --output b{batch}"));
    }
    for i in 0..9 {
        let name = format!("{i:06}.png");
        assert_eq!(pixels(&place.path("b1").join(&name)), pixels(&place.path("b7").join(&name)), "{name}");
    }
    let again = ok(&place, "--from b7/000005.png --json");
    let report: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(report["largest_difference"], 0);
    assert_eq!(report["path"], "samples/again/000005.png");
}

#[test]
fn speculative_images_are_those_of_the_same_noise_one_code_at_a_time() {
    let place = place();
    let options = "--class 0,207 --num 2 --cfg 2 --seed 5 --json";
    ok(&place, &format!("{options} --rng gumbel -o plain"));
    let said: serde_json::Value =
        serde_json::from_str(&ok(&place, &format!("{options} --speculative 6 -o guessed"))).unwrap();
    assert!(said["codes_per_pass"].as_f64().unwrap() >= 1.0, "{said}");
    assert_eq!(said["settings"]["rng"], "gumbel");
    for image in said["images"].as_array().unwrap() {
        let guessed = std::path::PathBuf::from(image["path"].as_str().unwrap());
        let plain = place.path("plain").join(guessed.file_name().unwrap());
        assert_eq!(pixels(&place.path("guessed").join(guessed.file_name().unwrap())), pixels(&plain));
    }
    let message = fails(&place, &format!("{options} --speculative 6 --rng torch"));
    assert!(message.contains("`--speculative` draws with `--rng gumbel` only"), "{message}");
}

#[test]
fn a_png_made_with_other_weights_is_told_so() {
    let place = place();
    ok(&place, "--class 207 --num 1 --output out");
    write_model(&place.path("model"), Tiny { seed: 2, ..Tiny::default() });
    let out = sample(&place, "--from out/000000.png --output again");
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("model weights: then "), "{}", stderr(&out));
    let message = fails(&place, "--from out/grid.png --output again");
    assert!(message.contains("cannot read"), "{message}");
    std::fs::copy(place.path("out/000000.png"), place.path("x.png")).unwrap();
    image::open(place.path("x.png")).unwrap().save(place.path("bare.png")).unwrap();
    assert!(fails(&place, "--from bare.png").contains("does not say how it was made"));
}

#[test]
fn the_models_own_defaults_hold_unless_a_flag_says_otherwise() {
    let place = place();
    std::fs::write(place.path("model/sampling.yaml"), "cfg: 1.5\ntop_k: 20\n").unwrap();
    let settings = |args: &str| {
        let text = ok(&place, &format!("--class 207 --num 1 --json {args}"));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["settings"]["sampling"].clone()
    };
    let own = settings("");
    assert_eq!((own["cfg"].as_f64(), own["top_k"].as_i64()), (Some(1.5), Some(20)));
    let said = settings("--top-k 0 --cfg-schedule step");
    assert_eq!((said["cfg"].as_f64(), said["top_k"].as_i64()), (Some(1.5), Some(0)));
    assert_eq!(said["cfg_start"], 0.18);
    std::fs::write(place.path("model/sampling.yaml"), "top_kk: 20\n").unwrap();
    assert!(fails(&place, "--class 207").contains("did you mean `top_k`?"));
    std::fs::remove_file(place.path("model/sampling.yaml")).unwrap();
    std::fs::create_dir(place.path("model/sampling.yaml")).unwrap();
    assert!(fails(&place, "--class 207").contains("sampling.yaml"));
}

#[test]
fn an_interrupted_npz_is_continued_and_another_runs_parts_are_refused() {
    let place = place();
    ok(&place, "--num-images 60 --batch-size 16 --npz whole.npz");
    assert!(!place.path("samples").exists(), "no PNGs unless asked for");
    let mut running = std::process::Command::new(env!("CARGO_BIN_EXE_gen"))
        .current_dir(place.dir())
        .args("sample --device cpu --model model --num-images 60 --batch-size 1 --npz cut.npz".split(' '))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let written = || std::fs::metadata(place.path("cut.npz.partial")).map_or(0, |m| m.len());
    while written() < 2 * 768 && running.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(!place.path("cut.npz").exists(), "killed before its end");
    let message = fails(&place, "--num-images 60 --seed 1 --npz cut.npz");
    assert!(message.contains("these differ: seed"), "{message}");
    let out = sample(&place, "--num-images 60 --batch-size 16 --npz cut.npz");
    assert!(stderr(&out).contains("continuing after"), "{}", stderr(&out));
    let read = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert!(read("cut.npz") == read("whole.npz"), "the same images, whenever they were made");
    assert!(!place.path("cut.npz.partial").exists() && !place.path("cut.npz.partial.json").exists());

    // As another process holds it.
    let held = std::fs::File::create(place.path("held.npz.partial")).unwrap();
    held.lock().unwrap();
    let message = fails(&place, "--num-images 2 --npz held.npz");
    assert!(message.contains("another process is writing `held.npz`"), "{message}");
}

#[test]
fn what_cannot_be_done_is_said_in_a_sentence() {
    let place = place();
    let message = fails(&place, "--class 5");
    assert!(message.contains("electric ray") && message.contains("known: 0 tench, 207 golden"), "{message}");
    assert!(fails(&place, "--class 1000").contains("1000"));
    assert!(fails(&place, "--class goldn_retriever").contains("golden retriever"));
    assert!(fails(&place, "--class 207 --cfg abc").contains("invalid value 'abc'"));
    assert!(fails(&place, "--class 207 --cfg=-1").contains("cfg"));
    assert!(fails(&place, "--class 207 --cfg-schedule stp").contains("did you mean `step`?"));
    assert!(fails(&place, "--class 207 --cfg-start 0.2").contains("does not apply"));
    assert!(fails(&place, "").contains("--class"));
    write_model(&place.path("odd"), Tiny { vocab_size: 96, ..Tiny::default() });
    let message = fails(&place, "--class 207 --model odd");
    assert!(message.contains("vocabulary size 96, the tokenizer 64"), "{message}");
    assert!(!place.path("samples").exists(), "nothing was written");
}

#[test]
fn a_place_that_cannot_be_written_is_found_out_first() {
    let place = place();
    std::fs::write(place.path("file"), "").unwrap();
    let message = fails(&place, "--class 207 --output file/out");
    assert!(message.contains("cannot make the folder `file/out`"), "{message}");
    let message = fails(&place, "--num-images 4 --npz file/x.npz");
    assert!(message.contains("file/x.npz"), "{message}");
}

/// Puts a NaN into a tensor of a model's weights.
fn poison(dir: &std::path::Path, name: &str) {
    let path = dir.join("weights.safetensors");
    let source = weights::Checkpoint::open(&path).unwrap().section(None).unwrap();
    let read = |n: &str| (n.to_owned(), source.read(n, tch::Device::Cpu).unwrap());
    let tensors: Vec<_> = source.names().into_iter().map(read).collect();
    let (_, tensor) = tensors.iter().find(|(n, _)| n == name).unwrap();
    let _ = tensor.view(-1).narrow(0, 1, 1).fill_(f64::NAN);
    weights::save_safetensors(&path, &tensors, &Default::default()).unwrap();
}

/// Network, image and step are named, and no picture is made.
#[test]
fn what_is_not_finite_is_an_error_and_no_picture() {
    for (part, name, says) in [
        ("model", "output.weight", "logits of image 0 at step 0 are not finite"),
        ("model/tokenizer", "decoder.conv_out.bias", "decoder makes numbers of image 0 that are not finite"),
    ] {
        let place = place();
        poison(&place.path(part), name);
        let out = sample(&place, "--class 207 --num 2 --output out");
        assert!(!out.status.success() && stderr(&out).contains(says), "{}", stderr(&out));
        assert!(!place.path("out/000000.png").exists());
    }
    assert!(fails(&place(), "--class 207 --cfg 1e308").contains("cfg"));
}
