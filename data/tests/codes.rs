//! Stored codes: written ones read back, interrupted writing resumes, other runs' folders are
//! refused.

use std::path::Path;

use data::codes::{CodeLoader, CodeLoaderConfig, CodePlan, CodeRecord, CodeWriter, NpyWriter, TokenizerId};
use data::text_features::TextFeatureShards;
use data::{Class, open_codes};

const N: i64 = 4;

fn plan() -> CodePlan {
    let tokenizer = TokenizerId { fingerprint: "abcd".into(), codebook_size: 60_000, num_tokens: N };
    let views = vec!["center".to_owned(), "center, mirrored".to_owned()];
    CodePlan {
        tokenizer,
        views,
        records: 7,
        shard_size: 3,
        precision: "fp32".into(),
        data_fingerprint: "d".into(),
        data: "toy".into(),
    }
}

/// Codes that differ by record and view.
fn row(record: usize, view: usize) -> Vec<i64> {
    (0..N).map(|t| 50_000 + record as i64 * 100 + view as i64 * 10 + t).collect()
}

fn write(writer: &CodeWriter, shard: usize) {
    let mut pending = writer.begin(shard);
    for r in writer.range(shard) {
        writer.push(&mut pending, &[row(r, 0), row(r, 1)].concat(), r as i64 * 2, "").unwrap();
    }
    writer.write(pending).unwrap();
}

fn shards(root: &Path) {
    let writer = CodeWriter::create(root, plan()).unwrap();
    writer.missing().into_iter().for_each(|s| write(&writer, s));
    writer.finish(&[Class { index: 2, wnid: "n01".into(), name: "two".into() }]).unwrap();
}

#[test]
fn an_interrupted_run_goes_on_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let first = CodeWriter::create(dir.path(), plan()).unwrap();
    assert_eq!(first.missing(), [0, 1, 2]);
    write(&first, 1);
    assert!(first.finish(&[]).is_err());
    let Err(e) = open_codes(&[dir.path()]) else { panic!("opened an unfinished folder") };
    assert!(e.to_string().contains("has not finished"), "{e}");

    let second = CodeWriter::create(dir.path(), plan()).unwrap();
    assert_eq!(second.missing(), [0, 2]);
    shards(dir.path());
    let codes = open_codes(&[dir.path()]).unwrap();
    assert_eq!((codes.len(), codes.views(), codes.num_tokens()), (7, 2, 4));
    assert_eq!(codes.tokenizer().unwrap().fingerprint, "abcd");
    assert_eq!(codes.classes()[0].name, "two");
    for (r, v) in [(0, 0), (2, 1), (3, 0), (6, 1)] {
        assert_eq!(
            codes.read(r, v).unwrap(),
            CodeRecord { codes: row(r, v), label: r as i64 * 2, caption: String::new() }
        );
    }
}

#[test]
fn another_runs_folder_and_damaged_shards_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    shards(dir.path());
    let mut other = plan();
    other.tokenizer.fingerprint = "ef".into();
    let e = CodeWriter::create(dir.path(), other).unwrap_err().to_string();
    assert!(e.contains("differs: the tokenizer"), "{e}");

    let path = dir.path().join("codes-00001-of-00003.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let Err(e) = open_codes(&[dir.path()]) else { panic!("opened a truncated shard") };
    assert!(e.to_string().contains("codes-00001"), "{e}");

    let writer = CodeWriter::create(dir.path(), plan()).unwrap();
    assert!(writer.push(&mut writer.begin(0), &[60_000; 8], 0, "").is_err());
    assert!(writer.push(&mut writer.begin(0), &[0; 4], 0, "").is_err());
}

#[test]
fn damaged_images_leave_a_short_shard() {
    let dir = tempfile::tempdir().unwrap();
    let writer = CodeWriter::create(dir.path(), plan()).unwrap();
    (1..3).for_each(|s| write(&writer, s));
    let mut pending = writer.begin(0);
    writer.push(&mut pending, &[row(2, 0), row(2, 1)].concat(), 4, "").unwrap();
    writer.write(pending).unwrap();
    let index = writer.finish(&[]).unwrap();
    assert_eq!((index.records, index.skipped), (5, 2));
    assert_eq!(open_codes(&[dir.path()]).unwrap().read(1, 0).unwrap().codes, row(3, 0));
}

