//! Scores over another network than Inception, and whether a classifier names images right.

use backbones::{PerceptualConfig, PerceptualDistance};
use base::npz::Npz;
use tch::{Kind, Tensor};

use super::{names, near, picture, place, value};
use crate::common::{Place, Tiny, stderr, write_model};

const NET: &str = "--network efficientnet-lite0 --network-weights random:11 --network-input stored";

/// Five images of tench, three of golden retrievers, and their reference of other pixels.
fn classes(place: &Place) {
    for (folder, noise) in [("data", 1), ("real", 5)] {
        for (class, images) in [("n01440764", 0..5), ("n02099601", 5..8)] {
            for i in images {
                picture(place, &format!("{folder}/{class}/{i}.png"), (40, 32), i * i, noise);
            }
        }
    }
}

#[test]
fn other_networks_scores_are_never_called_fid() {
    let place = place(6);
    let metrics = "--metrics fid,sfid,kid,is,precision,coverage --kid-subset-size 4 --neighbours 2";
    let report = place.json(&format!("a --reference b {metrics} {NET} --report r.html"), 0);
    let expected = [
        "frechet_distance",
        "frechet_distance_of_places",
        "classifier_score",
        "precision",
        "recall",
        "density",
        "coverage",
        "precision_prdc",
        "recall_prdc",
        "kernel_distance",
    ];
    assert_eq!(names(&report), expected);
    assert!(value(&report, "frechet_distance") > 0.0);
    let said = place.said(&format!("a --reference b {metrics} {NET}"), 0);
    let page = std::fs::read_to_string(place.path("r.html")).unwrap();
    for text in [&said, &page] {
        assert!(text.contains("Fréchet distance (efficientnet-lite0)"), "{text}");
        assert!(text.contains("precision (efficientnet-lite0)"), "{text}");
        assert!(!text.contains("fid "), "{text}");
    }

    // Stored statistics, and features in files, are the same.
    place.json(&format!("stats b --kind other -o b.npz {NET}"), 0);
    let stored = place.json(&format!("a --reference b.npz --metrics fid,sfid {NET}"), 0);
    for name in &expected[..2] {
        near(value(&stored, name), value(&report, name), 1e-6 * value(&report, name));
    }
    let weights = "--network efficientnet-lite0 --weights random:11 --input-path stored";
    for folder in ["a", "b"] {
        assert!(place.other(&format!("features {folder} {weights} -o {folder}f.npz")).status.success());
    }
    let files = place.json("--features af.npz --reference-features bf.npz", 0);
    assert!(!names(&files).contains(&"fid"), "{files}");
    near(value(&files, "frechet_distance"), value(&report, "frechet_distance"), 1e-3);

    // Statistics of unknown origin count as Inception's.
    let sigma = Tensor::eye(4, (Kind::Double, tch::Device::Cpu));
    base::npz::write(&place.path("s.npz"), &[("mu", &sigma.get(0)), ("sigma", &sigma)]).unwrap();
    let message = place.fails(&format!("a --reference s.npz --metrics fid {NET}"));
    assert!(message.contains("public Inception") && message.contains("efficientnet-lite0"), "{message}");
    let message = place.fails("a --reference b --metrics fid,is --network dinov2-s14");
    assert!(message.contains("`is` reads logits") && message.contains("dinov2-s14"), "{message}");
    let message = place.fails("a --metrics class_agreement --network inception-fid");
    assert!(message.contains("ImageNet-1k"), "{message}");
    let report =
        place.json("a --reference b --metrics precision --network dinov2-s14 --network-weights random:1", 0);
    assert_eq!(report["values"][0]["network"]["network"], "dinov2-s14");
}

#[test]
fn the_perceptual_distance_is_that_of_training_and_named_by_its_network() {
    let place = place(3);
    let line = "a --reference b --metrics psnr,perceptual --perceptual-weights random:5";
    let report = place.json(&format!("{line} --report r.html"), 0);
    let config =
        PerceptualConfig { weights: Some("random:5".parse().unwrap()), ..PerceptualConfig::default() };
    let network = PerceptualDistance::open(&config, tch::Device::Cpu, base::Precision::Fp32).unwrap();
    let open = |name: String| {
        let image = image::open(place.path(&name)).unwrap().to_rgb8();
        let nhwc = Tensor::from_slice(image.as_raw()).view([1, 16, 20, 3]);
        base::ImagesU8::new(nhwc.permute([0, 3, 1, 2]).contiguous()).unwrap().to_float().into_tensor()
    };
    let of_pair = |i| {
        let (a, b) = (open(format!("a/{i:06}.png")), open(format!("b/{i:06}.png")));
        network.distance(&b, &a).double_value(&[0])
    };
    let expected = (0..3).map(of_pair).sum::<f64>() / 3.0;
    near(value(&report, "perceptual"), expected, 1e-5);
    assert_eq!(report["values"][1]["network"]["layer"], "blocks 0, 2, 4, 7, 10");
    assert!(place.said(line, 0).contains("perceptual (efficientnet-lite0)"));
    let page = std::fs::read_to_string(place.path("r.html")).unwrap();
    assert!(page.contains("perceptual of single images"));
    assert!(
        place
            .fails("a --reference b --metrics perceptual --perceptual dinov2-s14")
            .contains("efficientnet-lite4")
    );
    let same = place.json("a --reference a --metrics perceptual --perceptual-weights random:5", 0);
    assert_eq!(value(&same, "perceptual"), 0.0);
}

