//! Files that PyTorch wrote (`files/make.py`), and files that are broken or hostile.

use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use base::Hint;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, Error, Format, TensorSource, Want};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(file(name)).unwrap()
}

/// Opens bytes as a file with an uninformative name.
fn open(bytes: &[u8]) -> Result<Checkpoint, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path) // stays mapped after the directory is gone
}

/// Opens bytes and reads everything in them; what fails is an error, never a panic.
fn read_all(bytes: &[u8]) -> Result<(), Error> {
    let checkpoint = open(bytes)?;
    for section in checkpoint.sections() {
        let source = checkpoint.section(section.name.as_deref())?;
        for name in source.names() {
            if source.info(name).unwrap().bytes < 1 << 20 {
                let _ = source.read(name, Device::Cpu)?;
            }
        }
    }
    Ok(())
}

/// The archive again, with every member deflated.
fn deflated(name: &str) -> Vec<u8> {
    let mut from = zip::ZipArchive::new(Cursor::new(bytes(name))).unwrap();
    let mut to = zip::ZipWriter::new(Cursor::new(vec![]));
    for i in 0..from.len() {
        let mut member = from.by_index(i).unwrap();
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        to.start_file(member.name(), options).unwrap();
        let mut content = vec![];
        member.read_to_end(&mut content).unwrap();
        to.write_all(&content).unwrap();
    }
    to.finish().unwrap().into_inner()
}

