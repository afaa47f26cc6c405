//! A user's folder of three hundred files of all kinds.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::os::unix::fs::symlink;
use std::path::Path;

use image::codecs::{gif::GifEncoder, jpeg::JpegEncoder, webp::WebPEncoder};
use image::{DynamicImage, Frame, ImageFormat, Rgb, RgbImage};

use crate::common::{TINY, TrainingPlace};

fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 5 + seed * 31) as u8, (y * 7 + seed) as u8, ((x ^ y) + 3 * seed) as u8])
    })
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(seed: u32) -> Vec<u8> {
    encoded(&picture(24, 20, seed).into(), ImageFormat::Png)
}

fn jpeg(seed: u32) -> Vec<u8> {
    let mut bytes = vec![];
    JpegEncoder::new_with_quality(&mut bytes, 85).encode_image(&picture(40, 32, seed)).unwrap();
    bytes
}

/// A JPEG of four inks, by Pillow.
const CMYK: &[u8] = include_bytes!("../../data/tests/files/cmyk.jpg");

/// A JPEG with an EXIF orientation of a quarter turn.
fn turned(seed: u32) -> Vec<u8> {
    let plain = jpeg(seed);
    let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    [&plain[..2], exif, &plain[2..]].concat()
}

/// Colours by number, with a transparent one.
fn palette() -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, 16, 16);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Two);
    encoder.set_palette(&[255u8, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9][..]);
    encoder.set_trns(&[255u8, 0][..]);
    encoder.write_header().unwrap().write_image_data(&[0b0001_1011; 64]).unwrap();
    bytes
}

/// Two frames, as GIF and as PNG.
fn animations(seed: u32) -> [Vec<u8>; 2] {
    let frames = [seed, seed + 9].map(|s| DynamicImage::from(picture(20, 16, s)).to_rgba8());
    let mut gif = vec![];
    GifEncoder::new(&mut gif).encode_frames(frames.iter().cloned().map(Frame::new)).unwrap();
    let mut apng = vec![];
    let mut encoder = png::Encoder::new(&mut apng, 20, 16);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    frames.iter().for_each(|f| writer.write_image_data(f.as_raw()).unwrap());
    writer.finish().unwrap();
    [gif, apng]
}

/// An animated WebP, assembled from lossless stills: `RIFF`, `VP8X`, `ANIM`, and one `ANMF` per
/// frame.
fn webp(seed: u32) -> Vec<u8> {
    let (w, h) = (16u32, 12u32);
    let chunk = |name: &[u8], body: &[u8]| {
        let pad = vec![0; body.len() % 2];
        [name, &(body.len() as u32).to_le_bytes(), body, &pad].concat()
    };
    let three = |n: u32| n.to_le_bytes()[..3].to_vec();
    let frame = |seed: u32| {
        let mut still = vec![];
        let rgb = picture(w, h, seed);
        WebPEncoder::new_lossless(&mut still)
            .encode(rgb.as_raw(), w, h, image::ExtendedColorType::Rgb8)
            .unwrap();
        let body =
            [three(0), three(0), three(w - 1), three(h - 1), three(100), vec![0], still[12..].to_vec()];
        chunk(b"ANMF", &body.concat())
    };
    let head = [vec![2, 0, 0, 0], three(w - 1), three(h - 1)].concat();
    let anim = chunk(b"ANIM", &[0; 6]);
    let all = [b"WEBP".to_vec(), chunk(b"VP8X", &head), anim, frame(seed), frame(seed + 5)].concat();
    chunk(b"RIFF", &all)
}

