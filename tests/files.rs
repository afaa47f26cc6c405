//! `gen inspect` and `gen convert`, end to end.

use crate::common::{Place, Tiny, write_model};
use serde_json::Value;

/// A folder with a model in it.
fn place() -> Place {
    let place = Place::new("", "");
    write_model(&place.path("model"), Tiny::default());
    place
}

fn json(place: &Place, line: &str) -> Value {
    place.json(line, 0)
}

fn fingerprint(place: &Place, file: &str) -> String {
    let report = json(place, &format!("inspect {file} --fingerprint"));
    report["fingerprint"].as_str().unwrap().to_owned()
}

#[test]
fn weights_survive_the_way_through_pt_and_back() {
    let place = place();
    let report = json(&place, "convert model/weights.safetensors a.pt");
    assert_eq!((&report["section"], &report["tensors"]), (&Value::Null, &19.into()));
    place.ok("convert a.pt b --format safetensors");
    place.ok("convert b bare.pth --bare");
    let original = fingerprint(&place, "model/weights.safetensors");
    for file in ["a.pt", "b", "bare.pth"] {
        assert_eq!(fingerprint(&place, file), original, "{file}");
    }
    assert_eq!(json(&place, "inspect a.pt")["section"], "model");
    assert_eq!(json(&place, "inspect bare.pth")["section"], Value::Null);
    // The model runs from the converted file.
    std::fs::rename(place.path("b"), place.path("model/weights.safetensors")).unwrap();
    assert!(place.ok("inspect model").contains("model/weights.safetensors: safetensors"));
}

#[test]
fn a_training_dictionary_is_listed_and_its_section_chosen() {
    let place = place();
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/weights/tests/files/training_zip2.pt");
    std::fs::copy(from, place.path("run.pt")).unwrap();
    let report = json(&place, "inspect run.pt");
    assert_eq!((&report["what"], &report["section"]), (&"checkpoint".into(), &"ema".into()));
    assert_eq!(report["metadata"]["args"]["lr"], 1e-4);
    let model = &report["sections"][0];
    assert_eq!(
        (&model["name"], &model["tensors"][0]["shape"]),
        (&"model".into(), &serde_json::json!([4, 6]))
    );
    let text = place.ok("inspect run.pt --section model");
    assert!(text.contains("\nmodel\n  module.a.weight"), "{text}");

    let report = json(&place, "convert run.pt ema.safetensors");
    assert_eq!(report["section"], "ema");
    assert_eq!(report["left_out"], serde_json::json!(["model", "optimizer", "unknown"]));
    let written = json(&place, "inspect ema.safetensors");
    assert_eq!(written["metadata"]["steps"], "1234");
    assert_eq!(written["metadata"]["format"], "pt");
    // Wrappers' prefixes are removed; wider dtypes come first.
    let first =
        |file: &str| json(&place, &format!("inspect {file}"))["sections"][0]["tensors"][0]["name"].clone();
    assert_eq!(first("ema.safetensors"), "c.count");
    place.ok("convert run.pt model.pt --section model --under net");
    assert_eq!(json(&place, "inspect model.pt")["sections"][0]["name"], "net");
}

/// A file of `torch.save` with this pickle and one storage of eight zeros.
fn pt(place: &Place, name: &str, pickle: &[u8]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(place.path(name)).unwrap());
    for (member, bytes) in [("m/data.pkl", pickle), ("m/data/0", &[0; 8][..])] {
        zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap();
}

/// As a pickle: two fp32 zeros.
const ZEROS: &[u8] =
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000\
    X\x03\0\0\0cpuK\x02tQK\0K\x02\x85K\x01\x85\x89}tR";

