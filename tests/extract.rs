//! `gen extract`, end to end, on a tiny tokenizer with random weights.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::{Tiny, write_model};
use assert_cmd::Command;
use data::open_codes;
use tempfile::TempDir;

/// A model, and five images in two class folders, one of which is no image.
fn place() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_model(&dir.path().join("model"), Tiny::default());
    for (class, images) in [("n01440764", "ab"), ("n02099601", "cde")] {
        let folder = dir.path().join("images").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for (i, name) in images.chars().enumerate() {
            let shade = i as u8 * 60;
            let image =
                image::RgbImage::from_fn(24, 18, |x, y| image::Rgb([shade, x as u8 * 9, y as u8 * 13]));
            image.save(folder.join(format!("{name}.png"))).unwrap();
        }
    }
    dir
}

fn extract(dir: &TempDir, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gen"));
    command.current_dir(dir.path()).args("extract --data images --tokenizer model --device cpu".split(' '));
    command.args(line.split_whitespace()).output().unwrap()
}

fn ok(dir: &TempDir, line: &str, code: i32) -> PathBuf {
    let out = extract(dir, line);
    assert_eq!(out.status.code(), Some(code), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    dir.path().join(line.split_whitespace().next_back().unwrap())
}

fn records(folder: &Path, view: usize) -> Vec<(Vec<i64>, i64)> {
    let codes = open_codes(&[folder]).unwrap();
    let read = |i| codes.read(i, view).unwrap();
    (0..codes.len()).map(|i| (read(i).codes, read(i).label)).collect()
}

#[test]
fn shards_hold_what_the_tokenizer_makes_at_any_batch_size_and_after_an_interruption() {
    let dir = place();
    let a = ok(&dir, "--shard-size 2 --batch-size 3 --output a", 0);
    let all = records(&a, 0);
    assert_eq!(all.iter().map(|r| r.1).collect::<Vec<_>>(), [0, 0, 207, 207, 207]);
    assert_eq!(open_codes(&[&a]).unwrap().classes()[1].name, "golden retriever");

    // As if the run had been killed after its second shard.
    let kept = std::fs::metadata(a.join("codes-00000-of-00003.safetensors")).unwrap().modified().unwrap();
    std::fs::remove_file(a.join("codes-00002-of-00003.safetensors")).unwrap();
    std::fs::remove_file(a.join("index.json")).unwrap();
    ok(&dir, "--shard-size 2 --batch-size 1 --output a", 0);
    assert_eq!(records(&a, 0), all);
    let after = std::fs::metadata(a.join("codes-00000-of-00003.safetensors")).unwrap().modified().unwrap();
    assert_eq!(kept, after);

    // Other images of the same names are not continued.
    let image = dir.path().join("images/n02099601/e.png");
    let kept_image = std::fs::read(&image).unwrap();
    image::RgbImage::from_pixel(24, 18, image::Rgb([9, 9, 9])).save(&image).unwrap();
    let out = extract(&dir, "--shard-size 2 --output a");
    assert!(String::from_utf8_lossy(&out.stderr).contains("differs: the images"));
    std::fs::write(&image, kept_image).unwrap();

    let out = extract(&dir, "--shard-size 2 --augment flip --output a");
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("differs: the augmentations"));
}

#[test]
fn views_and_the_official_layout() {
    let dir = place();
    let plain = ok(&dir, "--output plain", 0);
    let flip = ok(&dir, "--augment flip --batch-size 3 --output flip", 0);
    assert_eq!(records(&plain, 0), records(&flip, 0));
    assert_ne!(records(&flip, 1), records(&flip, 0));

    let shards = ok(&dir, "--augment ten-crop --crop-factor 1.1,1.5 --output shards", 0);
    let npy = ok(&dir, "--augment ten-crop --crop-factor 1.1 --format npy --output npy", 0);
    assert_eq!(open_codes(&[&shards]).unwrap().views(), 20);
    assert!((0..10).all(|v| records(&npy, v) == records(&shards, v)));
    assert!(npy.join("imagenet16_codes/4.npy").is_file());
}

#[test]
fn a_damaged_image_is_left_out_named_and_counted() {
    let dir = place();
    std::fs::write(dir.path().join("images/n02099601/d.png"), "text").unwrap();
    let codes = ok(&dir, "--shard-size 2 --output codes", 1);
    assert_eq!(records(&codes, 0).iter().map(|r| r.1).collect::<Vec<_>>(), [0, 0, 207, 207]);
    assert!(std::fs::read_to_string(codes.join("skipped.tsv")).unwrap().contains("n02099601/d.png"));
    for (line, expected) in [
        ("--max-corrupt 0 --output strict", "more than the 0 allowed"),
        ("--format npy --output npy", "no room"),
    ] {
        let out = extract(&dir, line);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && said.contains(expected), "{said}");
        assert!(!dir.path().join("strict/index.json").exists());
    }
}

