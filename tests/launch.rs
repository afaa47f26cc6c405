//! Verbs as several processes: their results are those of one.

use std::path::{Path, PathBuf};

use crate::common::{Place, Tiny, stderr, write_model};

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

/// Names and contents of all files below a folder, without those that are named by time and process.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        match path.is_dir() {
            _ if name.to_string_lossy().starts_with("events.out") => {}
            true => all.extend(files(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes))),
            false => all.push((name, std::fs::read(&path).unwrap())),
        }
    }
    all.sort();
    all
}

/// Results of a line on stdout, which are those of one process and of several, as are the bytes of
/// `file`.
fn same_results(place: &Place, line: &str, file: &str, code: i32, numbers: &[u8]) -> Vec<u8> {
    let run = |line: &str| {
        let out = place.run(line);
        assert_eq!(out.status.code(), Some(code), "{line}: {}", stderr(&out));
        let bytes = std::fs::read(place.path(file)).unwrap();
        std::fs::remove_file(place.path(file)).unwrap();
        (out.stdout, bytes)
    };
    let one = run(line);
    for processes in numbers {
        assert!(run(&format!("launch --nproc {processes} -- {line}")) == one, "{line} by {processes}");
    }
    one.0
}

/// The first error of a line that must fail.
fn first_error(said: &str) -> &str {
    said.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{said}"))
}

fn both(place: &Place, verb: &str, options: &str, code: i32) {
    place.said(&format!("{verb} --output one {options}"), code);
    for processes in [2, 3] {
        let many = format!("many{processes}");
        place.said(&format!("launch --nproc {processes} -- {verb} --output {many} {options}"), code);
        for (one, other) in files(&place.path("one")).iter().zip(files(&place.path(&many))) {
            assert!(
                *one == other,
                "{verb} {options} by {processes}: {} and {}",
                one.0.display(),
                other.0.display()
            );
        }
        assert_eq!(files(&place.path("one")).len(), files(&place.path(&many)).len());
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
    assert!(said.contains("this verb runs as one process"), "{said}");
    for part in ["--merge p q", "--benchmark fid", "--features x --reference-features y"] {
        let said = place.fails(&format!("launch --nproc 2 -- eval {part}"));
        let option = part.split(' ').next().unwrap();
        assert!(said.contains(&format!("`gen eval {option}` runs as one process")), "{said}");
    }
    let said = place.said("launch --nproc 2 -- sample --model model --class 207 --rng torch --device cpu", 2);
    assert!(said.contains("one generator"), "{said}");
    let said = place.fails("launch --nproc 2");
    assert!(said.contains("VERB"), "{said}");
    let out = place.command("sample --class 207").env("RANK", "1").output().unwrap();
    let said = stderr(&out);
    assert!(out.status.code() == Some(2) && said.contains("WORLD_SIZE is not"), "{said}");
}

const NET: &str = "--network efficientnet-lite0 --network-weights random:11";

#[test]
fn scores_are_those_of_one_process() {
    let place = place();
    for i in 0..7u8 {
        let folder = if i < 3 { "n01440764" } else { "n02099601" };
        place.picture(&format!("originals/{folder}/{i}.png"), (24, 18), |x, y| {
            [i * 29, x as u8 * 9 + i, y as u8 * 12]
        });
    }
    let sets = format!("eval images --device cpu --batch-size 2 {NET} --report r.html --json --reference");
    let metrics = "psnr,ms_ssim,fid,sfid,is,kid,class_agreement --kid-subset-size 3";
    same_results(&place, &format!("{sets} originals --metrics {metrics}"), "r.html", 0, &[2, 3]);
    // Live, without files.
    let live = "--device cpu --batch-size 2 --report r.html --json --model model";
    let reconstruct = format!("eval --reconstruct images {live} --metrics psnr,ssim,codebook");
    same_results(&place, &reconstruct, "r.html", 0, &[3]);
    same_results(&place, &format!("eval --num-images 5 {live} {NET} --metrics is"), "r.html", 0, &[3]);
    same_results(&place, &format!("eval --likelihood images {live}"), "r.html", 0, &[3]);
    let stats = "eval stats images --device cpu --kind gfid -o s.npz --batch-size 2 --json";
    same_results(&place, &format!("{stats} {NET}"), "s.npz", 0, &[2]);

    // Unreadable images are named in their order; one of another size is refused by name, once.
    for name in ["originals/n02099601/3.png", "images/n01440764/1.png", "images/n02099601/5.png"] {
        std::fs::write(place.path(name), b"no image").unwrap();
    }
    let line = format!("{sets} originals --metrics psnr,fid");
    let report = same_results(&place, &line, "r.html", 1, &[2]);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&report).unwrap()["skipped"].as_array().unwrap().len(),
        3
    );
    place.picture("images/n02099601/4.png", (24, 20), |_, _| [9; 3]);
    let one = place.said(&line, 2);
    let many = place.said(&format!("launch --nproc 2 -- {line}"), 2);
    assert!(first_error(&one).contains("4.png"), "{one}");
    assert_eq!(many.lines().filter(|line| *line == first_error(&one)).count(), 1, "{one}{many}");
}

