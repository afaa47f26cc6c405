//! `gen eval` and `gen eval stats`, end to end, with weights by recipe where a network is needed.

mod common;

use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use base::npz;
use base::testing::recipe_tensor;
use common::{Tiny, write_model};
use serde_json::Value;
use tempfile::TempDir;

const NET: &str = "--inception random:11";

struct Place {
    dir: TempDir,
}

impl Place {
    /// Two folders of images with the same names, the second one noisier.
    fn new(images: usize) -> Self {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        for (folder, noise) in [("a", 0), ("b", 7)] {
            std::fs::create_dir(place.path(folder)).unwrap();
            for i in 0..images {
                place.picture(&format!("{folder}/{i:06}.png"), (20, 16), i as u32, noise);
            }
        }
        place
    }

    fn picture(&self, name: &str, (width, height): (u32, u32), seed: u32, noise: u32) {
        let picture = image::RgbImage::from_fn(width, height, |x, y| {
            let value = (x * 11 + y * 7 + seed * 29) % 200 + (x * y * noise) % 13;
            image::Rgb([value as u8, (value / 2) as u8, (seed * 40 % 256) as u8])
        });
        picture.save(self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gen"));
        command.env("XDG_CACHE_HOME", self.path("cache")).env_remove("GEN_MODELS");
        let computing = ["--device", "cpu", "--threads", "1"];
        command.current_dir(self.dir.path()).arg("eval").args(line.split_whitespace()).args(computing);
        command.output().unwrap()
    }

    fn json(&self, line: &str, code: i32) -> Value {
        let out = self.run(&format!("{line} --json"));
        assert_eq!(out.status.code(), Some(code), "{line}: {}", stderr(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    fn fails(&self, line: &str) -> String {
        let out = self.run(line);
        assert_eq!(out.status.code(), Some(2), "{line}: {}", stderr(&out));
        assert!(out.stdout.is_empty());
        stderr(&out)
    }
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn value(report: &Value, name: &str) -> f64 {
    let values = report["values"].as_array().unwrap();
    let found = values.iter().find(|v| v["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"));
    found["value"].as_f64().unwrap_or_else(|| panic!("{found}"))
}

fn names(report: &Value) -> Vec<&str> {
    report["values"].as_array().unwrap().iter().filter_map(|v| v["name"].as_str()).collect()
}

fn near(a: f64, b: f64, bound: f64) {
    assert!((a - b).abs() <= bound, "{a} and {b}");
}

#[test]
fn features_in_files_get_every_score_that_they_allow() {
    let place = Place::new(0);
    let x = recipe_tensor("x", 1, &[60, 8], -1.0, 1.0);
    let logits = recipe_tensor("l", 1, &[60, 5], -3.0, 3.0);
    npz::write(&place.path("x.npz"), &[("pool", &x), ("logits", &logits)]).unwrap();
    npz::write(&place.path("y.npz"), &[("anything", &(&x * 1.5 + 0.2))]).unwrap();
    let report = place.json("--features x.npz --reference-features y.npz", 0);
    for name in ["fid", "is", "is_fidelity", "precision", "recall", "density", "coverage", "kid", "mmd2"] {
        assert!(names(&report).contains(&name), "{name}: {report}");
    }
    let expected = eval::frechet_of_features(&x, &(&x * 1.5 + 0.2)).unwrap();
    near(value(&report, "fid"), expected, 1e-12);
    assert_eq!(report["values"][0]["samples"], 60);
    assert_eq!(report["reference"]["sha256"].as_str().unwrap().len(), 64);

    let same = place.json("--features x.npz --reference-features x.npz", 0);
    near(value(&same, "fid"), 0.0, 1e-6);
    assert_eq!((value(&same, "precision"), value(&same, "recall")), (1.0, 1.0));
    let wide = recipe_tensor("w", 1, &[60, 9], -1.0, 1.0);
    npz::write(&place.path("w.npz"), &[("pool", &wide)]).unwrap();
    let message = place.fails("--features x.npz --reference-features w.npz");
    assert!(message.contains("expected features of"), "{message}");
    npz::write(&place.path("none.npz"), &[("a", &x), ("b", &x)]).unwrap();
    assert!(place.fails("--features none.npz --reference-features x.npz").contains("holds no features"));
}

#[test]
fn pairs_are_matched_by_name_and_scored() {
    let place = Place::new(3);
    let report = place.json("a --reference b --metrics psnr,ssim,ssim_dr2", 0);
    assert_eq!(names(&report), ["psnr", "ssim", "ssim_dr2"]);
    assert!(value(&report, "ssim") < value(&report, "ssim_dr2"));
    assert_eq!(report["values"][0]["reference"], 3);
    // The order of files and the size of batches do not matter, nor does the form.
    let again = place.json("a --reference b --metrics psnr --batch-size 1", 0);
    near(value(&again, "psnr"), value(&report, "psnr"), 1e-12);
    let same = place.json("a --reference a --metrics psnr,ssim", 0);
    assert_eq!(same["values"][0]["value"], Value::Null);
    assert!(same["values"][0]["note"].as_str().unwrap().contains("3 identical pairs"), "{same}");

    std::fs::rename(place.path("b/000001.png"), place.path("b/other.png")).unwrap();
    let message = place.fails("a --reference b --metrics psnr");
    assert!(message.contains("`b` lacks `000001`") && message.contains("`a` lacks `other`"), "{message}");
}

#[test]
fn bad_input_is_told_by_name_and_never_averaged_in() {
    let place = Place::new(3);
    std::fs::write(place.path("a/000001.png"), b"no image").unwrap();
    let report = place.json("a --reference b --metrics psnr", 1);
    assert_eq!(report["skipped"][0]["input"], "a/000001.png");
    assert_eq!(
        (report["values"][0]["samples"].as_u64(), report["values"][0]["comparable"].as_bool()),
        (Some(2), Some(false))
    );

    place.picture("a/000001.png", (20, 17), 1, 0);
    let message = place.fails("a --reference b --metrics psnr");
    assert!(
        message.contains("20x17") && message.contains("20x16") && message.contains("--resize"),
        "{message}"
    );
    place.json("a --reference b --metrics psnr --resize 16", 0);

    let grey = image::GrayImage::from_pixel(20, 16, image::Luma([9]));
    grey.save(place.path("a/000001.png")).unwrap();
    let deep: image::ImageBuffer<image::Rgb<u16>, _> =
        image::ImageBuffer::from_pixel(20, 16, image::Rgb([9u16, 9, 9]));
    deep.save(place.path("a/000002.png")).unwrap();
    let out = place.run("a --reference b --metrics psnr");
    assert!(
        stderr(&out).contains("grey, repeated") && stderr(&out).contains("rounded to 8"),
        "{}",
        stderr(&out)
    );

    std::fs::create_dir(place.path("empty")).unwrap();
    assert!(place.fails("empty --reference b --metrics psnr").contains("empty"));
    assert!(place.fails("a --metrics psnr").contains("need a reference"));
    assert!(place.fails("a --reference b --metrics codebook").contains("--reconstruct"));
    let missing = place.fails("a --reference b --metrics fid");
    assert!(missing.contains("pt_inception-2015-12-05-6726825d.pth"), "{missing}");
}

#[test]
fn sets_are_scored_in_parts_that_give_the_whole() {
    let place = Place::new(5);
    let line = format!(
        "a --reference b --metrics fid,sfid,is,precision,kid --kid-subset-size 3 --kid-subsets 4 {NET}"
    );
    let whole = place.json(&line, 0);
    assert!(whole["values"].as_array().unwrap().iter().all(|v| v["comparable"] == false));
    assert_eq!(whole["values"][0]["network"]["weights_sha256"], "random:11");
    for world in [2, 3] {
        let files: Vec<String> = (0..world).map(|k| format!("p{k}of{world}")).collect();
        for (k, file) in files.iter().enumerate() {
            let out = place.run(&format!("{line} --partial {file} --shard {k}/{world}"));
            assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        }
        let merged = place.json(&format!("{line} --merge {}", files.join(" ")), 0);
        assert_eq!(names(&merged), names(&whole));
        for name in names(&whole) {
            // Networks round a little differently in batches of another size.
            near(value(&merged, name), value(&whole, name), 1e-5 * value(&whole, name).abs().max(1e-3));
        }
        let message = place.fails(&format!("{line} --merge {} {}", files[0], files[0]));
        assert!(message.contains("once more"), "{message}");
        let message = place.fails(&format!("{line} --merge {}", files[1]));
        assert!(message.contains("shard 0/"), "{message}");
    }
    let other = place.fails(&format!(
        "b --reference a --metrics fid,sfid,is,precision,kid {NET} --partial p0of2 --shard 0/2"
    ));
    assert!(other.contains("another run") && other.contains("source"), "{other}");
    assert!(
        place.fails(&format!("a --reference b --metrics fid {NET} --partial q --shard 2/2")).contains("K/N")
    );
}

#[test]
fn references_know_their_kind_and_the_wrong_one_is_refused() {
    let place = Place::new(4);
    let made = place.json(&format!("stats b -o ref.npz --kind gfid --note training {NET}"), 0);
    assert_eq!(made["images"], 4);
    let line = format!("a --metrics fid,sfid {NET}");
    let images = place.json(&format!("{line} --reference b"), 0);
    let stored = place.json(&format!("{line} --reference ref.npz --protocol gfid"), 0);
    for name in ["fid", "sfid"] {
        near(value(&stored, name), value(&images, name), 1e-6 * value(&images, name));
    }
    assert_eq!(
        (stored["reference"]["statistics_of"].as_u64(), stored["values"][0]["reference"].as_u64()),
        (Some(4), Some(4))
    );
    assert_eq!(stored["values"][0]["reference_sha256"], made["sha256"]);

    let message = place.fails(&format!("{line} --reference ref.npz --protocol rfid"));
    assert!(message.contains("rFID compares with the cropped validation images"), "{message}");
    let message = place.fails(&format!("a --reference ref.npz --metrics precision {NET}"));
    assert!(message.contains("statistics alone"), "{message}");
    let message = place.fails("a --reference ref.npz --metrics fid --inception random:12");
    assert!(message.contains("statistics of other features"), "{message}");
    let message = place.fails(&format!("{line} --reference ref.npz --reference-sha256 00"));
    assert!(message.contains("expected 00"), "{message}");

    // Statistics without a tag are the public network's.
    let (mu, sigma) = (
        recipe_tensor("m", 1, &[2048], 0.0, 1.0),
        tch::Tensor::eye(2048, (tch::Kind::Double, tch::Device::Cpu)),
    );
    npz::write(&place.path("pf.npz"), &[("mu", &mu), ("sigma", &sigma)]).unwrap();
    let message = place.fails(&format!("a --reference pf.npz --metrics fid {NET}"));
    assert!(message.contains("public Inception network"), "{message}");
    let one = Place::new(1);
    let message = one.fails(&format!("a --reference b --metrics fid {NET}"));
    assert!(message.contains("at least 2, found 1"), "{message}");
}

#[test]
fn models_and_tokenizers_are_scored_without_images_on_the_disk() {
    let place = Place::new(3);
    write_model(&place.path("model"), Tiny::default());
    let line = "--reconstruct a --tokenizer model --metrics psnr,ssim,codebook,lpips --lpips-trunk random:1 --lpips-heads random:1";
    let report = place.json(line, 0);
    let expected = place.json("a --reference a --metrics psnr", 0);
    assert!(value(&report, "psnr") > 0.0 && expected["values"][0]["value"].is_null());
    assert!(value(&report, "codebook_perplexity") >= 1.0 && value(&report, "lpips") > 0.0);
    assert_eq!(report["reference"]["kind"], "the originals themselves");
    assert_eq!(
        (report["samples"]["images"].as_u64(), report["reference"]["images"].as_u64()),
        (Some(3), Some(3))
    );

    let out = place.run(&format!(
        "--model model --num 4 --metrics fid,is --resize 16 --reference a --interval {NET} --report r.html"
    ));
    assert_eq!(out.status.code(), Some(2), "four images do not fill ten groups: {}", stderr(&out));
    let line = format!("--model model --num 4 --metrics fid,is --resize 16 --reference a {NET}");
    let report = place.json(&format!("{line} --batch-size 3 --report r.html"), 0);
    assert_eq!(report["samples"]["made_by"]["settings"]["seed"], 0);
    near(value(&place.json(&format!("{line} --batch-size 2"), 0), "fid"), value(&report, "fid"), 1e-3);
    let page = std::fs::read_to_string(place.path("r.html")).unwrap();
    assert!(page.contains("data:image/png;base64,") && page.contains("<svg") && page.contains("By class"));
    for outside in ["src=\"http", "href=\"http", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let wrong = place.fails(&format!("--model model --num 4 --metrics psnr --reference a {NET}"));
    assert!(wrong.contains("no originals"), "{wrong}");
}

#[test]
fn a_run_goes_on_from_its_partial_file() {
    let place = Place::new(4);
    let line = "a --reference b --metrics psnr,ssim --partial p";
    let first = place.json(line, 0);
    std::fs::remove_file(place.path("a/000003.png")).unwrap();
    place.picture("a/000003.png", (20, 16), 9, 3);
    // Everything is done already: nothing is read again.
    let second = place.json(line, 0);
    assert_eq!(value(&first, "psnr"), value(&second, "psnr"));
}
