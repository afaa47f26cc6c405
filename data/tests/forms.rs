//! Every form images come in, recognised by content, and what is said about things that are no
//! images.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use base::Hint;
use data::{Dataset, Target};
use image::{ImageFormat, RgbImage};

fn png(shade: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    RgbImage::from_pixel(9, 6, image::Rgb([shade; 3])).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn put(path: PathBuf, bytes: &[u8]) -> PathBuf {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

fn targets(set: &dyn Dataset) -> Vec<Target> {
    (0..set.len()).map(|i| set.target(i)).collect()
}

fn shade(set: &dyn Dataset, i: usize) -> u8 {
    set.get(i).unwrap().image.get_pixel(0, 0).0[0]
}

fn refusal(path: &Path) -> String {
    let Err(e) = data::open(path) else { panic!("{} was opened", path.display()) };
    format!("{e}; {}", e.hints().join("; "))
}

#[test]
fn class_folders_named_by_wordnet_ids_keep_imagenets_labels() {
    let dir = tempfile::tempdir().unwrap();
    for (i, class) in ["n02099601", "n01440764"].iter().enumerate() {
        put(dir.path().join(class).join("x.png"), &png(i as u8 * 50));
    }
    let set = data::open(dir.path()).unwrap();
    assert_eq!(targets(&*set), [Target::Class(0), Target::Class(207)]);
    assert_eq!((set.key(1).as_str(), shade(&*set, 1)), ("n02099601/x.png", 0));
    assert_eq!(set.classes()[1].name, "golden retriever");

    // Any other names follow torchvision: the position in the sorted list.
    put(dir.path().join("a dog/y.png"), &png(9));
    assert_eq!(data::open(dir.path()).unwrap().classes()[1].index, 1);
    // A table overrides that.
    let table = "index\twnid\tname\n4\tn02099601\tg\n5\tn01440764\tt\n8\t\ta dog\n";
    std::fs::write(dir.path().join("classes.tsv"), table).unwrap();
    let set = data::open(dir.path()).unwrap();
    assert_eq!(targets(&*set), [Target::Class(8), Target::Class(5), Target::Class(4)]);
}

#[test]
fn shards_are_read_plain_and_gzipped_one_by_one_or_by_pattern() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (png(1), png(2), png(3));
    let first = tar(&[("t/n1/a.png", &a), ("t/n1/a.cls", b"7"), ("t/n2/b.cls", b"9\n"), ("t/n2/b.png", &b)]);
    put(dir.path().join("train-00000.tar"), &first);
    put(dir.path().join("train-00001.tar.gz"), &gzip(&tar(&[("t/n1/c.png", &c), ("t/n1/c.cls", b"7")])));
    for path in ["", "train-*", "train-{00000.tar,00001.tar.gz}"] {
        let set = data::open(&dir.path().join(path)).unwrap();
        assert_eq!(targets(&*set), [7, 9, 7].map(Target::Class), "{path}");
        assert_eq!([0, 1, 2].map(|i| shade(&*set, i)), [1, 2, 3]);
        assert_eq!((set.key(2).as_str(), set.classes().len()), ("t/n1/c", 2));
    }
    let set = data::open(&dir.path().join("train-0000{0..0}.tar")).unwrap();
    assert_eq!(set.len(), 2);
    assert!(refusal(&dir.path().join("val-*.tar")).contains("nothing matches"));

    put(dir.path().join("val-00000.tar"), &first);
    assert!(refusal(dir.path()).contains("train-, val-"), "{}", refusal(dir.path()));
}

#[test]
fn shards_carry_captions_or_take_labels_from_their_folders() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (png(1), png(2));
    let captions = put(dir.path().join("c.tar"), &tar(&[("a.png", &a), ("a.txt", "a fox\n".as_bytes())]));
    assert_eq!(targets(&*data::open(&captions).unwrap()), [Target::Caption("a fox".into())]);
    let folders =
        put(dir.path().join("f.tar"), &tar(&[("v/n02099601/a.png", &a), ("v/n01440764/b.png", &b)]));
    assert_eq!(targets(&*data::open(&folders).unwrap()), [Target::Class(207), Target::Class(0)]);
}

