//! `gen eval --benchmark`, end to end, on a tiny model with random weights.

use crate::common::{Place, Tiny, write_model};
use serde_json::Value;

/// A model, images of two classes, and the model's files in the layout of published ones.
fn place() -> Place {
    let place = Place::new("eval", "");
    write_model(&place.path("model"), Tiny::default());
    std::fs::create_dir(place.path("files")).unwrap();
    for (from, to) in [("weights.safetensors", "ar"), ("tokenizer/weights.safetensors", "tok")] {
        let to = place.path(&format!("files/{to}.safetensors"));
        std::fs::copy(place.path("model").join(from), to).unwrap();
    }
    for (set, images) in [("train", 0..10u8), ("val", 10..14)] {
        for i in images {
            for (class, colour) in [("n01440764", [200, 15 * i, 30]), ("n02099601", [20, 15 * i, 220])] {
                place.picture(&format!("{set}/{class}/{i}.png"), (20, 18), |_, _| colour);
            }
        }
    }
    place
}

/// A benchmark that probes the model.
fn probe(place: &Place, name: &str, tolerance: f64) {
    let text = format!(
        "title: a tiny probe\nsource: this test\nseeds: the seed\ntask:\n  type: probe\n  tokenizer: {{ config: \
         model/tokenizer/config.yaml, file: tok.safetensors, from: this test }}\n  transformer: {{ config: \
         model/config.yaml, file: ar.safetensors, from: this test }}\n  batch_size: 5\n  accumulate: 2\n  seed: 0\n  \
         precision: fp32\nexpected:\n  - {{ metric: top1, value: 50, tolerance: {tolerance}, because: test }}\n"
    );
    std::fs::write(place.path(name), text).unwrap();
}

#[test]
fn what_is_missing_is_listed_and_nothing_runs() {
    let place = place();
    let said = place.said("--benchmark gigatok-xlxxl+gpt-b", 2);
    assert!(said.contains("4 of 4 artifacts are missing"), "{said}");
    assert!(said.contains("MISSING  transformer: GPT_B256_e300_VQ_XLXXL.pt — YuuTennYi/GigaTok"), "{said}");
    let said = place.said("--benchmark gigatok-ablations", 2);
    assert!(said.contains("cannot be run: neither the tokenizers"), "{said}");
    // Prompts are scored by CLIP: what that needs is asked for before anything is drawn.
    std::fs::write(place.path("files/PartiPrompts.tsv"), "Prompt\tCategory\na dog\tAnimals\n").unwrap();
    let said = place.said("--benchmark llamagen-xl-t2i-256-partiprompts --artifacts files", 2);
    assert!(said.contains("5 of 6 artifacts are missing") && said.contains("found    prompts"), "{said}");
    assert!(said.contains("CLIP: clip-vit-base-patch32.bin — OpenAI"), "{said}");
    assert!(said.contains("vocabulary of CLIP: clip-tokenizer.json — OpenAI"), "{said}");
    assert!(!place.path("benchmarks").exists());
}

#[test]
fn a_benchmark_runs_once_and_is_judged() {
    let place = place();
    probe(&place, "wide.yaml", 50.0);
    probe(&place, "narrow.yaml", 1e-6);
    let given = "--artifacts files --data val --train-data train --device cpu";
    // It runs, but a tiny probe is not comparable with a published one.
    let said = place.said(&format!("--benchmark wide.yaml {given} --work out"), 1);
    assert!(
        said.contains("$ gen probe") && said.contains("not comparable: 2 classes instead of 1000"),
        "{said}"
    );
    // It is not run again, and its folder is not taken for another benchmark's.
    let said = place.said(&format!("--benchmark wide.yaml {given} --work out"), 1);
    assert!(!said.contains("$ gen probe"), "{said}");
    let said = place.said(&format!("--benchmark narrow.yaml {given} --work out"), 2);
    assert!(said.contains("the run of another benchmark"), "{said}");
    let said = place.said(&format!("--benchmark narrow.yaml {given} --work dry --limit 10"), 0);
    assert!(said.contains("not comparable: a dry run on 10 images"), "{said}");

    // As if it had been to the protocol.
    let text = std::fs::read_to_string(place.path("out/probe.json")).unwrap();
    let mut kept: Value = serde_json::from_str(&text).unwrap();
    (kept["differences"], kept["top1"]) = (Value::Array(vec![]), 0.9.into());
    for (benchmark, work, verdict, code) in [("wide", "good", "within", 0), ("narrow", "off", "outside", 1)] {
        std::fs::create_dir(place.path(work)).unwrap();
        std::fs::write(place.path(work).join("probe.json"), kept.to_string()).unwrap();
        let said = place.said(&format!("--benchmark {benchmark}.yaml {given} --work {work} --json"), code);
        let report = std::fs::read(place.path(work).join("report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        let figure = &report["figures"][0];
        assert_eq!((&figure["verdict"], &figure["measured"]), (&verdict.into(), &90.0.into()), "{said}");
    }
}

#[test]
fn a_reconstruction_is_measured_and_a_dry_run_takes_fewer_images() {
    let place = place();
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