#[test]
fn the_official_layout_is_read_in_both_forms() {
    let dir = tempfile::tempdir().unwrap();
    let gigatok = dir.path().join("gigatok");
    let writer = NpyWriter::create(&gigatok, CodePlan { records: 3, ..plan() }, 256).unwrap();
    for r in 0..3 {
        assert_eq!(writer.missing(), (r..3).collect::<Vec<_>>());
        assert!(r == 0 || open_codes(&[&gigatok]).is_err_and(|e| e.to_string().contains("unfinished")));
        writer.write(r, &[row(r, 0), row(r, 1)].concat(), 5).unwrap();
    }
    writer.finish(&[]).unwrap();
    let codes = open_codes(&[&gigatok]).unwrap();
    assert_eq!((codes.len(), codes.views(), codes.num_tokens()), (3, 2, 4));
    assert_eq!(codes.read(2, 1).unwrap(), CodeRecord { codes: row(2, 1), label: 5, caption: String::new() });

    // LlamaGen: [1, A, N] and [1].
    let llamagen = dir.path().join("llamagen");
    let (c, l) = (llamagen.join("imagenet256_codes"), llamagen.join("imagenet256_labels"));
    std::fs::create_dir_all(&c).unwrap();
    std::fs::create_dir_all(&l).unwrap();
    for r in 0..3 {
        let all = [row(r, 2), row(r, 3)].concat();
        ndarray_npy::write_npy(
            c.join(format!("{r}.npy")),
            &ndarray::Array::from_shape_vec((1, 2, 4), all).unwrap(),
        )
        .unwrap();
        ndarray_npy::write_npy(l.join(format!("{r}.npy")), &ndarray::arr1(&[5i64])).unwrap();
    }
    let joined = open_codes(&[&gigatok, &llamagen]).unwrap();
    assert_eq!(joined.views(), 4);
    assert_eq!(joined.read(1, 3).unwrap().codes, row(1, 3));

    std::fs::remove_file(c.join("1.npy")).unwrap();
    let Err(e) = open_codes(&[&llamagen]) else { panic!("opened a layout with a gap") };
    assert!(e.to_string().contains("`1.npy` is missing"), "{e}");
}

#[test]
fn resuming_the_code_loader_equals_not_stopping_and_views_vary() {
    let dir = tempfile::tempdir().unwrap();
    shards(dir.path());
    let load =
        || CodeLoader::new(open_codes(&[dir.path()]).unwrap(), CodeLoaderConfig::training(3, 5)).unwrap();
    let read = |l: &mut CodeLoader| {
        let batch = l.next().unwrap().unwrap();
        (Vec::<i64>::try_from(batch.codes.into_tensor().flatten(0, -1)).unwrap(), batch.labels)
    };
    let mut unbroken = load();
    let all: Vec<_> = (0..9).map(|_| read(&mut unbroken)).collect();
    let mut first = load();
    (0..5).for_each(|_| drop(read(&mut first)));
    let mut second = load();
    second.restore(first.state()).unwrap();
    assert_eq!((5..9).map(|_| read(&mut second)).collect::<Vec<_>>(), all[5..]);
    // Tens digit: the view. Both occur, and each row fits its label.
    let rows = || all.iter().flat_map(|(c, l)| c.chunks(4).zip(l));
    assert!([0, 1].iter().all(|v| rows().any(|(c, _)| (c[0] / 10) % 10 == *v)));
    assert!(rows().all(|(c, l)| (c[0] - 50_000) / 100 * 2 == *l));

    let mut once = CodeLoader::new(open_codes(&[dir.path()]).unwrap(), CodeLoaderConfig::once(4)).unwrap();
    assert_eq!([read(&mut once).1.len(), read(&mut once).1.len()], [4, 3]);
    assert!(once.next().unwrap().is_none());
}

/// Opens a finished folder after a change to one of its files.
fn refusal(file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let dir = tempfile::tempdir().unwrap();
    shards(dir.path());
    let path = dir.path().join(file);
    std::fs::write(&path, change(std::fs::read(&path).unwrap())).unwrap();
    let Err(e) = open_codes(&[dir.path()]) else { panic!("{file} was opened") };
    e.to_string()
}

/// Text features of two captions with this shape and these offsets of `features`, and these numbers
/// as their ends.
fn text_features(shape: &str, offsets: &str, ends: [i64; 2]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let index = r#"{"encoder":{"fingerprint":"a","width":2,"length":5,"clean":true,"precision":"fp32"},"captions":2,
        "data":"x","shards":[{"file":"text.safetensors","records":2}]}"#;
    std::fs::write(dir.path().join("index.json"), index).unwrap();
    let head = format!(
        r#"{{"features":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}},
        "feature_ends":{{"dtype":"I64","shape":[2],"data_offsets":[24,40]}},
        "captions":{{"dtype":"U8","shape":[3],"data_offsets":[56,59]}},
        "caption_ends":{{"dtype":"I64","shape":[2],"data_offsets":[40,56]}}}}"#
    );
    let values = [
        &[0; 24][..],
        &ends.map(i64::to_le_bytes).concat(),
        &1i64.to_le_bytes(),
        &3i64.to_le_bytes(),
        b"abc",
    ];
    let file = [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), &values.concat()].concat();
    std::fs::write(dir.path().join("text.safetensors"), file).unwrap();
    match TextFeatureShards::open(dir.path()) {
        Ok(texts) => format!("{:?}", texts.get("bc").unwrap().unwrap().size()),
        Err(e) => e.to_string(),
    }
}

