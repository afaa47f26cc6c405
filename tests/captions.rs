//! End to end from captions to a model and its images: several data sets, another size, stored text
//! features.

use crate::common::{Place, pixels, write_text_encoder, write_vqgan};
use data::{NO_CLASS, open_codes};
use serde_json::Value;

/// 1,024 codes in 2-D rotary positions, as in LlamaGen's second stage, of images of 64 × 64
/// pixels: the tokenizer's patches are 2 × 2. No dropout, so that runs can be compared.
const RECIPE: &str = "
seed: 6
model:
  type: gpt
  width: 16
  layers: 1
  heads: 2
  vocab_size: null
  num_tokens: 1024
  position: rope_2d
  conditioning: { type: text, length: 8, feature_width: 12 }
  dropout: { token: 0.0, residual: 0.0, feed_forward: 0.0, condition: 0.0 }
text:
  encoder: { type: joint, vocab_size: 270, layers: 1, heads: 2, head_width: 4, feed_forward_width: 16 }
  templates: ['a photo of {a}']
data:
  codes: []
  validation_codes: []
  images: { train: null, validation: null, crop: { type: center }, flip: false, workers: 2, max_corrupt: 0 }
optimization:
  steps: 2
  batch_size: 3
  lr: 1.0e-2
  warmup: 0
  schedule: { type: constant }
  adamw: { betas: [0.9, 0.95], weight_decay: 0.05, decay: matrices }
  clip: 1.0
  ema: null
  precision: fp32
every: { log: 1, validate: 0, save: 2 }
";

/// A tokenizer, three pictures with a class, three with a caption and two more with captions.
fn place() -> Place {
    let place = Place::new("", "--device cpu");
    write_vqgan(&place.path("tokenizer"));
    std::fs::write(place.path("recipe.yaml"), RECIPE).unwrap();
    for i in 0..3u32 {
        picture(&place, &format!("classes/n02099601/{i}.png"), i);
        captioned(&place, "captions", i, &format!("A red panda, number {i}. It sleeps."));
    }
    for i in 0..2 {
        captioned(&place, "more", i, &format!("A dog, number {i}. It runs."));
    }
    place
}

fn picture(place: &Place, name: &str, i: u32) {
    place.picture(name, (80, 70), |x, y| [(3 * x + 40 * i) as u8, (3 * y) as u8, (x + y) as u8]);
}

fn captioned(place: &Place, folder: &str, i: u32, caption: &str) {
    picture(place, &format!("{folder}/{i}.png"), i + 3);
    std::fs::write(place.path(folder).join(format!("{i}.txt")), format!("{caption}\n")).unwrap();
}

/// The losses of a run.
fn losses(place: &Place, run: &str) -> Vec<f64> {
    let log = std::fs::read_to_string(place.path(run).join("log.jsonl")).unwrap();
    let rows = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter_map(|row| row["loss"].as_f64()).collect()
}

fn near(a: &[f64], b: &[f64]) {
    assert_eq!((a.len(), b.len()), (2, 2));
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} and {b:?}");
}

#[test]
fn data_sets_follow_one_another_with_their_labels_captions_and_codes_of_the_wanted_size() {
    let place = place();
    let extract = "extract --tokenizer tokenizer --image-size 64";
    place.ok(&format!("{extract} --data classes --data captions --data more --output all"));
    let all = open_codes(&[&place.path("all")]).unwrap();
    assert_eq!((all.len(), all.num_tokens(), all.views()), (8, 1024, 1));
    let labels: Vec<i64> = (0..8).map(|i| all.read(i, 0).unwrap().label).collect();
    assert_eq!(labels, [207, 207, 207, NO_CLASS, NO_CLASS, NO_CLASS, NO_CLASS, NO_CLASS]);
    let captions: Vec<String> = (0..8).map(|i| all.caption(i).unwrap()).collect();
    assert_eq!(captions[..3], ["", "", ""]);
    assert_eq!(captions[4], "A red panda, number 1. It sleeps.");
    assert_eq!(captions[7], "A dog, number 1. It runs.");
    // The same codes as for each set alone.
    place.ok(&format!("{extract} --data captions --output captions-alone"));
    let alone = open_codes(&[&place.path("captions-alone")]).unwrap();
    assert!((0..3).all(|i| alone.read(i, 0).unwrap().codes == all.read(i + 3, 0).unwrap().codes));

    // Classes get captions from the recipe's templates, the others have theirs.
    place.ok("train-ar --recipe recipe.yaml --tokenizer tokenizer --codes all --output run");
    assert_eq!(losses(&place, "run").len(), 2);
    let said = place.fails(
        "train-ar --recipe recipe.yaml --tokenizer tokenizer --codes all --output no text.templates=[]",
    );
    assert!(said.contains("has class 207 and no caption"), "{said}");
}