/// An archive with the given members.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(vec![]));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in members {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn values(source: &dyn TensorSource, name: &str) -> Vec<f64> {
    let t = source.read(name, Device::Cpu).unwrap_or_else(|e| panic!("{e}"));
    Vec::try_from(t.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

#[test]
fn training_dictionaries_of_every_layout_say_the_same() {
    let files = [
        (bytes("training_zip2.pt"), Format::TorchZip),
        (bytes("training_zip4.pt"), Format::TorchZip),
        (deflated("training_zip2.pt"), Format::TorchZip),
        (bytes("training_legacy2.pt"), Format::TorchLegacy),
    ];
    for (bytes, format) in files {
        let checkpoint = open(&bytes).unwrap();
        assert_eq!(checkpoint.format(), format);
        let sections: Vec<_> = checkpoint.sections().iter().map(|s| s.name.as_deref().unwrap()).collect();
        assert_eq!(sections, ["model", "optimizer", "unknown", "ema"]);

        let ema = checkpoint.source(Want::Auto).unwrap();
        assert_eq!(ema.origin().section.as_deref(), Some("ema"));
        assert_eq!(checkpoint.source(Want::Ema).unwrap().origin(), ema.origin());
        let model = checkpoint.source(Want::Model).unwrap();
        assert_eq!(model.origin().section.as_deref(), Some("model"));

        let weight = ema.read("module.a.weight", Device::Cpu).unwrap();
        let expected = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([4, 6]) * 2;
        assert_eq!(weight, expected);
        assert_eq!(ema.read("module.a.tied", Device::Cpu).unwrap(), expected);
        assert_eq!(ema.read("module.b.transposed", Device::Cpu).unwrap(), expected.tr());
        assert_eq!(values(&*model, "module.b.view"), [5., 8., 11., 14., 17., 20., 23.]);
        assert_eq!(values(&*model, "module.b.parameter"), [1.5, -2.5]);
        assert_eq!(values(&*model, "module.c.bf16"), [1., 2., 3.]);
        assert_eq!(values(&*model, "module.c.flags"), [1., 0., 1.]);
        assert_eq!(model.read("module.c.count", Device::Cpu).unwrap(), Tensor::from(7i64));
        assert_eq!(model.info("module.c.empty").unwrap().shape, [0, 3]);

        let optimizer = checkpoint.section(Some("optimizer")).unwrap();
        assert_eq!(values(&*optimizer, "state.0.step"), [1.0]);
        let about = checkpoint.metadata();
        assert_eq!(about["steps"], 1234);
        assert_eq!((&about["best"], &about["count"]), (&0.125.into(), &(-5).into()));
        assert_eq!(about["args"]["lr"], 1e-4);
        assert_eq!(about["args"]["name"], "run ü");
        assert_eq!(about["args"]["sizes"], serde_json::json!([1, 2]));
        assert_eq!(about["args"]["big"], (1i128 << 70).to_string());
        assert_eq!(about["optimizer"]["param_groups"][0]["lr"], 1e-4);
        assert_eq!(about["path"]["__args__"], serde_json::json!(["a", "b"]));
        assert_eq!(about["unknown"]["__class__"], "__main__.Unknown");
        assert_eq!(about["unknown"]["note"], "hello");
        assert_eq!(checkpoint.section(Some("unknown")).unwrap().names(), ["unknown"]);
    }
}

#[test]
fn the_evaluation_goldens_state_dicts_hold_what_they_should() {
    let expected = Checkpoint::open(&file("expected_state.safetensors")).unwrap();
    let expected = expected.source(Want::Auto).unwrap();
    for name in ["legacy_state.pth", "zip_state.pth"] {
        let source = Checkpoint::open(&file(name)).unwrap().source(Want::Auto).unwrap();
        assert_eq!((source.names().len(), &source.origin().section), (6, &None));
        for tensor in source.names() {
            let expected = values(&*expected, &format!("pth.{tensor}"));
            assert_eq!(values(&*source, tensor), expected, "{name}: {tensor}");
        }
    }
}

#[test]
fn kinds_that_do_not_exist_here_are_named_and_do_not_hide_the_rest() {
    let checkpoint = Checkpoint::open(&file("unreadable.pt")).unwrap();
    let source = checkpoint.source(Want::Auto).unwrap();
    assert_eq!(source.names(), ["w", "v", "x"]);
    assert_eq!(values(&*source, "x"), [1.0, 1.0]);
    let error = source.read("v", Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("torch.uint16"), "{error}");
    let what = |name| source.unsupported(name).map(|u| u.what.as_str());
    assert_eq!((what("w"), what("x")), (Some("torch.float8_e4m3fn"), None));
}

#[test]
fn what_holds_weights_in_another_form_is_refused_by_name_and_never_taken_for_something_else() {
    let checkpoint = Checkpoint::open(&file("forms.pt")).unwrap();
    let source = checkpoint.source(Want::Auto).unwrap();
    // `ema` holds a count of updates and nothing else.
    assert_eq!(source.origin().section.as_deref(), Some("model"));
    assert_eq!(values(&*source, "subclass"), values(&*source, "plain"));
    assert_eq!(values(&*source, "inner.bias"), [1.0; 3]);
    let refused = [
        ("quantized", "a quantized tensor", "dequantize()"),
        ("sparse", "a sparse tensor", "to_dense()"),
        ("csr", "a sparse tensor", "to_dense()"),
        ("numpy", "a numpy array", "from_numpy"),
        ("meta", "a tensor of the meta device", "no values"),
        ("nested", "a nested tensor", "names of their own"),
        ("xla", "a tensor of another kind of device (XLA)", "cpu()"),
        ("negative", "a view with the bit `neg`", "resolve_neg()"),
        ("complex", "torch.ComplexFloatStorage", "gen inspect"),
        ("fp8", "torch.float8_e4m3fn", "gen inspect"),
        ("uint16", "torch.uint16", "gen inspect"),
        ("dtensor", "a sharded tensor (__main__.DTensor)", "full_tensor()"),
        ("storage", "a storage without a tensor", "the tensor"),
        ("slots", "an object of class __main__.Slots", "as a dictionary"),
        ("1", "a name that two values have", "a name of its own"),
    ];
    let names: Vec<&str> = refused.iter().map(|(name, ..)| *name).collect();
    let readable = ["plain", "subclass", "inner.bias"];
    assert_eq!(source.names(), [readable.as_slice(), &names].concat());
    for (name, what, advice) in refused {
        let error = source.read(name, Device::Cpu).unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
        assert!(error.to_string().contains(&format!("{what} is not supported")), "{error}");
        assert!(error.hints().iter().any(|h| h.contains(advice)), "{:?}", error.hints());
    }
    let shape = |name| source.info(name).unwrap().shape;
    assert_eq!((shape("quantized"), shape("meta"), shape("dtensor")), (vec![3, 4], vec![3, 4], vec![4, 3]));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.safetensors");
    let error = weights::export_safetensors(&out, &*source, None, &Default::default()).unwrap_err();
    assert!(error.to_string().contains("`quantized`") && !out.exists(), "{error}");
}

/// Results of other calls on bytes, subclasses with a state, and attributes of dictionaries.
#[test]
fn no_array_no_state_and_no_attribute_of_a_dictionary_is_lost() {
    let call = |function: &str, args: &[u8]| [b"c", function.as_bytes(), b"\n(", args, b"tR"].concat();
    let subclass = |class: &str, state: &[u8]| {
        let parts = tensor(0, &[2], &[1]);
        // `function (arguments)` without the call's `R`.
        let (function, args) =
            parts[..parts.len() - 1].split_at(b"ctorch._utils\n_rebuild_tensor_v2\n(".len() - 1);
        let all = [function, b"c", class.as_bytes(), b"\n", args, state].concat();
        call("torch._tensor\n_rebuild_from_type_v2", &all)
    };
    let scale = b"}X\x05\0\0\0scaleK\x03s";
    let ordered = [b"ccollections\nOrderedDict\n)RX\x01\0\0\0a".to_vec(), tensor(0, &[2], &[1])].concat();
    let ordered = [ordered, b"s}X\x01\0\0\0h".to_vec(), tensor(0, &[2], &[1]), b"sb".to_vec()].concat();
    for (value, expected) in [
        (call("numpy.ma.core\n_mareconstruct", b"K\x01"), "a masked numpy array"),
        (call("torch.storage\n_load_from_bytes", b"C\x02ab"), "a tensor's storage in a pickle of its own"),
        (call("array\narray", b"X\x01\0\0\0f]K\x01a"), "an array of Python's"),
        (subclass("my\nScaled", scale), "a tensor of class my.Scaled"),
        (
            [
                &b"ctorch._utils\n_rebuild_parameter_with_state\n("[..],
                &tensor(0, &[2], &[1]),
                b"\x89N",
                &tensor(0, &[2], &[1]),
                b"tR",
            ]
            .concat(),
            "a parameter with tensors among its attributes",
        ),
        (ordered, "a dictionary with tensors among its attributes"),
    ] {
        let checkpoint = open(&state_dict(&value)).unwrap();
        let name = checkpoint.sections()[0].name.clone();
        let error =
            checkpoint.section(name.as_deref()).unwrap().read("w", Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected}: {error}");
    }
    for (class, state) in [("my\nScaled", &b"}"[..]), ("my\nScaled", b"N"), ("torch\nTensor", scale)] {
        let checkpoint = open(&state_dict(&subclass(class, state))).unwrap();
        assert_eq!(values(&*checkpoint.source(Want::Auto).unwrap(), "w"), [0.0, 0.0], "{class}");
    }
}

#[test]
fn what_holds_no_weights_vetoes_nothing_and_is_told() {
    let checkpoint = Checkpoint::open(&file("forms.pt")).unwrap();
    assert_eq!(checkpoint.metadata()["steps"], 7);
    assert!(!checkpoint.metadata().contains_key("config"));
    let not_shown: Vec<&str> = checkpoint.not_shown().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(not_shown, ["config", "deep"]);
    assert!(checkpoint.not_shown()[0].1.contains("contain themselves"));
    // A whole module is a section of its own; its contents are not names of weights.
    let module = checkpoint.section(Some("module")).unwrap();
    assert_eq!(module.names(), ["module"]);
    let error = module.read("module", Device::Cpu).unwrap_err();
    let expected = "a whole module (torch.nn.modules.container.Sequential) is not supported";
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.hints()[0].contains("state_dict()"), "{:?}", error.hints());
    let error = Checkpoint::open(&file("whole_module.pt")).unwrap_err();
    assert!(error.to_string().contains("is a whole module (torch.nn.modules.linear.Linear)"), "{error}");
}