#[test]
fn damaged_shards_are_refused_with_their_name_and_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (png(1), png(2));
    let whole = tar(&[("a.png", &a), ("a.cls", b"7"), ("b.png", &b), ("b.cls", b"x")]);
    let at = |name: &str, bytes: &[u8]| refusal(&put(dir.path().join(name), bytes));
    assert!(at("label.tar", &whole).contains("`b.cls`: expected a class index, found \"x\""));
    assert!(at("half.tar", &whole[..520]).contains("half.tar"));
    assert!(at("half.tar.gz", &gzip(&whole)[..60]).contains("damaged gzip"));
    assert!(at("pair.tar", &tar(&[("a.cls", b"7")])).contains("no images; `a.cls`: belongs to no image"));
    assert!(
        at("mixed.tar", &tar(&[("a.png", &a), ("a.cls", b"7"), ("b.png", &b)])).contains("`b` has neither")
    );
}

#[test]
fn lists_give_paths_with_classes_or_captions() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path().join("i/a.png"), &png(1));
    put(dir.path().join("i/b.png"), &png(2));
    let at = |name: &str, text: &str| put(dir.path().join(name), text.as_bytes());
    let csv = data::open(&at("l.csv", "path,class\ni/b.png,3\n\"i/a.png\",0\n")).unwrap();
    assert_eq!(targets(&*csv), [Target::Class(3), Target::Class(0)]);
    assert_eq!([0, 1].map(|i| shade(&*csv, i)), [2, 1]);
    let lines = "{\"image_path\": \"i/a.png\", \"text\": [\"short\", \"long\"]}\n\n{\"image_path\": \"i/b.png\", \"text\": \"b\"}\n";
    let jsonl = data::open(&at("l.jsonl", lines)).unwrap();
    assert_eq!(targets(&*jsonl), ["short", "b"].map(|t| Target::Caption(t.into())));

    let e = refusal(&at("bad.csv", "path,class\ni/a.png,dog\n"));
    assert!(e.contains("line 2: expected a class index, found \"dog\""), "{e}");
    let e = refusal(&at("twice.csv", "path,class\ni/a.png,1\ni/a.png,2\n"));
    assert!(e.contains("`i/a.png` is named twice, with class 1 and with 2"), "{e}");
    let e = refusal(&at("mixed.csv", "path,class\ni/a.png,1\ni/b.png,\n"));
    assert!(e.contains("`i/b.png` has no label"), "{e}");
}

#[test]
fn what_is_no_set_of_images_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(dir.path()).contains("the folder is empty"));
    assert!(refusal(&dir.path().join("nowhere/else")).contains("no such file or folder"));
    let text = put(dir.path().join("notes.png"), b"hello");
    assert!(refusal(&text).contains("a text file beginning with \"hello\""));
    // In a folder the text file is a damaged image, found when it is read.
    let set = data::open(dir.path()).unwrap();
    assert!(set.get(0).unwrap_err().to_string().contains("`notes.png`: not an image: expected one of jpg"));
    put(dir.path().join("split/train/cat/a.png"), &png(1));
    assert!(refusal(&dir.path().join("split")).contains("open `"));
    let one = put(dir.path().join("one.png"), &png(5));
    assert_eq!(shade(&*data::open(&one).unwrap(), 0), 5);
}

