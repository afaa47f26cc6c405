//! Files of an earlier version still open: `fixtures/earlier.tar.gz`, whose README describes their
//! origin.

use serde_json::Value;

use crate::common::Place;

/// The files, unpacked.
fn place() -> Place {
    let place = Place::new("", "");
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/earlier.tar.gz");
    let unpacked = flate2::read::GzDecoder::new(std::fs::File::open(archive).unwrap());
    tar::Archive::new(unpacked).unpack(place.dir()).unwrap();
    place
}

/// Gradient norms of a run's steps.
fn gradients(place: &Place, run: &str) -> Vec<f64> {
    let log = std::fs::read_to_string(place.path(run).join("log.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["grad_norm"].as_f64().unwrap()).collect()
}

/// The earlier version made six steps; its last state is that of step 4.
#[test]
fn earlier_runs_resume_and_go_the_same_way() {
    let place = place();
    for (verb, run) in [("train-tokenizer", "tokenizer"), ("train-ar", "transformer")] {
        let before = gradients(&place, run);
        let said = place.said(&format!("{verb} --resume --output {run} --device cpu --threads 1"), 0);
        assert!(said.contains("resuming after step 4") && !said.contains("not those of"), "{said}");
        let after = gradients(&place, run);
        assert_eq!((before.len(), after.len()), (6, 6));
        for (before, after) in before.iter().zip(&after) {
            assert!((after / before - 1.0).abs() < 1e-3, "{run}: {before} then, {after} now");
        }
    }
}

#[test]
fn earlier_models_and_codes_are_described() {
    let place = place();
    let described = [
        ("tokenizer", "codes         4 of 8"),
        ("transformer", "one of 1000 classes"),
        ("transformer/state/step-000000004.safetensors", "step: \"4\""),
        ("codes", "8 in 3 shards"),
    ];
    for (path, part) in described {
        let text = place.ok(&format!("inspect {path}"));
        assert!(text.contains(part), "{path}: {text}");
    }
}

#[test]
fn earlier_codes_are_completed_and_trained_on() {
    let place = place();
    let shard = place.path("codes/codes-00001-of-00003.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::remove_file(&shard).unwrap();
    let extract = "extract --data images --tokenizer tokenizer --augment flip --shard-size 3 --output codes";
    let text = place.ok(&format!("{extract} --device cpu"));
    assert!(text.contains("5 were there already"), "{text}");
    assert!(std::fs::read(&shard).unwrap() == bytes);
    let changes = "model.width=4 model.layers=1 model.heads=1 optimization.steps=2 optimization.warmup=1 \
                   optimization.batch_size=4";
    place.ok(&format!("train-ar --codes codes --tokenizer tokenizer --output new --device cpu {changes}"));
}

#[test]
fn earlier_images_are_made_again() {
    let place = place();
    let report = place.json("sample --from samples/000000.png --output again --device cpu", 0);
    assert_eq!(report["largest_difference"], 0, "{report}");
}

#[test]
fn an_earlier_npz_is_completed() {
    let place = place();
    let partial = std::fs::read(place.path("cut.npz.partial")).unwrap();
    let sample = "sample --model transformer --class n02099601 --num 12 --batch-size 1 --cfg 2 --npz cut.npz";
    assert!(place.said(&format!("{sample} --device cpu"), 0).contains("continuing after 2 of 12 images"));
    let npz = std::fs::read(place.path("cut.npz")).unwrap();
    assert!(npz.windows(partial.len()).any(|part| part == partial), "the images before are kept");
}

#[test]
fn an_earlier_partial_evaluation_is_refused_by_name() {
    let place = place();
    let eval = "eval copies --reference originals --metrics psnr,ssim --shard 0/2 --partial copies.partial";
    let message = place.fails(&format!("{eval} --device cpu"));
    assert!(message.contains("`copies.partial` is a partial evaluation of an earlier version"), "{message}");
}
