//! Verbs as several processes: their results are those of one.

use std::path::{Path, PathBuf};

use crate::common::{Place, Tiny, write_model};

fn place() -> Place {
    let place = Place::new("", "");
    write_model(&place.path("model"), Tiny::default());
    for i in 0..7u8 {
        let folder = if i < 3 { "n01440764" } else { "n02099601" };
        place.picture(&format!("images/{folder}/{i}.png"), (24, 18), |x, y| {
            [i * 30, x as u8 * 9, y as u8 * 13]
        });
    }
    place
}

/// Names and contents of all files below a folder.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        match path.is_dir() {
            true => all.extend(files(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes))),
            false => all.push((name, std::fs::read(&path).unwrap())),
        }
    }
    all.sort();
    all
}

fn both(place: &Place, verb: &str, options: &str, code: i32) {
    place.said(&format!("{verb} --output one {options}"), code);
    for processes in [2, 3] {
        let many = format!("many{processes}");
        place.said(&format!("launch --nproc {processes} -- {verb} --output {many} {options}"), code);
        assert!(files(&place.path("one")) == files(&place.path(&many)), "{verb} {options} by {processes}");
        std::fs::remove_dir_all(place.path(&many)).unwrap();
    }
    std::fs::remove_dir_all(place.path("one")).unwrap();
}

#[test]
fn images_and_codes_are_those_of_one_process() {
    let place = place();
    let sample = "sample --model model --device cpu --class 0,207 --num 4 --batch-size 3";
    both(&place, sample, "", 0);
    both(&place, sample, "--speculative 4", 0);
    let extract = "extract --data images --tokenizer model --device cpu";
    both(&place, extract, "--shard-size 2 --batch-size 3", 0);
    both(&place, extract, "--format npy --shard-size 2", 0);
    // Damaged images are skipped, and listed in the order of the images.
    for name in ["images/n01440764/1.png", "images/n02099601/4.png", "images/n02099601/6.png"] {
        std::fs::write(place.path(name), b"no image").unwrap();
    }
    both(&place, extract, "--shard-size 1", 1);
    let said =
        place.said(&format!("launch --nproc 2 -- {extract} --shard-size 1 --max-corrupt 2 --output few"), 2);
    assert!(said.contains("more than"), "{said}");
}

#[test]
fn an_npz_is_continued_by_another_number_of_processes() {
    let place = place();
    let sample = "sample --model model --device cpu --class 207 --num 9 --batch-size 2";
    place.ok(&format!("{sample} --npz one.npz"));
    place.ok(&format!("launch --nproc 2 -- {sample} --npz two.npz"));
    assert!(std::fs::read(place.path("one.npz")).unwrap() == std::fs::read(place.path("two.npz")).unwrap());
}

#[test]
fn what_several_processes_cannot_do_is_said() {
    let place = place();
    let said = place.fails("launch --nproc 2 -- plot run");
    assert!(said.contains("runs as one process"), "{said}");
    let said = place.said("launch --nproc 2 -- sample --model model --class 207 --rng torch --device cpu", 2);
    assert!(said.contains("one generator"), "{said}");
    let said = place.fails("launch --nproc 2");
    assert!(said.contains("VERB"), "{said}");
    let out = place.command("sample --class 207").env("RANK", "1").output().unwrap();
    let said = crate::common::stderr(&out);
    assert!(out.status.code() == Some(2) && said.contains("WORLD_SIZE is not"), "{said}");
}
