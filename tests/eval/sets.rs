//! Images and features in files.

use base::npz;
use base::testing::recipe_tensor;
use serde_json::Value;

use super::{NET, names, near, picture, place, value};
use crate::common::stderr;

const DOUBLE: (tch::Kind, tch::Device) = (tch::Kind::Double, tch::Device::Cpu);

#[test]
fn features_in_files_get_every_score_that_they_allow() {
    let place = place(0);
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

    let some = place.json("--features x.npz --reference-features y.npz --metrics is,fid", 0);
    assert_eq!(names(&some), ["fid", "is"]);
    let message = place.fails("--features x.npz --reference-features y.npz --metrics fid,lpips");
    assert!(message.contains("`lpips` is no score of features in files"), "{message}");
    let message = place.fails("--features y.npz --reference-features x.npz --metrics is");
    assert!(message.contains("`is` reads `logits`"), "{message}");
    let (far, eye) = (tch::Tensor::full([8], 1e200, DOUBLE), tch::Tensor::eye(8, DOUBLE));
    npz::write(&place.path("huge.npz"), &[("mu", &far), ("sigma", &eye)]).unwrap();
    let message = place.fails("--features huge.npz --reference-features y.npz --metrics fid");
    assert!(message.contains("fid is infinite"), "{message}");
    npz::write(&place.path("large.npz"), &[("pool", &(&x * 1e30))]).unwrap();
    let message = place.fails("--features large.npz --reference-features y.npz --metrics kid");
    assert!(message.contains("kid is ") && message.contains("too large"), "{message}");

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
    let place = place(3);
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
    assert!(
        message.contains("`b` lacks `000001.png`") && message.contains("`a` lacks `other.png`"),
        "{message}"
    );
}

#[test]
fn ms_ssim_of_small_images_is_named_by_its_scales() {
    let place = place(3);
    let report = place.json("a --reference b --metrics ms_ssim,psnr --report r.html", 0);
    assert_eq!(names(&report), ["psnr", "ms_ssim_1"], "20x16 pixels are room for one scale");
    assert!(value(&report, "ms_ssim_1") < 1.0);
    assert!(
        report["values"][1]["variant"].as_str().unwrap().contains("the finest 1 of 5 scales"),
        "{report}"
    );
    assert!(std::fs::read_to_string(place.path("r.html")).unwrap().contains("ms_ssim of single images"));
    near(value(&place.json("a --reference a --metrics ms_ssim", 0), "ms_ssim_1"), 1.0, 1e-12);
}

#[test]
fn sets_are_scored_in_parts_that_give_the_whole() {
    let place = place(5);
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
        "b --reference a --metrics fid,sfid,is,precision,kid --kid-subset-size 3 {NET} --partial p0of2 --shard 0/2"
    ));
    assert!(other.contains("another run") && other.contains("source"), "{other}");
    assert!(
        place.fails(&format!("a --reference b --metrics fid {NET} --partial q --shard 2/2")).contains("K/N")
    );
}

#[test]
fn references_know_their_kind_and_the_wrong_one_is_refused() {
    let place = place(4);
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
}

#[test]
fn a_run_goes_on_from_its_partial_file() {
    let place = place(4);
    let line = "a --reference b --metrics psnr,ssim --partial p";
    let first = place.json(line, 0);
    // Everything is done already: nothing is read again, which is said.
    let second = place.json(line, 0);
    assert_eq!(value(&first, "psnr"), value(&second, "psnr"));
    assert!(place.said(line, 0).contains("all 4 were counted before"));
    // Sums are of these images, and of no others that have their names.
    for folder in ["a", "b"] {
        let changed = place.path(&format!("{folder}/000003.png"));
        let kept = std::fs::read(&changed).unwrap();
        picture(&place, &format!("{folder}/000003.png"), (20, 16), 9, 3);
        let message = place.fails(line);
        assert!(message.contains("another run; these differ: content"), "{message}");
        assert!(place.fails(&line.replace("--partial", "--merge")).contains("content"));
        std::fs::write(&changed, kept).unwrap();
        place.json(line, 0);
    }
}

#[test]
fn other_networks_have_their_scores() {
    let place = place(4);
    let networks = "--dinov2-network dinov2-s14 --dinov2 random:1 --clip-network clip-b32 --clip random:1";
    let report = place.json(&format!("a --reference b --metrics fdd,cmmd {networks}"), 0);
    assert_eq!(names(&report), ["fdd", "cmmd"]);
    assert!(value(&report, "fdd") > 0.0 && value(&report, "cmmd") > 0.0);
    let network = |i: usize| report["values"][i]["network"]["network"].as_str().unwrap().to_owned();
    assert_eq!((network(0), network(1)), ("dinov2-s14".into(), "clip-b32".into()));
    assert!(report["values"].as_array().unwrap().iter().all(|v| v["comparable"] == false));
    let same = place.json("a --reference a --metrics fdd --dinov2-network dinov2-s14 --dinov2 random:1", 0);
    // Four images in 384 dimensions: eigenvalues that should be zero are a rounding error of the
    // others.
    near(value(&same, "fdd"), 0.0, 1e-4);
}
