//! Models, tokenizers and prompts.

use eval::{PixelMetrics, PixelPair};

use super::{NET, names, near, picture, place, value};
use crate::common::{Tiny, stderr, write_model, write_vqgan};

#[test]
fn models_and_tokenizers_are_scored_without_images_on_the_disk() {
    let place = place(3);
    write_model(&place.path("model"), Tiny::default());
    let line = "--reconstruct a --tokenizer model --metrics psnr,ssim,codebook,lpips --lpips-trunk random:1 --lpips-heads random:1";
    let report = place.json(&format!("{line} --report pairs.html"), 0);
    let plots = std::fs::read_to_string(place.path("pairs.html")).unwrap();
    assert!(plots.contains("<svg") && plots.contains("psnr of single images"));
    let expected = place.json("a --reference a --metrics psnr", 0);
    assert!(value(&report, "psnr") > 0.0 && expected["values"][0]["value"].is_null());
    assert!(value(&report, "codebook_perplexity") >= 1.0 && value(&report, "lpips") > 0.0);
    assert_eq!(report["reference"]["kind"], "the originals themselves");
    assert_eq!(
        (report["samples"]["images"].as_u64(), report["reference"]["images"].as_u64()),
        (Some(3), Some(3))
    );

    let out = place.run(&format!(
        "--model model --num-images 4 --metrics fid,is --resize 16 --reference a --interval {NET} --report r.html"
    ));
    assert_eq!(out.status.code(), Some(2), "four images do not fill ten groups: {}", stderr(&out));
    let line = format!("--model model --num-images 4 --metrics fid,is --resize 16 --reference a {NET}");
    let report = place.json(&format!("{line} --batch-size 3 --report r.html"), 0);
    assert_eq!(report["samples"]["made_by"]["settings"]["seed"], 0);
    assert_eq!(report["samples"]["made_by"]["classes"], "uniformly at random");
    // Other draws are other images: kept sums are not theirs.
    place.json(&format!("{line} --partial drawn"), 0);
    let message = place.fails(&format!("{line} --balanced --partial drawn"));
    assert!(message.contains("another run") && message.contains("source"), "{message}");
    near(value(&place.json(&format!("{line} --batch-size 2"), 0), "fid"), value(&report, "fid"), 1e-3);
    let page = std::fs::read_to_string(place.path("r.html")).unwrap();
    assert!(page.contains("data:image/jpeg;base64,") && page.contains("By class"));
    for outside in ["src=\"http", "href=\"http", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let wrong = place.fails(&format!("--model model --num-images 4 --metrics psnr --reference a {NET}"));
    assert!(wrong.contains("no originals"), "{wrong}");
}

#[test]
fn a_transformer_is_scored_by_how_well_it_predicts_codes() {
    let place = place(0);
    write_model(&place.path("model"), Tiny::default());
    for (class, images) in [("n01440764", 0..3), ("n02099601", 3..5)] {
        for i in images {
            picture(&place, &format!("data/{class}/{i}.png"), (20, 16), i, 1);
        }
    }
    let line = "--likelihood data --model model";
    let report = place.json(line, 0);
    assert_eq!(names(&report), ["ar_loss", "ar_bits_per_image", "ar_perplexity"]);
    let loss = value(&report, "ar_loss");
    near(value(&report, "ar_perplexity") / loss.exp(), 1.0, 1e-12); // random weights: it may have twenty digits
    near(value(&report, "ar_bits_per_image"), 16.0 * loss / std::f64::consts::LN_2, 1e-9);
    assert_eq!(report["samples"]["images"], 5);

    // Another verb's loss of the same codes, and stored codes'.
    let ok = |line: &str| assert!(place.other(line).status.success(), "{line}");
    ok("encode data --tokenizer model -o c.safetensors");
    let logits = place.other("logits --codes c.safetensors --model model --class 0,0,0,207,207 -o l --json");
    let logits: serde_json::Value = serde_json::from_slice(&logits.stdout).unwrap();
    near(logits["loss"].as_f64().unwrap(), loss, 1e-5);
    ok("extract --data data --tokenizer model --output codes");
    near(value(&place.json("--likelihood codes --model model --batch-size 2", 0), "ar_loss"), loss, 1e-5);
    write_model(&place.path("other"), Tiny { seed: 2, ..Tiny::default() });
    ok("extract --data data --tokenizer other --output others");
    let refused = place.fails("--likelihood others --model model");
    assert!(
        refused.contains("are of the tokenizer") && refused.contains("the transformer's is"),
        "{refused}"
    );
    // Class 0 of these is not the model's.
    picture(&place, "zoo/zebra/0.png", (20, 16), 0, 1);
    ok("extract --data zoo --tokenizer model --output zebras");
    for data in ["zoo", "zebras"] {
        let refused = place.fails(&format!("--likelihood {data} --model model"));
        assert!(refused.contains("class 0 is `tench` in the model, but `zebra` in"), "{refused}");
    }
    for k in 0..2 {
        ok(&format!("eval {line} --shard {k}/2 --partial part{k}"));
    }
    let merged = place.json(&format!("{line} --merge part0 part1 --report r.html"), 0);
    near(value(&merged, "ar_loss"), loss, 1e-5);
    let page = std::fs::read_to_string(place.path("r.html")).unwrap();
    assert!(page.contains("207 golden retriever") && page.contains("nats a code"), "per class");

    // A weight that is not finite: no loss, but the name of an image and of the file.
    std::fs::create_dir(place.path("broken")).unwrap();
    for file in ["config.yaml", "classes.tsv"] {
        std::fs::copy(place.path("model").join(file), place.path("broken").join(file)).unwrap();
    }
    let file = weights::Checkpoint::open(&place.path("model/weights.safetensors")).unwrap();
    let source = file.source(weights::Want::Auto).unwrap();
    let read = |name: &str| source.read(name, tch::Device::Cpu).unwrap();
    let tensors: Vec<_> = source.names().into_iter().map(|n| (n.to_owned(), read(n))).collect();
    let output = tensors.iter().find(|(name, _)| name == "output.weight").unwrap();
    let _ = output.1.get(0).get(0).fill_(f64::NAN);
    weights::save_safetensors(&place.path("broken/weights.safetensors"), &tensors, &Default::default())
        .unwrap();
    for data in ["codes", "data --tokenizer model"] {
        let message = place.fails(&format!("--likelihood {data} --model broken"));
        let named = message.contains("000000") || message.contains("n01440764/0.png");
        assert!(named && message.contains("broken") && message.contains("not finite"), "{message}");
    }

    picture(&place, "flat/0.png", (16, 16), 0, 0);
    assert!(place.fails("--likelihood flat --model model").contains("these have none"));
    assert!(place.fails(&format!("{line} --metrics fid")).contains("no images to score"));
    assert!(place.fails("data --metrics ar_loss").contains("--likelihood"));
}

/// A vocabulary of letters whose ends are where CLIP has them.
fn write_vocabulary(dir: &std::path::Path) {
    let letters = ('a'..='z').flat_map(|c| [c.to_string(), format!("{c}</w>")]);
    let mut tokens: serde_json::Map<_, _> = letters.zip(0..).map(|(t, i)| (t, i.into())).collect();
    tokens.insert("<|startoftext|>".into(), 49_406.into());
    tokens.insert("<|endoftext|>".into(), 49_407.into());
    std::fs::create_dir(dir).unwrap();
    std::fs::write(dir.join("vocab.json"), serde_json::Value::from(tokens).to_string()).unwrap();
    std::fs::write(dir.join("merges.txt"), "#version: 0.2\n").unwrap();
}

#[test]
fn images_are_compared_with_their_prompts() {
    let place = place(3);
    let network = "--clip-score-weights random:3 --clip-text text";
    assert!(place.fails(&format!("a --metrics clip_score {network}")).contains("has no prompts"));
    write_vocabulary(&place.path("text"));
    std::fs::write(place.path("captions.txt"), "a cat\na blue dog\nthe sea\n").unwrap();
    let report = place.json(&format!("a --metrics clip_score {network}"), 0);
    assert_eq!(names(&report), ["clip_score", "clip_cosine", "clip_score_100"]);
    let (hessel, cosine) = (value(&report, "clip_score"), value(&report, "clip_cosine"));
    assert!(cosine.abs() <= 1.0 && hessel >= 2.5 * cosine - 1e-12, "{report}");
    let first = &report["values"][0];
    assert_eq!((first["comparable"].as_bool(), first["samples"].as_u64()), (Some(false), Some(3)));
    assert!(first["network"]["weights_sha256"].as_str().unwrap().starts_with("random:3+"), "{first}");

    // Rows that name their images, in another order, at any batch size.
    let rows = [("2", "the sea"), ("0", "a cat"), ("1", "a blue dog")]
        .map(|(i, text)| format!("{{\"text\": \"{text}\", \"image_path\": \"x/images/00000{i}.png\"}}\n"));
    std::fs::write(place.path("result.jsonl"), rows.concat()).unwrap();
    let line = format!("a --metrics clip_score {network} --captions result.jsonl --batch-size 2");
    near(value(&place.json(&line, 0), "clip_cosine"), cosine, 1e-5);
    std::fs::write(place.path("captions.txt"), "a cat\n").unwrap();
    let message = place.fails(&format!("a --metrics clip_score {network}"));
    assert!(message.contains("1 lines") && message.contains("3 images"), "{message}");
}

#[test]
fn reconstructions_are_scored_at_another_size_as_llamagen_does() {
    let place = place(3);
    write_vqgan(&place.path("vq"));
    let line = "--reconstruct a --tokenizer vq --resize 24 --score-size 16 --metrics psnr,ssim_dr2,codebook";
    let report = place.json(line, 0);
    assert!(report["values"][0]["resize"].as_str().unwrap().contains("crop to 24x24, then both to 16x16"));
    assert_eq!(report["reference"]["images"], 3);

    // The script's steps: crop to 24, encode and decode, both floating images to 16 by bicubic,
    // then compare.
    let tokenizer = tokenizer::open_dir(&place.path("vq"), tch::Device::Cpu, base::Precision::Fp32).unwrap();
    let mut expected = eval::Reconstruction::default();
    for i in 0..3 {
        let image = image::open(place.path(&format!("a/{i:06}.png"))).unwrap().to_rgb8();
        let image = data::transform::center_crop(&image, 24);
        let nhwc = tch::Tensor::from_slice(image.as_raw()).view([1, 24, 24, 3]);
        let original = base::ImagesU8::new(nhwc.permute([0, 3, 1, 2]).contiguous()).unwrap().to_float();
        use tokenizer::Tokenizer as _;
        let codes = tokenizer.model.encode(&original).unwrap();
        let decoded = tokenizer.model.decode(&codes).unwrap();
        let small = |x: &base::Images| {
            base::Images::new(x.tensor().upsample_bicubic2d([16, 16], false, None, None)).unwrap()
        };
        let pair = PixelPair::published(&small(&decoded).to_u8(), &small(&original)).unwrap();
        expected.update(&pair, PixelMetrics::ALL).unwrap();
    }
    let expected = expected.means().unwrap();
    near(value(&report, "psnr"), expected.psnr, 1e-4);
    near(value(&report, "ssim_dr2"), expected.ssim_published.unwrap(), 1e-5);

    // The set of originals is cropped to the size of the scores, not resized twice.
    let whole = place
        .json(&format!("--reconstruct a --tokenizer vq --resize 24 --score-size 16 --metrics fid {NET}"), 0);
    place.json(&format!("stats a -o a16.npz --kind rfid --resize 16 {NET}"), 0);
    let line = format!("--reconstruct a --tokenizer vq --resize 24 --score-size 16 --metrics fid {NET}");
    let stored = place.json(&format!("{line} --reference a16.npz"), 0);
    near(value(&stored, "fid"), value(&whole, "fid"), 1e-4 * value(&whole, "fid").max(1.0));
    assert!(place.fails("a --score-size 16 --metrics psnr").contains("--reconstruct"));
}