/// Archives as `tar -C folder .`, `cat a.tar b.tar` and tapes make them.
#[test]
fn tars_of_other_makers_are_read_or_told() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (png(1), png(2));
    let one = [("a.png", a.as_slice()), ("a.cls", b"3")];
    let mut dotted = tar(&one);
    dotted[..7].copy_from_slice(b"./a.png");
    let sum = dotted[..148].iter().chain(&dotted[156..512]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
    dotted[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let set = data::open(&put_tar(dir.path(), "dotted.tar", dotted)).unwrap();
    assert_eq!((set.key(0).as_str(), set.target(0)), ("a", Target::Class(3)));

    let joined = [tar(&one), tar(&[("b.png", &b), ("b.cls", b"4")])].concat();
    let set = data::open(&put_tar(dir.path(), "joined.tar", joined)).unwrap();
    assert_eq!((set.len(), set.left_out().len()), (1, 1));
    assert!(set.left_out()[0].reason.contains("behind the archive's end"), "{:?}", set.left_out());

    let padded = [gzip(&tar(&one)), vec![0; 5000]].concat();
    assert_eq!(data::open(&put_tar(dir.path(), "padded.tar.gz", padded)).unwrap().len(), 1);
    let twice = [gzip(&tar(&one)[..1000]), gzip(&tar(&one)[1000..])].concat();
    assert_eq!(data::open(&put_tar(dir.path(), "twice.tar.gz", twice)).unwrap().len(), 1);
    let trailed = [gzip(&tar(&one)), b"\0\0junk".to_vec()].concat();
    assert!(refusal(&put_tar(dir.path(), "trailed.tar.gz", trailed)).contains("damaged gzip"));
    let empty = put_tar(dir.path(), "empty.tar", vec![0; 10_240]);
    assert!(refusal(&empty).contains("a tar archive without members"));

    let mut builder = tar::Builder::new(vec![]);
    for (name, bytes) in [("a.png", a.as_slice()), ("a.cls", b"1"), ("b.png", &b)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "b.cls", "a.cls").unwrap();
    let linked = refusal(&put_tar(dir.path(), "linked.tar", builder.into_inner().unwrap()));
    assert!(linked.contains("`b` has neither") && linked.contains("`b.cls`: a symbolic link"), "{linked}");
}

#[test]
fn labels_of_an_archive_are_whole_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let images = tch::Tensor::zeros([2, 3, 3, 3], (tch::Kind::Uint8, tch::Device::Cpu));
    let open = |labels: tch::Tensor| {
        base::npz::write(&path, &[("arr_0", &images), ("arr_1", &labels)]).unwrap();
        data::open(&path).map(|set| targets(&*set)).map_err(|e| e.to_string())
    };
    assert_eq!(open(tch::Tensor::from_slice(&[1f64, 2.0])).unwrap(), [1, 2].map(Target::Class));
    assert_eq!(open(tch::Tensor::from_slice(&[1u8, 2])).unwrap(), [1, 2].map(Target::Class));
    for (labels, found) in [
        (tch::Tensor::from_slice(&[1.0, 2.5]), "found 2.5"),
        (tch::Tensor::from_slice(&[1.0, f64::NAN]), "found NaN"),
        (tch::Tensor::from_slice(&[1.0, f64::INFINITY]), "found inf"),
        (tch::Tensor::from_slice(&[true, false]), "true or false"),
    ] {
        let error = open(labels).unwrap_err();
        assert!(error.contains("`arr_1`: expected class indices") && error.contains(found), "{error}");
    }
}

#[test]
fn every_member_of_a_tar_is_used_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (png(1), png(2));
    let mut builder = tar::Builder::new(vec![]);
    let mut put_member = |kind: tar::EntryType, name: &str, link: Option<&str>, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        match link {
            Some(link) => builder.append_link(&mut header, name, link).unwrap(),
            None => builder.append_data(&mut header, name, bytes).unwrap(),
        }
    };
    let file = tar::EntryType::Regular;
    put_member(file, "photo.v1.png", None, &a);
    put_member(file, "photo.v2.PNG", None, &b);
    put_member(tar::EntryType::Link, "again.png", Some("photo.v2.PNG"), &[]);
    put_member(tar::EntryType::Symlink, "far.png", Some("elsewhere.png"), &[]);
    put_member(file, "x.png", None, &a);
    put_member(file, "x.mask.png", None, &b);
    put_member(file, "x.json", None, b"{}");
    put_member(file, "x.npy", None, b"?");
    put_member(file, "._x.png", None, b"\0\x05");
    put_member(file, "lost.txt", None, b"a caption");
    let path = put_tar(dir.path(), "all.tar", builder.into_inner().unwrap());
    let set = data::open(&path).unwrap();
    let keys: Vec<String> = (0..set.len()).map(|i| set.key(i)).collect();
    assert_eq!(keys, ["photo.v1", "photo.v2", "again", "x"]);
    assert_eq!([0, 1, 2, 3].map(|i| shade(&*set, i)), [1, 2, 2, 1]);
    let mut left: Vec<(&str, &str)> = set.left_out().iter().map(|f| (f.name.as_str(), f.kind())).collect();
    left.sort();
    let expected = [
        ("._x.png", "hidden"),
        ("far.png", "a symbolic link"),
        ("lost.txt", "belongs to no image"),
        ("x.mask.png", "a part of a sample"),
        ("x.npy", "not named like an image"),
    ];
    assert_eq!(left, expected);
}

fn put_tar(dir: &Path, name: &str, bytes: Vec<u8>) -> PathBuf {
    put(dir.join(name), &bytes)
}