#[test]
fn what_save_torch_writes_reads_back_and_shares_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    let base = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 4]);
    let tensors: Vec<(String, Tensor)> = vec![
        ("float".into(), base.shallow_clone()),
        ("tied".into(), base.shallow_clone()),
        ("transposed".into(), base.transpose(0, 2)),
        ("bf16".into(), base.to_kind(Kind::BFloat16)),
        ("half".into(), base.to_kind(Kind::Half)),
        ("long".into(), Tensor::from_slice(&[i64::MIN, i64::MAX])),
        ("flag".into(), Tensor::from(true)),
        ("empty".into(), Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
    ];
    for section in [Some("model"), None] {
        weights::save_torch(&path, section, &tensors).unwrap();
        let source = Checkpoint::open(&path).unwrap().source(Want::Auto).unwrap();
        assert_eq!(source.origin().section.as_deref(), section);
        for (name, t) in &tensors {
            let found = source.read(name, Device::Cpu).unwrap();
            assert_eq!((found.kind(), found.size()), (t.kind(), t.size()), "{name}");
            assert_eq!(&found, t, "{name}");
        }
        assert_eq!(weights::fingerprint(&tensors).unwrap(), weights::fingerprint_source(&*source).unwrap());
    }
    let members = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap().len();
    assert_eq!(members, 3 + tensors.len() - 1, "tied tensors are stored once");
}

