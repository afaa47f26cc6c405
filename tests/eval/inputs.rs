//! Images that are not as expected: refused or handled as documented, by name.

use super::{NET, names, picture, place, value};
use crate::common::stderr;

#[test]
fn bad_input_is_told_by_name_and_never_averaged_in() {
    let place = place(3);
    std::fs::write(place.path("a/000001.png"), b"no image").unwrap();
    let report = place.json("a --reference b --metrics psnr", 1);
    assert_eq!(report["skipped"][0]["input"], "a/000001.png");
    assert_eq!(
        (report["values"][0]["samples"].as_u64(), report["values"][0]["comparable"].as_bool()),
        (Some(2), Some(false))
    );

    picture(&place, "a/000001.png", (20, 17), 1, 0);
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
fn four_inks_are_converted_and_told() {
    let place = place(1);
    // 20 x 16 pixels (12 x, 15 y, 90) as CMYK by Pillow 11, quality 85.
    std::fs::write(place.path("a/000000.jpg"), include_bytes!("cmyk.jpg")).unwrap();
    std::fs::remove_file(place.path("a/000000.png")).unwrap();
    place.picture("b/000000.png", (20, 16), |x, y| [(12 * x) as u8, (15 * y) as u8, 90]);
    let report = place.json("a --reference b --metrics psnr", 0);
    assert_eq!(report["converted"]["CMYK, converted to RGB"], 1);
    assert!(value(&report, "psnr") > 35.0, "{report}");
}

#[test]
fn a_reference_of_another_resolution_is_refused() {
    let place = place(3);
    for i in 0..3 {
        picture(&place, &format!("large/{i:06}.png"), (40, 32), i, 0);
    }
    for metrics in ["psnr".to_owned(), format!("fid {NET}")] {
        let message = place.fails(&format!("a --reference large --metrics {metrics}"));
        assert!(message.contains("40x32") && message.contains("20x16"), "{message}");
        assert!(message.contains("--resize"), "{message}");
    }
    place.json("a --reference large --metrics psnr --resize 16", 0);
}

#[test]
fn one_image_is_scored_where_one_is_enough() {
    let place = place(1);
    let report = place.json(&format!("a --reference b --metrics psnr,ssim,is {NET}"), 0);
    assert_eq!(names(&report), ["psnr", "ssim", "is"]);
    assert!((value(&report, "is") - 1.0).abs() < 1e-9, "one image is sure of its own class: {report}");
    for (metric, needed) in [("fid", "at least 2"), ("precision", "at least 4"), ("kid", "at least")] {
        let message = place.fails(&format!("a --reference b --metrics {metric} {NET}"));
        assert!(message.contains(metric) && message.contains(needed), "{message}");
    }
}

#[test]
fn a_score_that_cannot_be_had_takes_no_other_with_it() {
    let place = place(4);
    // Known before the work.
    let message = place.fails(&format!("a --reference b --metrics fid,is,kid {NET}"));
    assert!(message.contains("kid needs at least 1000 images; 4 are judged"), "{message}");
    assert!(message.contains("--kid-subset-size"), "{message}");
    // Known at its end, as an image cannot be read.
    std::fs::write(place.path("a/000001.png"), b"no image").unwrap();
    let report = place.json(&format!("a --reference b --metrics fid,is,precision {NET}"), 1);
    assert_eq!(names(&report), ["fid", "is"]);
    assert!(report["failed"]["precision"].as_str().unwrap().contains("at least 4"), "{report}");
    assert!(report["warnings"][0].as_str().unwrap().contains("precision cannot be had"), "{report}");
}

#[test]
fn psnr_alone_is_of_images_of_any_size() {
    let place = place(0);
    for folder in ["a", "b"] {
        picture(&place, &format!("{folder}/0.png"), (5, 6), 1, u32::from(folder == "b") * 3);
    }
    assert!(value(&place.json("a --reference b --metrics psnr", 0), "psnr") > 20.0);
    let message = place.fails("a --reference b --metrics psnr,ssim");
    assert!(message.contains("7x7") && message.contains("6x5"), "{message}");
}
