//! `gen probe`, end to end, on a tiny model with random weights.

use crate::common::{Place, Tiny, write_model};
use serde_json::Value;

/// A model, and ten small images of each of two classes, which differ by colour.
fn place() -> Place {
    let place = Place::new("probe", "--device cpu --threads 1");
    write_model(&place.path("model"), Tiny::default());
    for (set, images) in [("train", 0..10u8), ("val", 10..14)] {
        for i in images {
            picture(&place, &format!("{set}/n01440764/{i}.png"), [200, 15 * i, 30]);
            picture(&place, &format!("{set}/n02099601/{i}.png"), [20, 15 * i, 220]);
        }
    }
    place
}

fn picture(place: &Place, name: &str, colour: [u8; 3]) {
    place.picture(name, (20, 18), |x, _| colour.map(|c| c.wrapping_add(x as u8)));
}

/// The report of a quick probe.
fn json(place: &Place, line: &str) -> Value {
    place.json(&format!("{line} {QUICK}"), 0)
}

const DATA: &str = "--data train --validation val";
const QUICK: &str = "--batch-size 5 --accumulate 2 --epochs 60 --warmup-epochs 6 --base-lr 40";

fn texts(list: &Value) -> String {
    list.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect::<Vec<_>>().join("; ")
}

#[test]
fn transformers_and_tokenizers_are_probed() {
    let place = place();
    let a = json(&place, &format!("{DATA} --model model --output a"));
    assert_eq!((&a["metric"], &a["validation_images"]), (&"linear-probe accuracy".into(), &8.into()));
    assert_eq!((&a["subject"]["place"], &a["steps"]), (&"transformer, layer 1 of 2".into(), &120.into()));
    assert_eq!((&a["classes"][1]["index"], &a["top5"]), (&207.into(), &Value::Null));
    let differences = texts(&a["differences"]);
    assert!(differences.contains("20 training images instead of 1281167"), "{differences}");
    assert!(!differences.contains("fixed views") && !differences.contains("features:"), "{differences}");
    // The transformer's weights are random, so how many it gets right is chance.
    assert!((0.0..=1.0).contains(&a["top1"].as_f64().unwrap()), "{a}");

    let shared = format!("{DATA} --tokenizer model --cache-views 3 --cache features");
    let b = json(&place, &format!("{shared} --output b"));
    // The number of eight images that a head on an untrained encoder gets right is random; the loss
    // shows that it learned.
    assert!(b["train_loss"].as_f64().unwrap() < 2f64.ln() && b["width"] == 32, "{b}");
    let differences = texts(&b["differences"]);
    assert!(differences.contains("3 fixed views"), "{differences}");
    // Another head on the same features, which are not made again.
    let made = || std::fs::read_dir(place.path("features")).unwrap().count();
    assert_eq!(made(), 2);
    let c = json(&place, &format!("{shared} --head-bn off --optimizer sgd --output c"));
    assert_eq!((made(), &c["head"]["optimizer"]), (2, &"sgd".into()));
    let d = json(&place, &format!("{shared} --fix-dim --feature-norm ln --output d"));
    assert_eq!((made(), &d["subject"]["feature_norm"]), (4, &"ln".into()));

    let e = json(&place, &format!("{shared} --limit 10 --output e"));
    assert_eq!(
        (&e["train_images"], &e["validation_images"], &e["steps"]),
        (&10.into(), &8.into(), &60.into())
    );

    // A finished run reports its result again; other settings are not taken for it.
    assert_eq!(json(&place, &format!("{shared} --output b")), b);
    let said = place.fails(&format!("{shared} --seed 4 --output b {QUICK}"));
    assert!(said.contains("what differs: seed"), "{said}");
}

#[test]
fn what_cannot_be_probed_is_refused_and_a_damaged_image_is_counted() {
    let place = place();
    picture(&place, "plain/a.png", [1, 2, 3]);
    picture(&place, "one/n02099601/a.png", [1, 2, 3]);
    picture(&place, "other/n02099712/a.png", [1, 2, 3]);
    let model = "--model model";
    picture(&place, "cats/cat/a.png", [1, 2, 3]);
    picture(&place, "cats/zebra/a.png", [1, 2, 3]);
    picture(&place, "dogs/dog/a.png", [1, 2, 3]);
    for (line, expected) in [
        ("--data cats --validation dogs", "class 0 is `cat` in the training images, but `dog` in"),
        ("--data plain --validation val", "no class labels (the first is `a.png`)"),
        ("--data train --validation plain", "the validation images have no class labels"),
        ("--data one --validation val", "of one class, `golden retriever`"),
        ("--data train --validation other", "1 classes that the training images lack; the first is 208"),
        ("--data nowhere --validation val", "there is no such file or folder"),
        ("--data train --validation val", "do not fill one step of 64 batches of 128"),
        ("--data train --validation val --layer 3 --accumulate 1 --batch-size 4", "layers 1 to 2"),
        ("--data train --validation val --fix-dim", "for tokenizers, but a transformer is probed"),
    ] {
        let model = if line.contains("--fix-dim") { "" } else { model };
        let said = place.fails(&format!("{line} {model} --output out"));
        assert!(said.contains(expected), "{line}: {said}");
        assert!(!place.path("out").exists(), "{line}");
    }
    let said = place.fails(&format!("{DATA} --tokenizer model --from-decoder --output out"));
    assert!(said.contains("was not aligned to a teacher"), "{said}");
    let said = place.fails(&format!("{DATA} --tokenizer model --layer 1 --output out"));
    assert!(said.contains("`--layer` and `--probe-dropout` are for transformers"), "{said}");

    std::fs::write(place.path("val/n02099601/11.png"), "text").unwrap();
    let out = place.run(&format!("{DATA} --tokenizer model --cache-views 1 --output out {QUICK} --json"));
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((out.status.code(), &report["validation_images"]), (Some(1), &7.into()));
    let said = place.fails(&format!("{DATA} --tokenizer model --max-corrupt 0 --output strict {QUICK}"));
    assert!(said.contains("more than the 0 allowed"), "{said}");
}