#[test]
fn a_save_that_fails_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    let good = vec![("a".to_owned(), Tensor::from(1.0f32))];
    weights::save_torch(&path, None, &good).unwrap();
    let before = std::fs::read(&path).unwrap();
    let bad = vec![("a".to_owned(), Tensor::from(1.0f32)), ("a".to_owned(), Tensor::from(2.0f32))];
    assert!(weights::save_torch(&path, None, &bad).is_err());
    assert!(weights::save_safetensors(&path, &bad, &Default::default()).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_checkpoint_is_called_by_its_name() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (vec![], "is empty", "fetch it again"),
        (b"\x89PNG\r\n\x1a\n....".to_vec(), "is a PNG image", "torch.save"),
        (b"<!DOCTYPE html><html>".to_vec(), "is a web page", "gdown"),
        (lfs.to_vec(), "is a Git LFS pointer", "git lfs pull"),
        (b"hello there\n".to_vec(), "is a text file that begins with \"hello there\"", "torch.save"),
        (b"{\"a\": 1}".to_vec(), "without the `weight_map`", "weights"),
        (b"\x80\x02}q\x00.".to_vec(), "is a Python pickle", "torch.save"),
        (archive(&[("x/readme.txt", b"hi")]), "is a zip archive without `data.pkl`", "torch.save"),
        (archive(&[("arr_0.npy", b"hi")]), "is a NumPy archive", "torch.save"),
        (
            archive(&[("m/constants.pkl", b""), ("m/data.pkl", b"\x80\x02}.")]),
            "is a TorchScript program",
            "state_dict()",
        ),
        (archive(&[("m/data.pkl", b"\x80\x02}.")]), "holds no tensors", "weights"),
        (vec![0x17; 600], "is in no format known here", "torch.save"),
    ];
    for (bytes, found, advice) in cases {
        let error = open(&bytes).unwrap_err();
        assert!(error.to_string().contains(found), "{error}");
        assert!(error.hints().iter().any(|h| h.contains(advice)), "{:?}", error.hints());
    }
    let error = Checkpoint::open(&file("training_zip2.pth")).unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    assert!(error.hints()[0].contains("training_zip2.pt"), "{:?}", error.hints());
}

