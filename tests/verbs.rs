//! `gen reconstruct`, `encode`, `decode` and `logits`, end to end, on tiny models with random
//! weights.

use crate::common::{Place, Tiny, pixels, stderr, write_model};
use weights::{Checkpoint, Want};

/// A folder with a model and three pictures, each of another size.
fn place() -> Place {
    let place = Place::new("", "--device cpu --threads 1");
    write_model(&place.path("model"), Tiny::default());
    for (name, width, height) in [("a", 16, 16), ("b", 40, 20), ("c", 17, 33)] {
        place
            .picture(&format!("pictures/{name}.png"), (width, height), |x, y| [x as u8 * 5, y as u8 * 7, 99]);
    }
    place
}

fn tensor(place: &Place, file: &str, name: &str) -> tch::Tensor {
    let file = Checkpoint::open(&place.path(file)).unwrap();
    file.source(Want::Auto).unwrap().read(name, tch::Device::Cpu).unwrap()
}

#[test]
fn a_folder_is_reconstructed_scored_and_shown_side_by_side() {
    let place = place();
    let report = place.json("reconstruct pictures --tokenizer model -o out", 0);
    let rows = report["images"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1]["output"], "out/b.png");
    let mean: f64 = rows.iter().map(|r| r["psnr"].as_f64().unwrap()).sum::<f64>() / 3.0;
    assert!((report["mean"]["psnr"].as_f64().unwrap() - mean).abs() < 1e-9);
    let sheet = image::open(place.path("out/sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (6 * 18 - 2, 16), "three pairs of 16 pixels");
    let left = sheet.to_rgb8();
    let original = image::open(place.path("pictures/a.png")).unwrap().to_rgb8();
    assert!(
        (0..16).all(|i| left.get_pixel(i, 15 - i) == original.get_pixel(i, 15 - i)),
        "the original is first"
    );
}

#[test]
fn a_bad_file_is_named_counted_and_the_rest_is_done() {
    let place = place();
    std::fs::write(place.path("pictures/notes.png"), "not a picture at all").unwrap();
    let report = place.json("reconstruct pictures --tokenizer model -o out", 1);
    assert_eq!(report["images"].as_array().unwrap().len(), 3);
    let skipped = &report["skipped"][0];
    assert!(skipped["input"].as_str().unwrap().ends_with("notes.png"), "{skipped}");
    let out = place.run("encode pictures/a.png pictures/notes.png --tokenizer model -o c.safetensors");
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("1 input was skipped"), "{}", stderr(&out));

    let message = place.fails("encode pictures/notes.png --tokenizer model -o d.safetensors");
    assert!(message.contains("notes.png") && message.contains("hint: "), "{message}");
    assert!(!place.path("d.safetensors").exists());
}

#[test]
fn decoding_the_codes_gives_what_reconstruct_gives_at_any_batch_size() {
    let place = place();
    place.json("reconstruct pictures --tokenizer model -o out", 0);
    let report =
        place.json("encode pictures --tokenizer model -o c.safetensors --features --batch-size 2", 0);
    assert_eq!(report["num_tokens"], 16);
    assert_eq!(tensor(&place, "c.safetensors", "features").size(), [3, 16, 8]);
    place.json("decode c.safetensors --tokenizer model -o pngs --batch-size 1", 0);
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        let expected = pixels(&place.path(&format!("out/{name}.png")));
        assert_eq!(pixels(&place.path(&format!("pngs/{i:06}.png"))), expected, "{name}");
    }
    place.json("decode c.safetensors --tokenizer model -o i.safetensors", 0);
    let images = base::Images::new(tensor(&place, "i.safetensors", "images")).unwrap();
    let first = images.to_u8().into_tensor().get(0).permute([1, 2, 0]).contiguous().view(-1);
    assert_eq!(Vec::<u8>::try_from(first).unwrap(), pixels(&place.path("out/a.png")));

    // The tensor of decoded images is itself input, where it is in range.
    let clamped = images.tensor().clamp(-1.0, 1.0);
    weights::save_safetensors(
        &place.path("x.safetensors"),
        &[("images".into(), clamped)],
        &Default::default(),
    )
    .unwrap();
    let again = place.json("reconstruct x.safetensors --tokenizer model -o again", 0);
    assert_eq!(again["images"][2]["input"], "x.safetensors[2]");
}

