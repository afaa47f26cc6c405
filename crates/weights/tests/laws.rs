//! Properties of every checkpoint written and read here.

use std::collections::BTreeMap;
use std::path::Path;

use base::{Build, Hint, Init, Vars};
use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, Error, KeyMap, Signature, Want, fingerprint, fingerprint_source, likely, load};

fn samples() -> Vec<(String, Tensor)> {
    let base = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 4]);
    vec![
        ("bytes".into(), Tensor::from_slice(&[1u8, 2, 3])),
        ("a.float".into(), base.shallow_clone()),
        ("transposed".into(), base.transpose(0, 2)),
        ("half".into(), base.to_kind(Kind::Half)),
        ("bf16".into(), base.to_kind(Kind::BFloat16)),
        ("double".into(), base.to_kind(Kind::Double) / 3.0),
        ("long".into(), Tensor::from_slice(&[i64::MIN, 0, i64::MAX])),
        ("flags".into(), Tensor::from_slice(&[true, false])),
        ("scalar".into(), Tensor::from(2.5f32)),
        ("empty".into(), Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
    ]
}

fn save(path: &Path, tensors: &[(String, Tensor)]) {
    weights::save_safetensors(path, tensors, &BTreeMap::from([("format".into(), "pt".into())])).unwrap();
}

fn same(expected: &[(String, Tensor)], source: &dyn weights::TensorSource) {
    assert_eq!(source.names().len(), expected.len());
    for (name, t) in expected {
        let found = source.read(name, Device::Cpu).unwrap();
        assert_eq!((found.kind(), found.size()), (t.kind(), t.size()), "{name}");
        assert_eq!(&found, t, "{name}");
        assert_eq!(source.info(name).unwrap().bytes as usize, t.numel() * t.kind().elt_size_in_bytes());
    }
}

#[test]
fn writing_then_reading_is_identity() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    save(&path, &samples());
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.metadata()["format"], "pt");
    let source = checkpoint.source(Want::Auto).unwrap();
    same(&samples(), &*source);
    assert_eq!(fingerprint(&samples()).unwrap(), fingerprint_source(&*source).unwrap());
    // The same input gives the same bytes.
    let again = dir.path().join("y.safetensors");
    save(&again, &samples());
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
}

#[test]
fn fingerprints_see_names_shapes_kinds_and_values_but_not_order() {
    let print = |t: &[(String, Tensor)]| fingerprint(t).unwrap();
    let of = |name: &str, t: Tensor| print(&[(name.into(), t)]);
    let t = Tensor::from_slice(&[0.0f32, 0.0]);
    let base = of("a", t.copy());
    assert_eq!(base.len(), 16);
    assert_ne!(base, of("b", t.copy()));
    assert_ne!(base, of("a", t.view([2, 1])));
    assert_ne!(base, of("a", t.view_dtype(Kind::Int)));
    assert_ne!(base, of("a", t + 1));
    let mut reversed = samples();
    reversed.reverse();
    assert_eq!(print(&samples()), print(&reversed));
}

/// A model of two variables and a counter.
fn model() -> Vars {
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    let root = vars.root();
    let _ = (&root / "layer").var("weight", &[2, 3], Init::Const(0.0));
    let _ = (&root / "layer").var("bias", &[2], Init::Const(0.0));
    let _ = root.buffer("count", &[], Kind::Int64, Init::Const(0.0));
    vars
}

fn weights_of(kind: Kind) -> Vec<(String, Tensor)> {
    vec![
        ("module.layer.weight".into(), Tensor::arange(6, (kind, Device::Cpu)).view([2, 3])),
        ("module._orig_mod.layer.bias".into(), Tensor::ones([2], (kind, Device::Cpu))),
        ("module.count".into(), Tensor::from(7i64)),
    ]
}

fn try_load(tensors: &[(String, Tensor)], map: &KeyMap) -> Result<(Vars, weights::LoadReport), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    save(&path, tensors);
    let vars = model();
    let source = Checkpoint::open(&path)?.source(Want::Auto)?;
    load(&vars, &*source, map).map(|report| (vars, report))
}