#[test]
fn files_cut_short_anywhere_are_errors() {
    for name in ["training_zip2.pt", "training_legacy2.pt", "expected_state.safetensors"] {
        let whole = bytes(name);
        for length in (0..whole.len()).step_by(7) {
            let error = read_all(&whole[..length]).unwrap_err();
            assert!(!error.hints().is_empty(), "{name} at {length}: {error}");
        }
    }
    let whole = bytes("training_zip2.pt");
    let error = open(&whole[..whole.len() / 2]).unwrap_err();
    assert!(error.to_string().contains("is damaged: it begins as a zip archive"), "{error}");
    assert!(error.hints()[0].contains("incomplete"));
}

#[test]
fn sections_that_are_not_there_are_listed() {
    let checkpoint = Checkpoint::open(&file("zip_state.pth")).unwrap();
    let Err(error) = checkpoint.source(Want::Ema) else { panic!("there is no ema") };
    assert!(error.to_string().contains("no weights under `ema`; it holds the top level"), "{error}");
}

/// `_rebuild_tensor_v2` over a float storage `0`, as pickle text.
fn tensor(offset: u8, shape: &[u32], stride: &[u32]) -> Vec<u8> {
    let ints = |values: &[u32]| {
        let each = values.iter().flat_map(|v| [&b"J"[..], &v.to_le_bytes()].concat());
        [b"(".to_vec(), each.collect(), b"t".to_vec()].concat()
    };
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQK".to_vec(),
        vec![offset],
        ints(shape),
        ints(stride),
        b"\x89}tR".to_vec(),
    ]
    .concat()
}

/// A tensor nested in this many parameters.
fn parameters(depth: usize) -> Vec<u8> {
    let begin = b"ctorch._utils\n_rebuild_parameter\n(".repeat(depth);
    [begin, tensor(0, &[2], &[1]), b"\x89NtR".repeat(depth)].concat()
}

/// A few bytes a call, each with the same million arguments.
fn calls_of_a_long_tuple() -> Vec<u8> {
    let tuple = [b"(".to_vec(), vec![b'N'; 1 << 20], b"tq\x00cx\ny\nq\x01".to_vec()].concat();
    [b"(".to_vec(), tuple, b"h\x01h\x00R".repeat(100_000), b"t".to_vec()].concat()
}

fn state_dict(value: &[u8]) -> Vec<u8> {
    let pickle = [b"\x80\x02}X\x01\0\0\0w", value, b"s."].concat();
    archive(&[("m/data.pkl", &pickle), ("m/data/0", &[0; 8])])
}

fn text(length: u32) -> Vec<u8> {
    [b"X".to_vec(), length.to_le_bytes().to_vec(), vec![b'a'; length as usize]].concat()
}

