//! `gen eval --recipe`, end to end, on a tiny model with random weights.

mod common;

use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use common::{Tiny, write_model};
use serde_json::Value;
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    /// A model, images of two classes, and a recipe that probes the one with the other.
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        write_model(&place.path("model"), Tiny::default());
        std::fs::create_dir(place.path("files")).unwrap();
        std::fs::copy(place.path("model/weights.safetensors"), place.path("files/ar.safetensors")).unwrap();
        std::fs::copy(place.path("model/tokenizer/weights.safetensors"), place.path("files/tok.safetensors"))
            .unwrap();
        for (set, images) in [("train", 0..10u8), ("val", 10..14)] {
            for i in images {
                for (class, colour) in [("n01440764", [200, 15 * i, 30]), ("n02099601", [20, 15 * i, 220])] {
                    let folder = place.path(set).join(class);
                    std::fs::create_dir_all(&folder).unwrap();
                    let image = image::RgbImage::from_pixel(20, 18, image::Rgb(colour));
                    image.save(folder.join(format!("{i}.png"))).unwrap();
                }
            }
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn probe(&self, name: &str, tolerance: f64) {
        let text = format!(
            "title: a tiny probe\nsource: this test\nseeds: the seed\ntask:\n  type: probe\n  tokenizer: {{ config: \
             model/tokenizer/config.yaml, file: tok.safetensors, from: this test }}\n  transformer: {{ config: \
             model/config.yaml, file: ar.safetensors, from: this test }}\n  batch_size: 5\n  accumulate: 2\n  seed: 0\n  \
             precision: fp32\nexpected:\n  - {{ metric: top1, value: 50, tolerance: {tolerance}, because: test }}\n"
        );
        std::fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gen"));
        command.current_dir(self.0.path()).env("OMP_NUM_THREADS", "1");
        command.arg("eval").args(line.split_whitespace()).output().unwrap()
    }

    fn said(&self, line: &str, code: i32) -> String {
        let out = self.run(line);
        let said = String::from_utf8(out.stderr).unwrap() + &String::from_utf8(out.stdout).unwrap();
        assert_eq!(out.status.code(), Some(code), "{line}: {said}");
        said
    }
}

#[test]
fn what_is_missing_is_listed_and_nothing_runs() {
    let place = Place::new();
    let said = place.said("--recipe gigatok-xlxxl+gpt-b", 2);
    assert!(said.contains("4 of 4 pieces are missing"), "{said}");
    assert!(said.contains("MISSING  transformer: GPT_B256_e300_VQ_XLXXL.pt — YuuTennYi/GigaTok"), "{said}");
    let said = place.said("--recipe gigatok-ablations", 2);
    assert!(said.contains("cannot be run: neither the tokenizers"), "{said}");
    assert!(!place.path("benchmarks").exists());
}

#[test]
fn a_recipe_runs_once_and_is_judged() {
    let place = Place::new();
    place.probe("wide.yaml", 50.0);
    place.probe("narrow.yaml", 1e-6);
    let given = "--pieces files --data val --train-data train --device cpu";
    // It runs, but a tiny probe does not stand beside a published one.
    let said = place.said(&format!("--recipe wide.yaml {given} --work out"), 1);
    assert!(
        said.contains("$ gen probe") && said.contains("not comparable: 2 classes instead of 1000"),
        "{said}"
    );
    // It is not run again, and its folder is not taken for another recipe's.
    let said = place.said(&format!("--recipe wide.yaml {given} --work out"), 1);
    assert!(!said.contains("$ gen probe"), "{said}");
    let said = place.said(&format!("--recipe narrow.yaml {given} --work out"), 2);
    assert!(said.contains("the run of another recipe"), "{said}");
    let said = place.said(&format!("--recipe narrow.yaml {given} --work dry --limit 10"), 0);
    assert!(said.contains("not comparable: a dry run on 10 images"), "{said}");

    // As if it had been to the protocol.
    let text = std::fs::read_to_string(place.path("out/probe.json")).unwrap();
    let mut kept: Value = serde_json::from_str(&text).unwrap();
    (kept["differences"], kept["top1"]) = (Value::Array(vec![]), 0.9.into());
    for (recipe, work, verdict, code) in [("wide", "good", "within", 0), ("narrow", "off", "outside", 1)] {
        std::fs::create_dir(place.path(work)).unwrap();
        std::fs::write(place.path(work).join("probe.json"), kept.to_string()).unwrap();
        let said = place.said(&format!("--recipe {recipe}.yaml {given} --work {work} --json"), code);
        let report = std::fs::read(place.path(work).join("report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        let figure = &report["figures"][0];
        assert_eq!((&figure["verdict"], &figure["measured"]), (&verdict.into(), &90.0.into()), "{said}");
    }
}

#[test]
fn a_reconstruction_is_measured_and_a_dry_run_takes_fewer_images() {
    let place = Place::new();
    let text = "title: a tiny reconstruction\nsource: this test\nseeds: none\ntask:\n  type: reconstruction\n  tokenizer: { \
                config: model/tokenizer/config.yaml, file: tok.safetensors, from: this test }\n  images: { set: imagenet, \
                count: 8, side: 16 }\n  scored_side: 12\n  batch_size: 4\n  precision: fp32\n  reference: { kind: rfid, \
                file: null }\nexpected:\n  - { metric: psnr, value: 10, tolerance: 10, because: test }\n  - { metric: \
                ssim_dr2, value: 0, tolerance: 1, because: test }\n  - { metric: codebook_usage, value: 0.5, tolerance: \
                null, because: test }\n";
    std::fs::write(place.path("tiny.yaml"), text).unwrap();
    let given = "--recipe tiny.yaml --pieces files --data val --device cpu";
    let said = place.said(&format!("{given} --work all"), 0);
    assert!(
        said.contains("gen eval --reconstruct val --resize 16 --score-size 12") && said.contains("within"),
        "{said}"
    );
    let said = place.said(&format!("{given} --work few --limit 3"), 0);
    assert!(said.contains("not comparable: a dry run on 3 images"), "{said}");
    let images = |work: &str| {
        let text = std::fs::read_to_string(place.path(work).join("eval.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["samples"]["images"].clone()
    };
    assert_eq!((images("all"), images("few")), (8.into(), 3.into()));
}