#[test]
fn loading_fills_the_very_tensors_of_the_model_and_casts_to_their_kind() {
    let vars = model();
    let held = vars.get("layer.weight").unwrap(); // as a layer holds it
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    save(&path, &weights_of(Kind::BFloat16));
    let source = Checkpoint::open(&path).unwrap().source(Want::Auto).unwrap();
    vars.set_requires_grad(true);
    let report = load(&vars, &*source, &KeyMap::identity()).unwrap();
    assert_eq!(report.applied.len(), 3);
    assert_eq!((held.kind(), held.requires_grad()), (Kind::Float, true));
    assert_eq!(held.detach(), Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]));
    assert_eq!(vars.get("count").unwrap().int64_value(&[]), 7);
}

#[test]
fn whatever_does_not_fit_is_an_error_that_says_what_and_changes_nothing() {
    let mut tensors = weights_of(Kind::Float);
    tensors[0].1 = Tensor::zeros([3, 3], (Kind::Float, Device::Cpu));
    tensors[1].0 = "layer.bais".into();
    let error = try_load(&tensors, &KeyMap::identity()).unwrap_err();
    let text = error.to_string();
    for part in [
        "1 of 3 tensors has another shape or kind; first: `layer.weight`, expected [2, 3], found [3, 3]",
        "1 of 3 tensors missing: `layer.bias`",
        "1 not expected: `layer.bais`",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let hints = error.hints();
    assert_eq!(hints[0], "the file has `layer.bais` where the model has `layer.bias`");
    assert!(hints[1].starts_with("`gen inspect "), "{hints:?}");

    let mut tensors = weights_of(Kind::Float);
    tensors[2].1 = Tensor::from(7.0f32);
    let text = try_load(&tensors, &KeyMap::identity()).unwrap_err().to_string();
    assert!(text.contains("expected Int64, found Float"), "{text}");

    let mut tensors = weights_of(Kind::Float);
    tensors.push(("layer.bias".into(), Tensor::zeros([2], (Kind::Float, Device::Cpu))));
    let text = try_load(&tensors, &KeyMap::identity()).unwrap_err().to_string();
    assert!(text.contains("two tensors under one name: `layer.bias`"), "{text}");
}

#[test]
fn what_a_map_drops_or_keeps_is_reported_with_its_reason() {
    let mut tensors = weights_of(Kind::Float);
    tensors[1].0 = "freqs_cis".into();
    let map = KeyMap::identity()
        .drop("freqs_cis", "computed from the configuration")
        .optional("layer.bias", "starts at zero");
    let (vars, report) = try_load(&tensors, &map).unwrap();
    assert_eq!(report.dropped[0].because, "computed from the configuration");
    assert_eq!(
        (report.kept[0].name.as_str(), report.kept[0].because.as_str()),
        ("layer.bias", "starts at zero")
    );
    assert_eq!(vars.get("layer.bias").unwrap().abs().max().double_value(&[]), 0.0);
}

#[test]
fn the_likely_model_is_the_one_whose_shapes_match() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    save(&path, &weights_of(Kind::Float));
    let known = |name: &str, width| Signature {
        name: name.into(),
        advice: format!("try `--tokenizer {name}`"),
        tensors: vec![("layer.weight".into(), vec![2, width])],
    };
    let mut known = vec![known("narrow", 2), known("right", 3)];
    let source = Checkpoint::open(&path).unwrap().source(Want::Auto).unwrap();
    let names = |known: &[Signature]| -> Vec<String> {
        likely(&*source, known).iter().map(|s| s.name.clone()).collect()
    };
    assert_eq!(names(&known), ["right"]);
    assert_eq!(known[1].sentence(), "the file looks like right; try `--tokenizer right`");
    // One that accounts for more of the file is likelier.
    known.push(known[1].clone());
    known[2].name = "more".into();
    known[2].tensors.push(("layer.bias".into(), vec![2]));
    assert_eq!(names(&known), ["more"]);
}