#[test]
fn a_key_in_two_shards_is_two_samples_and_tars_refuse_what_folders_do() {
    let dir = tempfile::tempdir().unwrap();
    for (i, shard) in ["s-0.tar", "s-1.tar"].into_iter().enumerate() {
        put_tar(dir.path(), shard, tar(&[("000.png", &png(i as u8)), ("000.cls", b"\xEF\xBB\xBF7")]));
    }
    let set = data::open(&dir.path().join("s-{0..1}.tar")).unwrap();
    assert_eq!([0, 1].map(|i| set.key(i)), ["s-0.tar/000", "s-1.tar/000"]);
    assert_eq!(targets(&*set), [7, 7].map(Target::Class));
    assert!(refusal(&dir.path().join("s-{0,0}.tar")).contains("named twice"));

    let a = png(1);
    let minus = put_tar(dir.path(), "m.tar", tar(&[("a.png", &a), ("a.cls", b"-1")]));
    assert!(refusal(&minus).contains("`a.cls`: expected a class index, found \"-1\""));
    let empty = put_tar(dir.path(), "e.tar", tar(&[("a.png", &a), ("a.txt", b" \n")]));
    assert!(refusal(&empty).contains("`a.txt`: the caption is empty"));
    // A class folder whose image has a format that is not read keeps its number.
    let shifted =
        put_tar(dir.path(), "f.tar", tar(&[("ant/x.tif", &a), ("bee/x.png", &a), ("cat/x.png", &a)]));
    assert_eq!(targets(&*data::open(&shifted).unwrap()), [1, 2].map(Target::Class));
}

#[test]
fn names_are_bytes_pipes_are_left_alone_and_companions_are_no_surprise() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    for name in [b"\xb9\xb7", b"\xc4\xf1"] {
        put(root.join(OsStr::from_bytes(name)).join("x.png"), &png(1));
    }
    put(root.join("zoo/a.png"), &png(1));
    for companion in ["a.cls", "a.txt", "a.json", "a.png.json"] {
        put(root.join("zoo").join(companion), b"1");
    }
    put(root.join("zoo/b.txt"), b"of nobody");
    let fifo = root.join("zoo/pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let set = data::open(&root).unwrap();
    // In the order of the bytes, as Python sorts them.
    assert_eq!(targets(&*set), [0, 1, 2].map(Target::Class));
    assert_eq!(set.key(1), "\\xB9\\xB7/x.png");
    let left: Vec<(&str, &str)> = set.left_out().iter().map(|f| (f.name.as_str(), f.kind())).collect();
    assert_eq!(left, [("zoo/b.txt", "not named like an image"), ("zoo/pipe.png", "cannot be read")]);
    assert!(refusal(&fifo).contains("a pipe, socket or device"));
    let captioned = put(dir.path().join("captioned/a.png"), &png(1)).with_extension("txt");
    assert!(std::process::Command::new("mkfifo").arg(&captioned).status().unwrap().success());
    let e = refusal(&dir.path().join("captioned"));
    assert!(e.contains("a.txt") && e.contains("a pipe, socket or device"), "{e}");
}

#[test]
fn sets_that_number_their_classes_differently_are_not_joined() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["a/bird", "a/cat", "b/cat", "c/bird"] {
        put(dir.path().join(class).join("x.png"), &png(1));
    }
    let set = |name: &str| data::open(&dir.path().join(name)).unwrap();
    let Err(e) = data::Joined::new(vec![set("a"), set("b")]) else { panic!("joined") };
    assert!(e.to_string().contains("class 0 is `bird` in") && e.to_string().contains("but `cat` in"), "{e}");
    assert_eq!(data::Joined::new(vec![set("a"), set("c")]).unwrap().classes().len(), 2);
}

#[test]
fn a_list_is_known_by_its_name_too_and_addresses_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| put(dir.path().join(name), text.as_bytes());
    let e = refusal(&at("l.csv", "id,label\n1,2\n"));
    assert!(e.contains("no header with one of the columns path, image_path"), "{e}");
    let e = refusal(&at("u.csv", "url,caption\nhttp://a/b.png,a dog\n"));
    assert!(e.contains("pictures are not downloaded"), "{e}");
    let utf16: Vec<u8> = "path\na.png\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(refusal(&put(dir.path().join("w"), &[&[0xFF, 0xFE], &utf16[..]].concat())).contains("UTF-16"));
}