#[test]
fn what_is_beside_the_tensors_of_a_section_is_told() {
    let place = place();
    let section = |name: &str, values: &[u8]| {
        let length = [name.len() as u8, 0, 0, 0];
        [b"X", &length[..], name.as_bytes(), b"}(", values, b"us"].concat()
    };
    let model =
        [b"X\x01\0\0\0w", ZEROS, b"X\x05\0\0\0scaleK\x03X\x01\0\0\0bC\x02xyX\x01\0\0\0l](K\x01K\x02e"]
            .concat();
    pt(&place, "run.pt", &[b"\x80\x03}", &section("model", &model)[..], b"."].concat());
    let report = json(&place, "convert run.pt out.safetensors");
    let expected = [
        "model.scale (a number, not a tensor)",
        "model.b (2 bytes, not a tensor)",
        "model.l (a list of 2 values, not a tensor)",
    ];
    assert_eq!(report["left_out"], serde_json::json!(expected));

    // An average's own notes under `ema` are not the weights; the error gives their location.
    let notes = section("ema", &[b"X\x07\0\0\0history", ZEROS].concat());
    pt(&place, "run.pt", &[b"\x80\x03}", &notes[..], &section("model", &model), b"."].concat());
    place.picture("x.png", (16, 16), |x, y| [x as u8, y as u8, 7]);
    let error =
        place.fails("encode x.png --tokenizer model/tokenizer/config.yaml --weights run.pt -o c.safetensors");
    assert!(error.contains("`gen convert run.pt model.safetensors --section model`"), "{error}");
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let place = place();
    for name in ["x.png", "x.pt", "x.safetensors", "x.npz", "x.yaml", "index.json"] {
        let made = std::process::Command::new("mkfifo").arg(place.path(name)).status().unwrap();
        assert!(made.success());
        let error = place.fails(&format!("inspect {name}"));
        assert!(error.contains(name) && error.contains("not a regular file but a pipe"), "{error}");
    }
    for line in [
        "encode x.png --tokenizer model/tokenizer -o c.safetensors",
        "reconstruct x.png --tokenizer model/tokenizer -o out",
        "sample --from x.png --model model",
    ] {
        let error = place.fails(line);
        assert!(
            error.contains("x.png") && error.contains("not a regular file but a pipe"),
            "{line}: {error}"
        );
    }
}

#[test]
fn configs_say_what_they_describe() {
    let place = place();
    let report = json(&place, "inspect model/config.yaml");
    assert_eq!((&report["what"], &report["describes"]), (&"config".into(), &"transformer".into()));
    assert_eq!(report["tensors"].as_array().unwrap().len(), 19);
    let report = json(&place, "inspect model/tokenizer/config.yaml");
    assert_eq!(report["describes"], "tokenizer");
    let official = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/official/VQ_SS256.yaml");
    assert_eq!(json(&place, &format!("inspect {official}"))["parameters"], 136_073_227);
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/train/gpt-64.yaml");
    assert_eq!(json(&place, &format!("inspect {recipe}"))["describes"], "recipe");
}

#[test]
fn what_cannot_be_read_or_written_is_a_sentence_and_leaves_nothing() {
    let place = place();
    let file = |name: &str, bytes: &[u8]| std::fs::write(place.path(name), bytes).unwrap();
    let whole = std::fs::read(place.path("model/weights.safetensors")).unwrap();
    file("cut.safetensors", &whole[..whole.len() / 2]);
    file("picture.pt", b"\x89PNG\r\n\x1a\n");
    file("notes.txt", b"a: 1\n");
    file("args.yaml", b"model_args: {n_layer: 9223372036854775807}\n");
    for (line, expected) in [
        ("inspect cut.safetensors", "`cut.safetensors` is damaged"),
        ("inspect picture.pt", "`picture.pt` is not a checkpoint: it is a PNG image"),
        ("inspect notes.txt", "no config of a model"),
        ("inspect args.yaml", "layers must be at most 10000, found 9223372036854775807"),
        ("inspect gone.pt", "cannot read `gone.pt`"),
        ("inspect model/weights.safetensors --section ema", "no weights under `ema`"),
        ("convert model/weights.safetensors out.weights", "add `--format pt` or `--format safetensors`"),
        ("convert cut.safetensors out.pt", "is damaged"),
        ("convert model/weights.safetensors no/such/out.pt", "cannot write `no/such/out.pt`"),
    ] {
        let error = place.fails(line);
        assert!(error.starts_with("error: ") && error.contains(expected), "{line}: {error}");
        assert!(!place.path("out.pt").exists());
    }
    let left: Vec<_> = std::fs::read_dir(place.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "{left:?}");
}
