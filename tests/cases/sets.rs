//! Images, lists, captions and archives.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use data::open_codes;
use serde_json::Value;

use super::case;
use crate::common::{Place, Tiny, stderr, write_model};

/// A place with a tiny model and a copy of a case's folder, whose original is read-only; `None` if
/// it is absent.
fn place(name: &str) -> Option<Place> {
    let from = case(name)?;
    let place = Place::new("", "");
    write_model(&place.path("model"), Tiny::default());
    copy(&from, place.dir());
    Some(place)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => std::fs::write(&target, std::fs::read(&path).unwrap()).unwrap(),
        }
    }
}

/// Extracts codes of `data`, which must succeed, and returns their labels, captions and messages.
fn extract(place: &Place, data: &str) -> (Vec<(i64, String)>, String) {
    let out = place.run(&format!("extract --data {data} --tokenizer model --device cpu --output codes"));
    assert_eq!(out.status.code(), Some(0), "{data}: {}", stderr(&out));
    let codes = open_codes(&[&place.path("codes")]).unwrap();
    let records = (0..codes.len()).map(|i| codes.read(i, 0).unwrap()).map(|r| (r.label, r.caption)).collect();
    std::fs::remove_dir_all(place.path("codes")).unwrap();
    (records, stderr(&out))
}

fn labels(place: &Place, data: &str) -> Vec<i64> {
    extract(place, data).0.into_iter().map(|(label, _)| label).collect()
}

fn value(report: &Value, name: &str) -> f64 {
    let values = report["values"].as_array().unwrap();
    values.iter().find(|v| v["name"] == name).unwrap()["value"].as_f64().unwrap()
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_text() {
    let Some(place) = place("bom") else { return };
    assert_eq!(labels(&place, "list.csv"), [1, 2]);
    assert_eq!(labels(&place, "list.jsonl"), [1]);
    assert_eq!(labels(&place, "cls"), [5]);
    assert_eq!(extract(&place, "capt").0, [(-1, "a dog".to_owned())]);
}

#[test]
fn brace_patterns_count_down_and_are_bounded() {
    let Some(place) = place("brace_pattern_panic") else { return };
    let extract = "extract --tokenizer model --device cpu --output codes --data";
    let message = place.fails(&format!("{extract} a-{{3..0}}.tar"));
    assert!(message.contains("nothing matches `a-3.tar`"), "{message}");
    let message = place.fails(&format!("{extract} {{0..9999999}}.tar"));
    assert!(message.contains("more than 100000 names"), "{message}");
    std::fs::write(place.path("._a.tar"), b"\0\x05\x16\x07").unwrap();
    assert!(place.fails(&format!("{extract} *.tar")).contains("nothing matches `*.tar`"));
}

#[test]
fn class_names_are_bytes() {
    let Some(place) = place("class_names_not_utf8") else { return };
    place.picture("t.png", (24, 24), |_, _| [200, 0, 0]);
    for name in [b"\xb9\xb7", b"\xc4\xf1"] {
        let folder = place.path("data").join(OsStr::from_bytes(name));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(place.path("t.png"), folder.join("x.png")).unwrap();
    }
    assert_eq!(labels(&place, "data"), [0, 1]);
}

#[test]
fn scans_of_single_components_are_read_as_pillow_reads_them() {
    let Some(place) = place("jpeg_non_interleaved") else { return };
    let (image, _) = data::decode("x.jpg", &std::fs::read(place.path("x.jpg")).unwrap()).unwrap();
    let digest = base::hash::hex(&base::hash::sha256(image.as_raw()));
    assert_eq!(digest, "d5885fa982f766742b0f4d038fda3fbad889dde09a6240d3c0414f9932715be5");
}

#[test]
fn folders_are_numbered_whatever_is_in_them() {
    let Some(place) = place("label_shift_empty_class") else { return };
    let (records, said) = extract(&place, "data");
    assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 2]);
    assert!(said.contains("1 file was left out (1 not named like an image): `ant/x.tif`"), "{said}");
    std::fs::create_dir_all(place.path("empty/ant")).unwrap(); // Git and copies know no empty folders
    assert_eq!(labels(&place, "empty"), [1]);
}

#[test]
fn headers_are_seen() {
    let Some(place) = place("list_header_not_seen") else { return };
    for list in ["filename.csv", "semicolon.csv"] {
        assert_eq!(labels(&place, list), [1], "{list}");
    }
    assert_eq!(labels(&place, "wide.csv"), [-1]);
}

#[test]
fn archives_of_numpy_are_read_as_numpy_reads_them_or_refused_at_once() {
    let Some(place) = place("npz_readers") else { return };
    for good in ["macos.npz", "python2_long.npz"] {
        let report = place.json(&format!("eval {good} --reference ok.npz --metrics ssim --device cpu"), 0);
        assert!((value(&report, "ssim") - 1.0).abs() < 1e-9, "{good}: {report}");
    }
    let message = place.fails("eval huge_shape.npz --reference ok.npz --metrics ssim --device cpu");
    assert!(message.contains("huge_shape.npz") && message.contains("more than a file can hold"), "{message}");
}

#[test]
fn images_that_differ_in_their_endings_alone_are_not_mixed_up() {
    let Some(place) = place("same_stem_pairs") else { return };
    let report = place.json("eval one --reference copy --metrics psnr,ssim --device cpu", 0);
    assert!((value(&report, "ssim") - 1.0).abs() < 1e-9, "{report}");
    std::fs::remove_file(place.path("copy/a.jpg")).unwrap();
    let message = place.fails("eval one --reference copy --metrics psnr,ssim --device cpu");
    assert!(message.contains("`copy` lacks `a.jpg`"), "{message}");
}

#[test]
fn members_of_tars_are_used() {
    let Some(place) = place("tar_members_lost") else { return };
    assert_eq!(labels(&place, "dots.tar").len(), 3);
    assert_eq!(labels(&place, "hardlink.tar").len(), 2);
}