/// Writes the files; returns the number of images, and the names of the other files with the kind
/// of reason.
fn fill(root: &Path) -> (usize, BTreeSet<(String, &'static str)>) {
    let mut good = 0;
    let mut bad = BTreeSet::new();
    let (a, b) = ("my cats 🐈", "Hunde & mehr");
    for folder in [a, b, "my cats 🐈/2019 summer"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    let write = |name: &str, bytes: &[u8]| std::fs::write(root.join(name), bytes).unwrap();
    let sixteen = |n: u32| DynamicImage::from(picture(24, 20, n)).to_rgb16().into();
    let grey = |n: u32| DynamicImage::from(picture(24, 20, n)).to_luma8().into();
    let deep_grey = |n: u32| DynamicImage::from(picture(24, 20, n)).to_luma16().into();
    let clear = |n: u32| DynamicImage::from(picture(24, 20, n)).to_rgba8().into();
    for n in 0..8u32 {
        let [gif, apng] = animations(n);
        let odd: [(&str, Vec<u8>); 16] = [
            ("cmyk.jpg", CMYK.to_vec()),
            ("turned.jpeg", turned(n)),
            ("sixteen.png", encoded(&sixteen(n), ImageFormat::Png)),
            ("deep grey.png", encoded(&deep_grey(n), ImageFormat::Png)),
            ("grey.jpg", encoded(&grey(n), ImageFormat::Jpeg)),
            ("clear.png", encoded(&clear(n), ImageFormat::Png)),
            ("palette.png", palette()),
            ("moving.gif", gif),
            ("moving.png", apng),
            ("moving.webp", webp(n)),
            ("UPPER.JPG", jpeg(n)),
            ("Mixed.Png", png(n)),
            ("ein Bild mit Ümläuten, 100 % 🎉.bmp", encoded(&picture(9, 8, n).into(), ImageFormat::Bmp)),
            ("tiny.png", encoded(&picture(1, 1, n).into(), ImageFormat::Png)),
            ("a jpeg named like a png.png", jpeg(n)),
            ("very wide.png", encoded(&picture(3000, 1, n).into(), ImageFormat::Png)),
        ];
        for (name, bytes) in odd {
            write(&format!("{b}/{n} {name}"), &bytes);
            good += 1;
        }
    }
    let huge =
        DynamicImage::from(image::GrayImage::from_fn(8000, 6000, |x, _| image::Luma([(x >> 6) as u8])));
    write(&format!("{a}/huge.jpg"), &encoded(&huge, ImageFormat::Jpeg));
    std::fs::write(root.join("elsewhere.tmp"), png(1)).unwrap();
    symlink(root.join("elsewhere.tmp"), root.join(a).join("linked.png")).unwrap();
    good += 2;
    bad.insert(("elsewhere.tmp".to_owned(), "not named like an image"));

    let mut harm = |name: String, kind: &'static str, bytes: Option<&[u8]>| {
        bytes.iter().for_each(|bytes| write(&name, bytes));
        bad.insert((name, kind));
    };
    for n in 0..4u32 {
        let (p, j) = (png(n), jpeg(n));
        harm(format!("{a}/{n} cut.png"), "damaged", Some(&p[..p.len() / 2]));
        harm(format!("{a}/{n} cut.jpg"), "damaged", Some(&j[..j.len() / 2]));
        harm(format!("{a}/{n} empty.jpg"), "empty", Some(b""));
        harm(format!("{a}/{n} text.png"), "not an image", Some(b"this is no picture"));
        harm(format!("{a}/{n} page.webp"), "not an image", Some(b"<html>404</html>"));
        harm(format!("{a}/._{n}.png"), "hidden", Some(b"\0\x05\x16\x07"));
        harm(format!("{a}/notes {n}.txt"), "not named like an image", Some(b"my notes"));
        harm(format!("{b}/film {n}.mov"), "not named like an image", Some(b"ftypqt"));
    }
    harm(format!("{a}/no suffix"), "not named like an image", Some(&png(3)));
    harm(".DS_Store".into(), "hidden", Some(b"\0\0\0\x01Bud1"));
    std::fs::create_dir(root.join(".thumbnails")).unwrap();
    harm(".thumbnails".into(), "hidden", None);
    write(".thumbnails/1.png", &png(1));
    symlink(root.join("gone.png"), root.join(b).join("leads nowhere.png")).unwrap();
    harm(format!("{b}/leads nowhere.png"), "cannot be read", None);
    symlink(root, root.join(b).join("circle")).unwrap();
    harm(format!("{b}/circle"), "cannot be read", None);

    let mut n = 100;
    while good + bad.len() < 300 {
        let folder = [a, b, "my cats 🐈/2019 summer"][n as usize % 3];
        write(&format!("{folder}/DSC_{n:04}.jpg"), &jpeg(n));
        (good, n) = (good + 1, n + 1);
    }
    (good, bad)
}

#[test]
fn three_hundred_odd_files_train_and_are_accounted_for() {
    let place = TrainingPlace::new();
    let root = place.path("my pictures");
    std::fs::create_dir(&root).unwrap();
    let (good, bad) = fill(&root);
    assert_eq!(good + bad.len(), 300);
    let listed =
        good + bad.iter().filter(|(_, kind)| ["damaged", "empty", "not an image"].contains(kind)).count();
    // One epoch that leaves no picture out: every file is met.
    let batch = (4..=32).rev().find(|b| listed % b == 0).unwrap_or(1);
    let (batch_size, steps) =
        (format!("optimization.batch_size={batch}"), format!("optimization.steps={}", listed / batch));
    let changes = [TINY, &["--data", "my pictures", &batch_size, &steps, "optimization.warmup=0"]].concat();
    let (_, stderr) = place.ends(0, "train-tokenizer --output run", &changes);

    let tsv = std::fs::read_to_string(place.path("run/left-out.tsv")).unwrap();
    let found: BTreeSet<(String, &str)> = tsv
        .lines()
        .map(|l| l.split_once('\t').unwrap())
        .map(|(name, reason)| (name.to_owned(), reason.split(": ").next().unwrap()))
        .collect();
    let missing: Vec<_> = bad.difference(&found).collect();
    let surplus: Vec<_> = found.iter().filter(|f| !bad.contains(f)).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");

    let count = |kind: &str| bad.iter().filter(|(_, k)| *k == kind).count();
    let kinds = ["cannot be read", "damaged", "empty", "hidden", "not an image", "not named like an image"];
    let kinds: Vec<String> = kinds.iter().map(|k| format!("{} {k}", count(k))).collect();
    let sentence =
        format!("{} files were left out ({}); run/left-out.tsv names them", bad.len(), kinds.join(", "));
    assert!(stderr.contains(&sentence), "{stderr}");
    assert!(stderr.contains("left out `my cats 🐈/"), "{stderr}");
    let log = std::fs::read_to_string(place.path("run/log.jsonl")).unwrap();
    let last = log.lines().rev().find(|line| line.contains("left_out")).unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["left_out"], bad.len() as f64);
}