/// Shares computed by hand, from the logits of `gen features`: top 1 and top 5 among all classes,
/// top 1 among tench and golden retriever.
fn by_hand(place: &Place) -> [f64; 3] {
    let weights = "--network efficientnet-lite0 --weights random:11 --input-path stored";
    assert!(place.other(&format!("features data {weights} -o f.npz")).status.success());
    let logits = Npz::open(&place.path("f.npz")).unwrap().read("logits").unwrap();
    let mut shares = [0.0; 3];
    for (i, label) in [0, 0, 0, 0, 0, 207, 207, 207].into_iter().enumerate() {
        let row = Vec::<f32>::try_from(logits.get(i as i64)).unwrap();
        let mine = row[label];
        let above = row.iter().filter(|&&v| v > mine).count();
        let other = row[207 - label];
        let right = [above < 1, above < 5, mine > other];
        shares.iter_mut().zip(right).for_each(|(share, right)| *share += f64::from(u8::from(right)) / 8.0);
    }
    shares
}

#[test]
fn images_in_class_folders_are_named_right_or_wrong() {
    let place = place(0);
    classes(&place);
    let line = format!("data --metrics class_agreement {NET}");
    let report = place.json(&line, 0);
    let [top1, top5, among] = by_hand(&place);
    near(value(&report, "class_agreement"), top1, 1e-12);
    near(value(&report, "class_agreement_top5"), top5, 1e-12);
    near(value(&report, "class_agreement_among"), among, 1e-12);
    near(value(&report, "class_agreement_among_top5"), 1.0, 1e-12);
    let rows = report["class_agreement"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let right: f64 = rows.iter().map(|row| row["among_top1"].as_f64().unwrap()).sum();
    near(right, 8.0 * among, 1e-9);
    assert!(rows[0]["name"] == "tench" || rows[0]["name"] == "golden retriever", "{report}");
    let half = rows.iter().filter(|r| 2 * r["among_top1"].as_u64().unwrap() >= r["images"].as_u64().unwrap());
    assert_eq!(value(&report, "class_agreement_half"), half.count() as f64);

    // With the reference's own agreement beside it, in parts, on a page; with fewer or more
    // classes.
    for k in 0..3 {
        place.ok(&format!("{line} --reference real --shard {k}/3 --partial part{k}"));
    }
    let merged = place.json(&format!("{line} --reference real --merge part0 part1 part2 --report r.html"), 0);
    assert_eq!(value(&merged, "class_agreement_among"), value(&report, "class_agreement_among"));
    let ceiling = place.json(&format!("real --metrics class_agreement {NET}"), 0);
    for suffix in ["", "_top5", "_among", "_half"] {
        let name = format!("class_agreement{suffix}");
        assert_eq!(value(&merged, &format!("reference_{name}")), value(&ceiling, &name), "{name}");
    }
    let page = std::fs::read_to_string(place.path("r.html")).unwrap();
    for part in
        ["Best", "Worst", "207 golden retriever", "of the reference", "class_agreement (efficientnet-lite0)"]
    {
        assert!(page.contains(part), "{part}");
    }
    let wide = place.json(&format!("{line} --among 0-9,207"), 0);
    assert!(wide["values"][2]["variant"].as_str().unwrap().contains("11 classes"), "{wide}");
    assert!(place.fails(&format!("{line} --among 0-9")).contains("207 golden retriever"));
    assert!(place.fails("data --metrics psnr --reference data --among 0-9").contains("class_agreement"));

    picture(&place, "flat/0.png", (16, 16), 0, 0);
    let message = place.fails(&format!("flat --metrics class_agreement {NET}"));
    assert!(message.contains("`flat`") && message.contains("class folders"), "{message}");
    let out = place.run(&format!("{line} --reference flat --resize 16"));
    assert!(stderr(&out).contains("own agreement is not computed"), "{}", stderr(&out));
    picture(&place, "odd/tabletop/0.png", (16, 16), 0, 0);
    assert!(place.fails(&format!("odd --metrics class_agreement {NET}")).contains("tabletop"));
}

#[test]
fn samples_live_or_in_a_folder_and_reconstructions_have_their_classes() {
    let place = place(0);
    write_model(&place.path("model"), Tiny::default());
    let network = NET.replace("stored", "pil");
    let drawn = "--model model --num-images 6 --balanced --seed 3";
    let live = place.json(&format!("{drawn} --metrics class_agreement {network}"), 0);
    assert!(place.other(&format!("sample {drawn} -o made --rng image")).status.success());
    let folder = place.json(&format!("made --metrics class_agreement {network}"), 0);
    assert_eq!(live["class_agreement"], folder["class_agreement"]);
    let drawn: Vec<_> = folder["class_agreement"].as_array().unwrap().iter().map(|r| &r["images"]).collect();
    assert_eq!(drawn, [2, 2, 2]);

    classes(&place);
    let report = place.json(
        &format!(
            "--reconstruct data --tokenizer model --metrics class_agreement,fid {network} --report r.html"
        ),
        0,
    );
    let ceiling = place.json(&format!("data --resize 16 --metrics class_agreement {network}"), 0);
    let (own, of_originals) = (value(&ceiling, "class_agreement_among"), "reference_class_agreement_among");
    assert_eq!(value(&report, of_originals), own);
    assert_eq!(names(&report)[0], "frechet_distance");
}