#[test]
fn a_transformer_of_1024_codes_learns_from_images_or_codes_and_draws_pictures_of_that_size() {
    let place = place();
    place.ok("extract --tokenizer tokenizer --image-size 64 --data captions --output codes");
    let train = "train-ar --recipe recipe.yaml --tokenizer tokenizer";
    place.ok(&format!("{train} --codes codes --output stored"));
    place.ok(&format!("{train} --data captions --output encoded"));
    near(&losses(&place, "stored"), &losses(&place, "encoded"));
    let said = place.fails(&format!("{train} --data captions --output no model.num_tokens=1000"));
    assert!(said.contains("`model.num_tokens` is 1000"), "{said}");

    std::fs::write(place.path("two.txt"), "a red panda\na dog that runs\n").unwrap();
    let sample = "sample --model stored --cfg 1.5";
    place.ok(&format!("{sample} --prompts two.txt --batch-size 2 --output pictures"));
    let first = image::open(place.path("pictures/000000.png")).unwrap();
    assert_eq!((first.width(), first.height()), (64, 64));
    assert_ne!(pixels(&place.path("pictures/000000.png")), pixels(&place.path("pictures/000001.png")));
    place.ok(&format!("{sample} --prompts two.txt --batch-size 1 --output one"));
    for name in ["000000.png", "000001.png"] {
        assert_eq!(pixels(&place.path("one").join(name)), pixels(&place.path("pictures").join(name)));
    }
    place.ok(&format!("{sample} --prompts two.txt --size 40 --output small"));
    assert_eq!(image::open(place.path("small/000001.png")).unwrap().width(), 40);
}

#[test]
fn features_of_several_data_sets_are_stored_once_and_train_like_the_encoder_itself() {
    let place = place();
    write_text_encoder(&place.path("t5"));
    let text = "extract --text t5 --text-length 8";
    let said =
        place.said(&format!("{text} --data captions --data more --data captions --output features"), 0);
    assert!(said.contains("features of 5 captions"), "{said}");
    let said = place.fails(&format!("{text} --data captions --data classes --output no"));
    assert!(said.contains("n02099601/0.png` has no caption"), "{said}");
    let said = place.fails(&format!("{text} --data captions --precision fp16 --output no"));
    assert!(said.contains("fp16, whose range T5 leaves"), "{said}");

    let train = "train-ar --recipe recipe.yaml --tokenizer tokenizer --data captions";
    place.ok(&format!("{train} --text-features features --output stored"));
    place.ok(&format!("{train} --text-encoder t5 --output encoded text.encoder.precision=fp32"));
    near(&losses(&place, "stored"), &losses(&place, "encoded"));
    // The one knows its encoder by its fingerprint alone, the other also where it was.
    std::fs::write(place.path("prompt.txt"), "a dog\n").unwrap();
    let said = place.fails("sample --model stored --prompts prompt.txt");
    assert!(said.contains("`--text-encoder DIR`"), "{said}");
    place.ok("sample --model stored --prompts prompt.txt --text-encoder t5 --output a");
    place.ok("sample --model encoded --prompts prompt.txt --output b");
    assert_eq!(pixels(&place.path("a/000000.png")).len(), 64 * 64 * 3);
    assert_eq!(pixels(&place.path("b/000000.png")).len(), 64 * 64 * 3);
}
