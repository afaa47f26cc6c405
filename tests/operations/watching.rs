//! Looking at a run: what it prints, its directory, TensorBoard, curves.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{TINY, TrainingPlace};

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn log(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// A run of six steps that was stopped and resumed once.
fn trained() -> (TrainingPlace, String) {
    let place = TrainingPlace::with_pictures();
    let changes = [TINY, &["optimization.steps=4", "every={log: 2, validate: 4, save: 2}"]].concat();
    place.ends(0, "train-tokenizer --data images --validation images --output run", &changes);
    let more = ["optimization.steps=6", "--peak-tflops", "0.5"];
    let (_, stderr) = place.ends(0, "train-tokenizer --resume --output run", &more);
    (place, stderr)
}

#[test]
fn a_run_tells_how_it_stands_and_where_it_came_from() {
    let (place, stderr) = trained();
    let run = place.path("run");
    let line = stderr.lines().find(|l| l.starts_with("step 6/6")).unwrap();
    for part in ["l2 ", "lr ", "grad_norm ", " img/s", "MFU ", "data wait "] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(stderr.contains("0.500 TFLOP/s"), "{stderr}");

    let starts = json(&run.join("run.json"))["starts"].clone();
    let [first, second] = &starts.as_array().unwrap()[..] else { panic!("{starts}") };
    assert!(
        first["program"].as_str().unwrap().starts_with(concat!("gen ", env!("CARGO_PKG_VERSION"))),
        "{first}"
    );
    assert_eq!((&first["after_step"], &second["after_step"]), (&0.into(), &4.into()));
    assert_eq!(second["peak_tflops"], 0.5);
    assert!(first["peak_tflops"].as_f64().unwrap() > 0.0);
    assert_eq!((&first["data"]["records"], &first["data"]), (&8.into(), &second["data"]));
    let in_a_checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists();
    assert_eq!(first["program"].as_str().unwrap().contains("commit "), in_a_checkout, "{first}");

    let lines = log(&run);
    let samples: Vec<_> = lines.iter().filter_map(|l| l["samples"].as_f64()).collect();
    assert_eq!(samples, [8.0, 16.0, 24.0], "counted over both starts");
    let seconds: Vec<_> = lines.iter().filter_map(|l| l["seconds"].as_f64()).collect();
    assert!(seconds.windows(2).all(|w| w[0] < w[1]), "{seconds:?}");
    let speed = |l: &Value| (l["mfu"].as_f64(), l["images_per_second"].as_f64());
    assert!(lines.iter().filter_map(|l| speed(l).0.zip(speed(l).1)).all(|(m, i)| m > 0.0 && i > 0.0));
}

#[test]
fn other_data_on_resuming_are_noticed() {
    let place = TrainingPlace::with_pictures();
    let changes = [TINY, &["optimization.steps=2"]].concat();
    place.ends(0, "train-tokenizer --data images --output run", &changes);
    std::fs::rename(place.path("images/n01443537/0.png"), place.path("images/n01443537/zero.png")).unwrap();
    let (_, stderr) = place.ends(0, "train-tokenizer --resume --output run", &["optimization.steps=3"]);
    assert!(stderr.contains("the training data are not those of the start before"), "{stderr}");
}

#[test]
fn tensorboard_reads_what_the_log_says() {
    let (place, _) = trained();
    let run = place.path("run");
    // By our own reader, which checks lengths and checksums.
    let files = train::tensorboard::event_files(&run).unwrap();
    assert_eq!(files.len(), 2, "one a start");
    let mut ours = vec![];
    for file in &files {
        let events = train::tensorboard::read(file).unwrap();
        assert_eq!(events.last().unwrap().1, std::fs::metadata(file).unwrap().len(), "whole to its end");
        assert_eq!(events[0].0.file_version.as_deref(), Some("brain.Event:2"));
        for (event, _) in events {
            for value in event.summary.into_iter().flat_map(|s| s.value) {
                ours.push((value.tag, event.step, value.simple_value.unwrap()));
            }
        }
    }
    let mut logged = vec![];
    for line in log(&run) {
        let step = line["step"].as_i64().unwrap();
        let scalars = line.as_object().unwrap().iter().filter(|(k, _)| *k != "step");
        logged.extend(scalars.map(|(k, v)| (k.clone(), step, v.as_f64().unwrap() as f32)));
    }
    same(&ours, &logged);

    // By TensorBoard's.
    let script = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0}); events.Reload()