#[test]
fn hostile_pickles_are_refused() {
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (tensor(0, &[3], &[1]), "reaches beyond storage"),
        (tensor(1, &[2], &[1]), "reaches beyond storage"),
        (tensor(0, &[2, 2], &[u32::MAX / 2, 1]), "reaches beyond storage"),
        (tensor(0, &[1 << 30, 1 << 30, 1 << 30], &[0, 0, 0]), "out of range"),
        (tensor(0, &[1 << 30, 1 << 20], &[0, 0]), "expanded beyond measure"),
        (tensor(0, &[2], &[1, 1]), "out of range"),
        (b"X\xff\xff\xff\x7fabc".to_vec(), "ends too early"),
        (b"h\x05".to_vec(), "nothing was remembered"),
        (b"I01\n".to_vec(), "opcode 0x49 is not supported"),
        (parameters(40_000), "parameters are nested too deeply"),
        // Few bytes that encode many values: marks, copies on the stack, notes.
        (vec![b'('; 9 << 20], "too many values"),
        ([b"N".to_vec(), vec![b'2'; 9 << 20]].concat(), "too many values"),
        ([b"N".to_vec(), vec![0x94; 9 << 20]].concat(), "too many values"),
        ([text(600), text(600), vec![0x93]].concat(), "the name of a class is too long"),
    ];
    for (value, expected) in cases {
        let error = open(&state_dict(&value)).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected}: {error}");
    }
    // Values that are no tensors stop nothing; around tensors they do.
    let honest = tensor(0, &[2], &[1]);
    let laughs =
        |inner: &[u8]| (0..60).fold(inner.to_vec(), |i, _| [b"(".to_vec(), i, b"2l".to_vec()].concat());
    let deep = |inner: &[u8]| [vec![b']'; 5000], inner.to_vec(), vec![b'a'; 5000]].concat();
    let itself = |inner: &[u8]| [b"]q\x00h\x00a", inner, b"a"].concat();
    let cases = [
        (itself(b"]"), itself(&honest), "nested too deeply, or contain themselves"),
        (deep(b"]"), deep(&honest), "nested too deeply"),
        (laughs(b"]"), laughs(&honest), "repeat each other beyond measure"),
    ];
    for (plain, holding, expected) in cases {
        let both = [honest.clone(), b"sX\x01\0\0\0v".to_vec(), plain].concat();
        let checkpoint = open(&state_dict(&both)).unwrap();
        assert_eq!(values(&*checkpoint.source(Want::Auto).unwrap(), "w"), [0.0, 0.0]);
        assert!(checkpoint.not_shown()[0].1.contains(expected), "{:?}", checkpoint.not_shown());
        let checkpoint = open(&state_dict(&holding)).unwrap();
        let error = checkpoint.section(Some("w")).unwrap().read("w", Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected}: {error}");
    }
    let unnamed = open(&state_dict(b"K\x01)R")).unwrap_err().to_string();
    assert!(unnamed.contains("holds no tensors"), "{unnamed}");
    // An honest one passes, and a call is never made.
    let honest = open(&state_dict(&tensor(0, &[2], &[1]))).unwrap();
    assert_eq!(values(&*honest.source(Want::Auto).unwrap(), "w"), [0.0, 0.0]);
    let both = [tensor(0, &[2], &[1]), b"sX\x01\0\0\0v".to_vec(), calls_of_a_long_tuple()].concat();
    assert_eq!(open(&state_dict(&both)).unwrap().not_shown()[0].0, "v"); // in megabytes, not in 800 GB
    let system = b"(cos\nsystem\n(X\x05\0\0\0touchtR".to_vec();
    let call = [system, tensor(0, &[2], &[1]), b"t".to_vec()].concat();
    let checkpoint = open(&state_dict(&call)).unwrap();
    assert_eq!(checkpoint.metadata()["w"][0]["__class__"], "os.system");
}

#[test]
fn a_head_that_nests_without_end_is_refused() {
    let deep = "[".repeat(200_000);
    for head in [format!("{{\"__metadata__\":{{\"a\":{deep}"), format!("{{\"w\":{{\"shape\":{deep}")] {
        let file = [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), &[0; 8]].concat();
        let error = open(&file).unwrap_err().to_string();
        assert!(error.contains("it does not hold what its header says"), "{error}");
    }
}

#[test]
fn an_archive_that_lies_about_sizes_is_refused() {
    let mut bomb = deflated("training_zip2.pt");
    // The uncompressed size of the first member in the central directory.
    let at = bomb.windows(4).position(|w| w == b"PK\x01\x02").unwrap() + 24;
    bomb[at..at + 4].copy_from_slice(&100u32.to_le_bytes());
    let error = open(&bomb).unwrap_err().to_string();
    assert!(error.contains("should hold 100 bytes"), "{error}");
    bomb[at..at + 4].copy_from_slice(&0x7FFF_FFFFu32.to_le_bytes());
    let error = open(&bomb).unwrap_err().to_string();
    assert!(error.contains("more bytes than its compressed ones can hold"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_bytes_never_panic(
        which in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let names = [
            "training_zip2.pt",
            "training_zip4.pt",
            "training_legacy2.pt",
            "expected_state.safetensors",
            "legacy_state.pth",
        ];
        let mut bytes = bytes(names[which]);
        for (at, new) in changes {
            let at = at.index(bytes.len());
            bytes[at] = new;
        }
        let _ = read_all(&bytes);
    }

    #[test]
    fn random_pickles_never_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_all(&state_dict(&noise));
        let _ = read_all(&noise);
    }
}