#[test]
fn an_evaluation_is_continued_by_another_number_of_processes() {
    let place = place();
    for i in 0..60u8 {
        place.picture(&format!("many/{i:02}.png"), (24, 18), |x, y| [i * 4, x as u8 * 9, y as u8 * 13]);
    }
    let line =
        format!("eval images --reference many --metrics fid,is --device cpu --batch-size 1 {NET} --json");
    let mut running = place.process(&format!("launch --nproc 2 -- {line} --partial p"));
    let mut running = running.stderr(std::process::Stdio::null()).spawn().unwrap();
    while !place.path("p").exists() {
        assert!(running.try_wait().unwrap().is_none(), "the images judged are saved first");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = running.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(1), "stopped before its end");
    std::fs::copy(place.path("p"), place.path("q")).unwrap();
    let one = place.ok(&format!("{line} --partial p"));
    assert!(place.ok(&format!("launch --nproc 3 -- {line} --partial q")) == one);
}

#[test]
fn files_of_other_verbs_are_those_of_one_process() {
    let place = place();
    place.picture("images/n02099601/wide.png", (40, 18), |x, y| [x as u8 * 6, 40, y as u8 * 14]);
    std::fs::write(place.path("images/n02099601/5.png"), b"no image").unwrap();
    let common = "--device cpu --batch-size 2 --json";
    let with_model = format!("{common} --tokenizer model");
    same_results(
        &place,
        &format!("encode images {with_model} --features -o c.safetensors"),
        "c.safetensors",
        1,
        &[3],
    );
    let network = "--network efficientnet-lite0 --weights random:11";
    same_results(&place, &format!("features images {network} {common} -o f.npz"), "f.npz", 1, &[3]);
    both(&place, &format!("reconstruct images {with_model}"), "", 1);

    place.said(&format!("encode images {with_model} -o codes.safetensors"), 1);
    let codes = "codes.safetensors";
    same_results(
        &place,
        &format!("logits --codes {codes} {common} --model model --class 207 -o l"),
        "l",
        0,
        &[2],
    );
    same_results(&place, &format!("decode {codes} {with_model} -o d.safetensors"), "d.safetensors", 0, &[2]);
    both(&place, &format!("decode {codes} {with_model}"), "", 0);
    std::fs::create_dir(place.path("none")).unwrap();
    std::fs::write(place.path("none/0.png"), b"no image").unwrap();
    let line = format!("reconstruct none {with_model} --output n");
    let (one, many) = (place.said(&line, 2), place.said(&format!("launch --nproc 2 -- {line}"), 2));
    assert_eq!(many.lines().filter(|line| *line == first_error(&one)).count(), 1, "{one}{many}");
}

#[test]
fn a_probe_of_shared_features_is_that_of_one_process() {
    let place = place();
    std::fs::write(place.path("images/n02099601/5.png"), b"no image").unwrap();
    let head = "--batch-size 2 --accumulate 1 --epochs 3 --warmup-epochs 1";
    let probe = format!("probe --data images --validation images --tokenizer model --device cpu {head}");
    both(&place, &probe, "", 1);
    both(&place, &probe, "--cache-views 2", 1);
    let line = format!("{probe} --max-corrupt 0 --output none");
    let said = place.said(&format!("launch --nproc 2 -- {line}"), 2);
    assert!(said.contains("more than the 0 allowed"), "{said}");
}