#[test]
fn hostile_text_features_are_refused_before_anything_is_allocated() {
    assert_eq!(text_features("[3,2]", "[0,24]", [1, 3]), "[2, 2]");
    for (shape, offsets, ends) in [
        ("[9223372036854775807,2]", "[0,24]", [1, i64::MAX]),
        ("[4611686018427387907,2]", "[0,24]", [1, 3]), // 24 bytes modulo 2^64
        ("[3,2]", "[-24,0]", [1, 3]),
        ("[3,2]", "[16,40]", [1, 3]),
        ("[3,2]", "[0,18446744073709551615]", [1, 3]),
        ("[3,2]", "[0,24]", [-1, 3]),
        ("[3,2]", "[0,24]", [i64::MIN, 3]),
        ("[3,2]", "[0,24]", [4, 3]),
    ] {
        let message = text_features(shape, offsets, ends);
        assert!(message.contains("text.safetensors"), "{shape} {offsets} {ends:?}: {message}");
    }
}

#[test]
fn hostile_sizes_are_refused_before_anything_is_allocated() {
    let replaced = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replacen(from, to, 1).into_bytes()
    };
    let index = |from, to| refusal("index.json", replaced(from, to));
    assert!(index("\"num_tokens\": 4", "\"num_tokens\": -1").contains("must be positive"));
    assert!(index("codes-00000", "../codes-00000").contains("not a file of this folder"));
    let shard = |head: &str| {
        let head = head.to_owned();
        refusal("codes-00000-of-00003.safetensors", move |_| {
            [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), &[0; 64]].concat()
        })
    };
    let tensor = |shape: &str, offsets: &str| {
        shard(&format!("{{\"codes\":{{\"dtype\":\"U16\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"))
    };
    for (shape, offsets) in [
        ("[3,2,4]", "[-1,47]"),
        ("[3,2,4]", "[8,56]"),
        ("[9223372036854775807,2,4]", "[0,64]"),
        ("[4611686018427387904,2,4]", "[0,18446744073709551552]"),
    ] {
        let message = tensor(shape, offsets);
        assert!(message.contains("codes-00000-of-00003.safetensors"), "{message}");
    }
    let long = refusal("codes-00000-of-00003.safetensors", |mut bytes| {
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        bytes
    });
    assert!(long.contains("its header claims 18446744073709551615 bytes"), "{long}");
}

/// JSON that nests without end, as a value of a key that is skipped and of one that is read.
#[test]
fn json_that_nests_without_end_is_refused() {
    let deep = "[".repeat(200_000);
    let index = refusal("index.json", |_| deep.clone().into_bytes());
    assert!(index.contains("index.json"), "{index}");
    for head in [format!("{{\"__metadata__\":{{\"a\":{deep}"), format!("{{\"codes\":{{\"shape\":{deep}")] {
        let shard = refusal("codes-00000-of-00003.safetensors", |_| {
            [&(head.len() as u64).to_le_bytes()[..], head.as_bytes()].concat()
        });
        assert!(shard.contains("codes-00000-of-00003.safetensors"), "{shard}");
    }
}

#[test]
fn views_whose_classes_are_numbered_otherwise_are_not_joined() {
    let dir = tempfile::tempdir().unwrap();
    for (folder, name) in [("a", "ant"), ("b", "bee")] {
        let writer = CodeWriter::create(&dir.path().join(folder), plan()).unwrap();
        writer.missing().into_iter().for_each(|s| write(&writer, s));
        writer.finish(&[Class { index: 2, wnid: String::new(), name: name.into() }]).unwrap();
    }
    let Err(e) = open_codes(&[&dir.path().join("a"), &dir.path().join("b")]) else { panic!("joined") };
    assert!(e.to_string().contains("class 2 is `ant` in") && e.to_string().contains("but `bee` in"), "{e}");
}

#[test]
fn the_official_layout_is_read_in_numpys_orders_and_kinds_and_deep_heads_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let npy = |dict: &str, data: &[u8]| {
        let head = [b"\x93NUMPY\x01\x00", &(dict.len() as u16).to_le_bytes()[..], dict.as_bytes()].concat();
        [head, data.to_vec()].concat()
    };
    let put = |file: &str, bytes: Vec<u8>| {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let fortran = "{'descr': '<u2', 'fortran_order': True, 'shape': (2, 3), }\n";
    put("x_codes/0.npy", npy(fortran, &[1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6, 0]));
    let label = "{'descr': '<i4', 'fortran_order': False, 'shape': (1L,), }\n";
    put("x_labels/0.npy", npy(label, &7i32.to_le_bytes()));
    let record = open_codes(&[dir.path()]).unwrap().read(0, 1).unwrap();
    assert_eq!((record.codes, record.label), (vec![4, 5, 6], 7));
    let deep = format!("{{'descr': '<u2', 'fortran_order': False, 'shape': {}", "(".repeat(20_000));
    put("x_codes/0.npy", npy(&deep, &[]));
    let Err(e) = open_codes(&[dir.path()]) else { panic!("opened") };
    assert!(e.to_string().contains("its head is not that of an array"), "{e}");
}
