//! Images in one piece.

use generate::{Condition, DrawConfig, Generator, Picture, Provenance};
use sampler::{DecodeMode, SamplingConfig};
use serde_json::{Value, json};
use server::ServerConfig;
use settings::{Rng, SamplingSettings};

use crate::client::{classes, images, models, server, unbase64, wait};

/// The picture of a file.
fn pixels(file: &Value) -> (u32, u32, Vec<u8>) {
    let (image, _) = data::decode("answer", &unbase64(file)).unwrap();
    (image.width(), image.height(), image.into_raw())
}

/// The picture and the provenance of a PNG.
fn read_png(file: &Value) -> (Provenance, Picture) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.png");
    std::fs::write(&path, unbase64(file)).unwrap();
    Provenance::read(&path).unwrap()
}

/// As `gen sample` draws it: image `index` of class 207.
fn sampled(settings: SamplingSettings, seed: u64, index: u64, size: Option<i64>) -> Picture {
    let generator = Generator::load(models("classes"), &mut base::Silent).unwrap();
    let class = generator.classes().unwrap().resolve("207").unwrap().clone();
    let sampling = SamplingConfig::from_settings(settings).unwrap();
    let draw = DrawConfig { sampling, rng: Rng::Image, seed, mode: DecodeMode::Stepwise, size };
    let mut run = generator.run(&draw).unwrap();
    let images = run.images(&[index], &[&Condition::Class(class)]).unwrap();
    Picture::from_batch(&images).unwrap().remove(0)
}

#[test]
fn images_are_those_of_gen_sample_and_carry_their_settings() {
    let body = json!({"prompt": "golden retriever", "n": 2, "seed": 7, "guidance_scale": 3.0, "top_k": 40});
    let answer = wait(images(&classes(), &body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let settings = SamplingSettings { cfg: Some(3.0), top_k: Some(40), ..SamplingSettings::default() };
    for (index, image) in json["data"].as_array().unwrap().iter().enumerate() {
        let (provenance, picture) = read_png(&image["b64_json"]);
        assert_eq!(picture, sampled(settings.clone(), 7, index as u64, None), "image {index}");
        assert_eq!((provenance.run.seed, provenance.index), (7, index as u64));
        assert_eq!(provenance.run.sampling.cfg, Some(3.0));
        assert_eq!(provenance.condition.class, Some(207));
        assert_eq!((&image["seed"], &image["index"]), (&json!(7), &json!(index)));
    }
    assert_eq!(json["size"], "16x16");
    assert_eq!((&json["background"], &json["output_format"]), (&json!("opaque"), &json!("png")));
    assert_eq!(json["usage"]["output_tokens"], 32);
    assert_eq!(json["usage"]["total_tokens"], 32);
    assert_eq!(json["usage"]["input_tokens_details"], json!({"text_tokens": 0, "image_tokens": 0}));
    assert!(json["created"].as_u64().unwrap() > 1_700_000_000);
    assert!(json["data"][0].get("url").is_none());
}

#[test]
fn every_form_and_size() {
    let png = sampled(SamplingSettings::default(), 1, 0, None);
    for (format, lossless) in [("png", true), ("webp", true), ("jpeg", false)] {
        let body = json!({"class": 207, "seed": 1, "output_format": format, "response_format": "b64_json"});
        let json = wait(images(&classes(), &body)).json();
        assert_eq!(json["output_format"], format);
        let (width, height, rgb) = pixels(&json["data"][0]["b64_json"]);
        assert_eq!((width, height), (16, 16));
        assert_eq!(rgb == png.rgb, lossless, "{format}");
    }
    let body = json!({"class": 207, "seed": 1, "size": "40x40"});
    let json = wait(images(&classes(), &body)).json();
    assert_eq!(json["size"], "40x40");
    let expected = sampled(SamplingSettings::default(), 1, 0, Some(40));
    assert_eq!(read_png(&json["data"][0]["b64_json"]).1, expected);
    let length = |quality: i64| {
        let body = json!({"class": 207, "seed": 1, "output_format": "jpeg", "output_compression": quality});
        unbase64(&wait(images(&classes(), &body)).json()["data"][0]["b64_json"]).len()
    };
    assert!(length(5) < length(100));
}

#[test]
fn a_class_has_many_names_and_a_seed_is_told() {
    let data = |body: Value| wait(images(&classes(), &body)).json()["data"][0].clone();
    let named = [json!(207), json!("207"), json!("n02099601"), json!("golden retriever")];
    let all: Vec<Value> = named.into_iter().map(|class| data(json!({"class": class, "seed": 3}))).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(data(json!({"prompt": "n02099601", "class": null, "seed": 3})), all[0]);
    assert_eq!(data(json!({"prompt": "", "class": 207, "seed": 3})), all[0]);
    let (one, other) = (data(json!({"class": 207})), data(json!({"class": 207})));
    assert_ne!(one["seed"], other["seed"]);
    assert_eq!(data(json!({"class": 207, "seed": one["seed"]})), one);
    let largest = data(json!({"class": 207, "seed": u64::MAX}));
    assert_eq!(largest["seed"], u64::MAX);
}

#[test]
fn prompts_and_classes_side_by_side() {
    let config = ServerConfig {
        aliases: [("gpt-image-1".to_owned(), "prompts".to_owned())].into(),
        ..ServerConfig::default()
    };
    let router = server(config, &["classes", "prompts"]).router();
    let body = json!({"model": "gpt-image-1", "prompt": "a dog", "negative_prompt": "a cat", "user": "me",
        "moderation": "low", "quality": "auto", "background": "opaque", "size": "auto", "n": 1,
        "stream": false, "partial_images": 0, "safety_identifier": "x"});
    let answer = wait(images(&router, &body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (provenance, _) = read_png(&answer.json()["data"][0]["b64_json"]);
    assert_eq!(provenance.condition.prompt.as_deref(), Some("a dog"));
    assert_eq!(provenance.run.negative_prompt.as_deref(), Some("a cat"));
    let json = answer.json();
    assert!(json["usage"]["input_tokens"].as_u64().unwrap() > 0, "{}", json["usage"]);
    let answer = wait(images(&router, &json!({"prompt": "tabby"})));
    assert_eq!(read_png(&answer.json()["data"][0]["b64_json"]).0.condition.class, Some(281));
}