#[test]
fn codes_of_another_tokenizer_are_told_and_impossible_ones_refused() {
    let place = place();
    place.json("encode pictures --tokenizer model -o c.safetensors", 0);
    write_model(&place.path("other"), Tiny { seed: 2, ..Tiny::default() });
    let out = place.run("decode c.safetensors --tokenizer other -o pngs");
    assert!(stderr(&out).contains("made by a tokenizer with fingerprint"), "{}", stderr(&out));
    let message = place.fails("logits --model other --codes c.safetensors --class 0 -o l.safetensors");
    assert!(message.contains("and the transformer's is"), "{message}");
    let far = tch::Tensor::from_slice(&[64i64; 16]).view([1, 16]);
    weights::save_safetensors(&place.path("far.safetensors"), &[("codes".into(), far)], &Default::default())
        .unwrap();
    let message = place.fails("decode far.safetensors --tokenizer model -o far");
    assert!(message.contains("0..64"), "{message}");
    let message = place.fails("logits --model model --codes far.safetensors --class 0 -o l.safetensors");
    assert!(message.contains("0..64"), "{message}");
}

#[test]
fn logits_depend_on_the_class_and_on_earlier_codes_only() {
    let place = place();
    place.json("encode pictures --tokenizer model -o c.safetensors", 0);
    let report =
        place.json("logits --model model --codes c.safetensors --class 207,207,300 -o l.safetensors", 0);
    assert!(report["loss"].as_f64().unwrap() > 0.0);
    let logits = tensor(&place, "l.safetensors", "logits");
    assert_eq!(logits.size(), [3, 16, 64]);
    // Rows 0 and 1 share their class: the first prediction, made before any code, is the same.
    let first = |row: i64| logits.get(row).get(0);
    assert!(first(0).allclose(&first(1), 1e-5, 1e-5, false));
    assert!(!first(0).allclose(&first(2), 1e-3, 1e-3, false), "the null class is another condition");

    let message = place.fails("logits --model model --codes c.safetensors -o l.safetensors");
    assert!(message.contains("--class"), "{message}");
    let message = place.fails("logits --model model --codes c.safetensors --class 301 -o m.safetensors");
    assert!(message.contains("301") && !place.path("m.safetensors").exists(), "{message}");
}

/// Every work once, and a second run set beside the first.
#[test]
fn bench_prints_a_table_and_one_json_line_that_a_later_run_can_be_compared_with() {
    let place = place();
    let line = "bench --model model --work sample,encode,decode,train,eval --precision fp32,bf16,int8 --batch-size 2 \
                --cfg 1.5 --repeat 1 --workers 1,2";
    let out = place.run(line);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    let text = String::from_utf8(out.stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let done: Vec<String> = rows.iter().map(|r| format!("{} {}", r["work"], r["precision"])).collect();
    let expected = [
        "sample fp32",
        "sample bf16",
        "sample int8",
        "encode fp32",
        "encode bf16",
        "decode fp32",
        "decode bf16",
        "train fp32",
        "train fp32",
        "train bf16",
        "train bf16",
        "eval fp32",
    ];
    assert_eq!(done.join(",").replace('"', ""), expected.join(","));
    assert!(rows.iter().all(|r| r["images_per_second"].as_f64().unwrap() > 0.0));
    assert!(report["machine"]["bandwidth"].as_f64().unwrap() > 0.0);

    std::fs::write(place.path("before.txt"), &text).unwrap();
    let line =
        "bench --model model --work encode --precision fp32 --batch-size 2 --repeat 1 --compare before.txt";
    let out = place.run(line);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.lines().any(|l| l.contains("encode") && l.ends_with('×')), "{text}");

    assert!(place.fails("bench --model model --compare model/config.yaml").contains("JSON line"));
    let uneven = "bench --model model --work train --precision fp32 --batch-size 3 --workers 2";
    assert!(place.fails(uneven).contains("3 images are not 2 equal parts"));
    assert!(place.fails("encode pictures --tokenizer model --precision int8 -o c").contains("int8"));
}