for tag in sorted(events.Tags()['scalars']):
    for e in events.Scalars(tag): print(tag, e.step, repr(e.value))
";
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let out = Command::new(&python).args(["-c", script]).arg(&run).output();
    let out = match out {
        Ok(out) if out.status.success() => String::from_utf8(out.stdout).unwrap(),
        Ok(out) if String::from_utf8_lossy(&out.stderr).contains("No module named 'tensorboard'") => {
            return eprintln!("not run: {python} has no tensorboard; PYTHON names another");
        }
        Ok(out) => panic!("{}", String::from_utf8_lossy(&out.stderr)),
        Err(e) => return eprintln!("not run: no {python}: {e}"),
    };
    let read = |line: &str| {
        let parts: Vec<&str> = line.split(' ').collect();
        (parts[0].to_owned(), parts[1].parse::<i64>().unwrap(), parts[2].parse::<f64>().unwrap() as f32)
    };
    let theirs: Vec<_> = out.lines().map(read).collect();
    ours.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    same(&theirs, &ours);
}

/// Equal but for the last digit, which ways through text may cost.
fn same(a: &[(String, i64, f32)], b: &[(String, i64, f32)]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((&a.0, a.1) == (&b.0, b.1) && (a.2 - b.2).abs() <= 1e-6 * a.2.abs(), "{a:?} {b:?}");
    }
}

#[test]
fn curves_of_several_runs_are_drawn_in_every_format() {
    let (place, _) = trained();
    let other = place.path("other");
    std::fs::create_dir(&other).unwrap();
    let line = |step: u64| {
        format!(
            "{{\"step\":{step},\"l2\":{},\"samples\":{},\"seconds\":{step}}}\n",
            1.0 / step as f64,
            4 * step
        )
    };
    let torn = (1..=6).map(line).collect::<String>() + "{\"step\":7,\"l2\":null}\n{\"step\":8,\"l2";
    std::fs::write(other.join("log.jsonl"), torn).unwrap();

    let (stdout, stderr) =
        place.ends(0, "plot run other -o curves.png --terms l2,validation/* --smooth 0.6 --log", &[]);
    assert!(stdout.starts_with("4 terms of 2 runs in curves.png"), "{stdout}");
    assert!(stderr.contains("other: 1 lines") && stderr.contains("l2: 1 values are not numbers"), "{stderr}");
    let png = image::open(place.path("curves.png")).unwrap().to_rgb8();
    let blue = png.pixels().filter(|p| p.0 == [0, 114, 178]).count();
    let orange = png.pixels().filter(|p| p.0 == [213, 94, 0]).count();
    assert!(png.width() > 1000 && blue > 200 && orange > 200, "{} {blue} {orange}", png.width());

    place.ends(0, "plot run other -o curves.svg --x samples --terms l2 --names first,second", &[]);
    let svg = std::fs::read_to_string(place.path("curves.svg")).unwrap();
    for text in ["<svg", "first", "second", "l2", "images seen"] {
        assert!(svg.contains(text), "{text}");
    }
    place.ends(0, "plot run -o curves.html --x time", &[]);
    let html = std::fs::read_to_string(place.path("curves.html")).unwrap();
    assert!(
        html.starts_with("<!DOCTYPE html>") && html.contains("<svg") && html.contains("codebook"),
        "{html}"
    );

    for (line, says) in [
        ("plot run --terms l3", "no run has a term `l3`"),
        ("plot run -o curves.pdf", "name it .png, .svg or .html"),
        ("plot nowhere", "cannot read the log of a run, `nowhere`"),
        ("plot run --names a,b", "2 names for 1 runs"),
    ] {
        let (_, stderr) = place.ends(2, line, &[]);
        assert!(stderr.contains(says), "{line}: {stderr}");
    }
}