#[test]
fn where_nothing_can_be_read_nothing_is_made() {
    let dir = place();
    for file in ["n01440764/a", "n01440764/b", "n02099601/c", "n02099601/d", "n02099601/e"] {
        std::fs::write(dir.path().join(format!("images/{file}.png")), "text").unwrap();
    }
    let out = extract(&dir, "--output codes");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("none of the 5 images can be read; the first: n0"), "{said}");
    assert!(!dir.path().join("codes/index.json").exists());
}

#[test]
fn names_of_any_kind_stay_one_line_and_what_is_left_out_is_said() {
    let dir = place();
    std::fs::write(dir.path().join("images/n02099601/new\nline\t.png"), "text").unwrap();
    std::fs::write(dir.path().join("images/n02099601/film.mov"), "ftyp").unwrap();
    let out = extract(&dir, "--json --output codes");
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("1 file was left out (1 not named like an image): `n02099601/film.mov`"), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&report["skipped"], &report["left_out"]), (&1.into(), &1.into()));
    let list = std::fs::read_to_string(dir.path().join("codes/skipped.tsv")).unwrap();
    assert_eq!(list.lines().count(), 1);
    assert!(list.starts_with("n02099601/new\\nline\\t.png\tnot an image"), "{list}");
}

#[test]
fn sets_that_number_classes_differently_and_pictures_that_are_too_large_are_refused() {
    let dir = place();
    std::fs::create_dir_all(dir.path().join("more/n02099601")).unwrap();
    std::fs::rename(dir.path().join("images/n02099601/e.png"), dir.path().join("more/n02099601/e.png"))
        .unwrap();
    ok(&dir, "--data more --output both", 0);
    std::fs::rename(dir.path().join("more/n02099601"), dir.path().join("more/zebra")).unwrap();
    let out = extract(&dir, "--data more --output codes");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("class 0 is `tench` in") && said.contains("but `zebra` in"), "{said}");
    assert_eq!(out.status.code(), Some(2));

    let out = extract(&dir, "--max-pixels 400 --output codes");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("24x18 pixels are more than the 400"), "{said}");
}

#[test]
fn decode_and_logits_read_what_is_extracted() {
    let dir = place();
    let codes = ok(&dir, "--augment flip --shard-size 2 --output codes", 0);
    let gen_in_place = |line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gen"));
        command.current_dir(dir.path()).args(line.split_whitespace()).args(["--device", "cpu"]);
        command.output().unwrap()
    };
    let tensor = |line: &str, file: &str, name: &str| {
        let out = gen_in_place(line);
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        let file = weights::Checkpoint::open(&dir.path().join(file)).unwrap();
        file.source(weights::Want::Auto).unwrap().read(name, tch::Device::Cpu).unwrap()
    };
    // The same codes as one tensor, each view of a record a row.
    let stored = open_codes(&[&codes]).unwrap();
    let rows: Vec<i64> = (0..10).flat_map(|row| stored.read(row / 2, row % 2).unwrap().codes).collect();
    let rows = tch::Tensor::from_slice(&rows).view([10, -1]);
    let labels = tch::Tensor::from_slice(&[0i64, 0, 0, 0, 207, 207, 207, 207, 207, 207]);
    let plain = [("codes".to_owned(), rows), ("labels".to_owned(), labels)];
    weights::save_safetensors(&dir.path().join("plain.safetensors"), &plain, &Default::default()).unwrap();
    let images = |from: &str| {
        tensor(&format!("decode {from} --tokenizer model -o i.safetensors"), "i.safetensors", "images")
    };
    let logits = |from: &str| {
        tensor(&format!("logits --codes {from} --model model -o l.safetensors"), "l.safetensors", "logits")
    };
    assert_eq!(images("codes"), images("plain.safetensors"));
    assert_eq!(logits("codes"), logits("plain.safetensors"));
    // One shard: the third and fourth record.
    let shard = "codes/codes-00001-of-00003.safetensors";
    assert_eq!(images(shard), images("plain.safetensors").narrow(0, 4, 4));
    assert_eq!(logits(shard), logits("plain.safetensors").narrow(0, 4, 4));
    // A single shard does not define the meaning of its numbers.
    std::fs::copy(dir.path().join(shard), dir.path().join("alone.safetensors")).unwrap();
    let out = gen_in_place("decode alone.safetensors --tokenizer model -o i.safetensors");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(2) && said.contains("gen extract"), "{said}");
}
