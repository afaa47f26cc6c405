//! Properties of training that hold for every task.

mod common;

use std::path::PathBuf;

use base::Hint;
use common::{ar_recipe, ar_task, distance, go, images, logged, open_tokenizer, tokenizer_task};
use dist::World;
use train::tasks::TokenizerRecipe;
use train::{Error, Recipe as _, Share, Task, TrainingData as _};

const NO_ADVERSARY: [&str; 2] = ["losses.adversarial=null", "model.quantizer.entropy=0.0"];

#[test]
fn two_micro_batches_equal_one_batch() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, a, b) = (images(dir.path()), dir.path().join("a"), dir.path().join("b"));
    let mut changes = NO_ADVERSARY.to_vec();
    changes.push("optimization.steps=3");
    go(tokenizer_task(&data, &changes), &a, 100).unwrap();
    changes.push("optimization.micro_batches=2");
    go(tokenizer_task(&data, &changes), &b, 100).unwrap();
    for key in ["l2", "codebook", "feature", "grad_norm"] {
        for (x, y) in logged(&a, key).into_iter().zip(logged(&b, key)) {
            assert!((x - y).abs() <= 1e-3 * x.abs(), "{key}: {x} and {y}");
        }
    }
    assert!(distance(&a, &b) < 1e-3, "{}", distance(&a, &b));
}

#[test]
fn both_models_learn_a_small_set() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, t, a) = (images(dir.path()), dir.path().join("t"), dir.path().join("a"));
    let mut changes = NO_ADVERSARY.to_vec();
    changes.extend(["optimization.steps=60", "optimization.lr=0.01", "every.save=0"]);
    go(tokenizer_task(&data, &changes), &t, 100).unwrap();
    let l2 = logged(&t, "l2");
    assert!(l2[59] < 0.7 * l2[0], "{} → {}", l2[0], l2[59]);
    let images = format!("data.images.train={}", data.display());
    let held_out = format!("data.images.validation={}", data.display());
    let changes =
        [images.as_str(), &held_out, "optimization.steps=60", "every.save=0", "optimization.ema=null"];
    go(ar_task(&t, &changes), &a, 100).unwrap();
    let loss = logged(&a, "loss");
    assert!((loss[0] - 32f64.ln()).abs() < 1e-3, "the first loss is that of a uniform guess: {}", loss[0]);
    assert!(loss[59] < 0.8 * loss[0], "{} → {}", loss[0], loss[59]);
    assert!(logged(&a, "validation/loss")[0] < 0.8 * loss[0]);
    let classes = std::fs::read_to_string(a.join("classes.tsv")).unwrap();
    assert_eq!(classes, "index\twnid\tname\n1\tn01443537\tgoldfish\n207\tn02099601\tgolden retriever\n");
    ar_model::open_dir(&a, tch::Device::Cpu, base::Precision::Fp32).unwrap();
}

/// The quantizer has nothing to learn and no losses; its grid is the transformer's vocabulary.
#[test]
fn a_tokenizer_with_fsq_learns_and_a_transformer_takes_its_codes() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, t, a) = (images(dir.path()), dir.path().join("t"), dir.path().join("a"));
    let held_out = format!("data.validation={}", data.display());
    let changes = [
        "losses.adversarial=null",
        "model.quantizer={type: fsq, levels: [5, 4, 3]}",
        "optimization.steps=40",
        "optimization.lr=0.01",
        "every.save=0",
        &held_out,
    ];
    go(tokenizer_task(&data, &changes), &t, 100).unwrap();
    let l2 = logged(&t, "l2");
    assert!(l2[39] < 0.8 * l2[0], "{} → {}", l2[0], l2[39]);
    assert!(logged(&t, "codebook").is_empty() && logged(&t, "commitment").is_empty());
    let usage = logged(&t, "validation/codebook_usage")[0];
    assert!(usage > 1.0 / 60.0 && usage <= 1.0, "{usage}");
    let tokenizer = open_tokenizer(&t);
    assert!(tokenizer.vars.all().iter().all(|v| !v.name.starts_with("quantize.")));
    assert_eq!(ar_recipe(&[], &tokenizer).unwrap().model.vocab_size, 60);
    let images = format!("data.images.train={}", data.display());
    go(ar_task(&t, &[&images, "optimization.steps=20", "every.save=0"]), &a, 100).unwrap();
    let loss = logged(&a, "loss");
    assert!((loss[0] - 60f64.ln()).abs() < 1e-3 && loss[19] < loss[0], "{} → {}", loss[0], loss[19]);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_by_name() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, a) = (images(dir.path()), dir.path().join("a"));
    let changes = ["optimization.lr=1e30", "optimization.warmup=0", "every.save=1"];
    let error = go(tokenizer_task(&data, &changes), &a, 100).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { step: 2, what, .. } if what.contains("loss `")), "{error}");
    assert!(!error.hints().is_empty());
    let (saved, _) = train::TrainCheckpoint::newest(&a).unwrap();
    assert_eq!(saved.step, 1);
}

#[test]
fn a_recipe_for_another_tokenizer_is_refused() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, t) = (images(dir.path()), dir.path().join("t"));
    go(tokenizer_task(&data, &["optimization.steps=2"]), &t, 100).unwrap();
    let tokenizer = open_tokenizer(&t);
    let error = ar_recipe(&["model.vocab_size=100"], &tokenizer).unwrap_err().to_string();
    assert!(error.contains("`model.vocab_size` is 100, but the tokenizer's is 32"), "{error}");
    let error = train::tasks::ArTask::new(ar_recipe(&[], &tokenizer).unwrap(), tokenizer, tch::Device::Cpu);
    assert!(error.err().unwrap().to_string().contains("--codes"));
}

/// A folder for each class, with an image in it.
fn class_folders(root: PathBuf, classes: [&str; 2]) -> PathBuf {
    for class in classes {
        std::fs::create_dir_all(root.join(class)).unwrap();
        image::RgbImage::new(20, 18).save(root.join(class).join("0.png")).unwrap();
    }
    root
}

#[test]
fn held_out_images_whose_classes_are_numbered_otherwise_are_refused() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, t) = (images(dir.path()), dir.path().join("t"));
    let train = class_folders(dir.path().join("train"), ["ant", "bee"]);
    let held_out = class_folders(dir.path().join("held-out"), ["bee", "cat"]);
    let refusal = |e: Option<Error>| {
        let e = e.expect("refused");
        assert!(!e.hints().is_empty(), "{e}");
        e.to_string()
    };
    let recipe = format!(
        "{{seed: 0, model: {{image_size: 16, widths: [4]}}, data: {{train: {}, validation: {}, crop: {{type: center}}, \
         flip: false, workers: 1, max_corrupt: 0}}, optimization: {{steps: 1, batch_size: 2, lr: 1.0e-3, warmup: 0, \
         schedule: {{type: constant}}, adamw: {{betas: [0.9, 0.95], weight_decay: 0.0, decay: all}}, clip: 0.0, \
         ema: null, precision: fp32}}, every: {{log: 1, validate: 1, save: 1}}}}",
        train.display(),
        held_out.display()
    );
    let document = base::config::Document::parse("features", &recipe).unwrap();
    let recipe = train::tasks::FeaturesRecipe::from_document(&document, &[]).unwrap();
    let said = refusal(train::tasks::FeaturesTask::new(recipe, tch::Device::Cpu).err());
    assert_eq!(said, "class 0 is `ant` in the training data, but `bee` in the validation data");

    go(tokenizer_task(&data, &["optimization.steps=1", "optimization.warmup=0"]), &t, 1).unwrap();
    let tokenizer = open_tokenizer(&t);
    let sets = [
        format!("data.images.train={}", train.display()),
        format!("data.images.validation={}", held_out.display()),
        "optimization.batch_size=2".to_owned(),
    ];
    let recipe = ar_recipe(&sets.each_ref().map(String::as_str), &tokenizer).unwrap();
    let said = refusal(train::tasks::ArTask::new(recipe, tokenizer, tch::Device::Cpu).err());
    assert_eq!(said, "class 0 is `ant` in the training data, but `bee` in the validation data");
}

#[test]
fn recipes_that_lack_something_or_contradict_themselves_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let lpips = "losses.perceptual={type: lpips, weight: 1.0, trunk: null, heads: null}";
    let dino = "losses.adversarial.discriminator={type: dino}";
    for (change, key) in
        [(lpips, "losses.perceptual.trunk"), (dino, "losses.adversarial.discriminator.weights")]
    {
        let error = common::try_tokenizer_task(&data, &[change]).expect_err(change);
        assert!(
            error.to_string().contains(key) && error.hints()[0].contains(&format!("{key}=FILE")),
            "{error}"
        );
    }
    let teacher = "losses.semantic={weight: 0.5, teacher: {type: dinov2, size: s, weights: random:1}}";
    let cases: [(&[&str], &str); 28] = [
        (
            &["losses.semantic={weight: 0.5, teacher: {type: efficientnet_lite, size: lite0, block: 99}}"],
            "0 to 15, found [99]",
        ),
        (
            &["losses.perceptual={type: efficientnet_lite, weight: 1.0, weights: 'random:1', shift: 8}"],
            "0 to 7",
        ),
        (&["model.vision={size: lite0, block: 4, upsample: 2}"], "add `vision` to `freeze`"),
        (&["losses.semantic={weight: 0.5, teacher: {type: vision}}"], "the model has no `vision`"),
        (
            &["losses.adversarial.adaptive=true", "losses.l2=0.0", "losses.l1=0.0"],
            "needs a reconstruction loss",
        ),
        (&[teacher, "model.alignment=null"], "the model aligns no layer"),
        (&[teacher, "model.alignment.width=100"], "the teacher's features have width 384"),
        (&["losses.adversarial.gamma=1.0"], "gamma is R3GAN's only"),
        (
            &["losses.adversarial.lecam={}", "losses.adversarial.loss=r3gan"],
            "mean nothing to a relative loss",
        ),
        (&["losses.adversarial.diffaug={cutout: 2.0}"], "probability and cutout are in [0, 1]"),
        (&["losses.adversarial.discriminator={type: stylegan}", "model.image_size=24"], "a power of two"),
        (
            &["losses.adversarial.discriminator={type: projected, image_size: 100}"],
            "image_size must be a multiple of 32",
        ),
        (&["optimization.clip=.nan"], "optimization.clip must be 0 or more, found NaN"),
        (&["data.crop.min_fraction=0.0"], "data.crop.min_fraction must be above 0"),
        (&["init={weight_std: -0.1}"], "init.weight_std must be 0 or more"),
        (&["losses.l2=-1.0"], "losses.l2 must be 0 or more"),
        (&["losses.auxiliary.feature_weight=.inf"], "losses.auxiliary.feature_weight must be 0 or more"),
        (&["losses.adversarial.weight=.nan"], "losses.adversarial.weight must be 0 or more"),
        (&["losses.adversarial.lecam={weight: -0.1}"], "losses.adversarial.lecam.weight must be"),
        (&["losses.adversarial.optimization={lr: .inf}"], "optimization: lr must be positive"),
        (&["model.quantizer.commitment=-0.25"], "quantizer.commitment must be 0 or more"),
        (&["model.quantizer.entropy=-0.02"], "quantizer.entropy must be 0 or more"),
        (&["model.quantizer={type: fsq, levels: [8, 1]}"], "quantizer.levels must be 2 or more each"),
        (&["losses.adversarial.optimization={}"], "give lr, betas or both"),
        (&["losses.adversarial.optimization={betas: [0.0, 1.0]}"], "betas are in [0, 1)"),
        (&["init.icnr=true", "model.cnn.upsample=nearest"], "the decoder has no sub-pixel convolution"),
        (&["losses.adversarial.discriminator.layers=6"], "3 pixels after halving them once a layer"),
        (
            &["losses.adversarial.adaptive=true", "freeze=[decoder]"],
            "which `freeze` keeps as it is (`decoder`)",
        ),
    ];
    for (changes, expected) in cases {
        let error = common::try_tokenizer_task(&data, changes).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn sub_pixel_positions_begin_alike_where_the_recipe_says_so() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    for icnr in [false, true] {
        let cnn = "model.cnn={channels: 8, norm_groups: 4, encoder_multipliers: [1, 1], decoder_multipliers: [1, 1], \
                   res_blocks: 1, z_channels: 8, attention: false, adaptive_norm: true, upsample: depth_to_space, stem: 2}";
        let init = format!("init={{icnr: {icnr}, weight_std: 0.06}}");
        let task = common::tokenizer_task(&data, &[cnn, &init]);
        let weight = |name: &str| task.vars().get(name).unwrap();
        let up = weight("decoder.conv_blocks.0.upsample.conv1.weight"); // (4·8, 8, 3, 3), positions outside
        let out = weight("decoder.conv_out.weight"); // (3·4, 8, 3, 3), positions inside
        let pairs = [(up.narrow(0, 0, 8), up.narrow(0, 24, 8)), (out.narrow(0, 4, 1), out.narrow(0, 7, 1))];
        assert!(pairs.iter().all(|(a, b)| (a == b) == icnr), "{icnr}");
        assert!((up.std(false).double_value(&[]) - 0.06).abs() < 0.006);
    }
}

#[test]
fn a_discriminator_may_have_a_rate_of_its_own_and_the_generator_hears_of_it_by_and_by() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let own = "losses.adversarial.optimization={lr: 1.0e-4, betas: [0.0, 0.99]}";
    let always = "losses.adversarial.start_step=1";
    go(tokenizer_task(&data, &[own, always]), dir.path(), 100).unwrap();
    let (lr, theirs) = (logged(dir.path(), "lr"), logged(dir.path(), "discriminator/lr"));
    assert_eq!(lr.len(), 7);
    for (a, b) in lr.iter().zip(&theirs) {
        assert!((b / a - 0.1).abs() < 1e-9, "{a} {b}");
    }

    let totals = |warmup: &str| {
        let mut task = tokenizer_task(&data, &[always, warmup]);
        let mut batch = task.batch().unwrap();
        [1, 2, 4].map(|step| {
            tch::manual_seed(1);
            let losses = task.losses(&mut batch, 0, step).unwrap();
            let of = |name: &str| losses.terms().iter().find(|t| t.0 == name).map(|t| t.1.double_value(&[]));
            let adversarial = of("adversarial").unwrap() + of("direct_adversarial").unwrap_or(0.0);
            (losses.total().unwrap().double_value(&[]), adversarial)
        })
    };
    let (at_once, slowly) = (totals("losses.adversarial.warmup=0"), totals("losses.adversarial.warmup=4"));
    for ((with, term), (without, _), share) in
        at_once.iter().zip(&slowly).zip([0.25, 0.5, 1.0]).map(|((a, b), c)| (a, b, c))
    {
        assert!(
            ((with - without) - 0.1 * (1.0 - share) * term).abs() < 1e-5,
            "{share}: {with} {without} {term}"
        );
    }
}

#[test]
fn layers_run_twice_give_the_gradients_of_layers_run_once() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, t) = (images(dir.path()), dir.path().join("t"));
    go(tokenizer_task(&data, &["optimization.steps=2"]), &t, 100).unwrap();
    let images = format!("data.images.train={}", data.display());
    let dropout =
        "model.dropout={token: 0.2, residual: 0.2, feed_forward: 0.2, drop_path: 0.3, condition: 0.5}";
    for precision in ["optimization.precision=fp32", "optimization.precision=bf16"] {
        let mut task = ar_task(&t, &[&images, dropout, precision, "recompute=true", "model.layers=3"]);
        // A trained head, so that gradients reach the layers.
        let mut output = task.vars().get("output.weight").unwrap();
        let _ = output.normal_(0.0, 0.5);
        task.vars().set_requires_grad(true);
        let params: Vec<tch::Tensor> = task.vars().parameters().into_iter().map(|v| v.tensor).collect();
        let mut batch = task.batch().unwrap();
        tch::manual_seed(4);
        let losses = task.losses(&mut batch, 0, 1).unwrap();
        let once = tch::Tensor::run_backward(&[losses.total().unwrap() * 0.5], &params, false, false);
        tch::manual_seed(4);
        let (again, twice) = task.recomputed(&mut batch, &params, 0.5).unwrap().unwrap();
        let value = |l: &train::Losses| l.terms()[0].1.double_value(&[]);
        assert!((value(&losses) - value(&again)).abs() < 1e-6);
        for (v, (a, b)) in task.vars().parameters().iter().zip(once.iter().zip(&twice)) {
            let largest = |t: &tch::Tensor| t.abs().max().double_value(&[]);
            let tolerance = if precision.ends_with("fp32") { 1e-5 } else { 2e-2 };
            assert!(
                largest(a) > 0.0 && largest(&(a - b)) <= tolerance * largest(a),
                "{} {precision}",
                v.name
            );
        }
    }
}

/// The gradients of all parameters, without anything random, as one vector.
fn whole_gradient(task: &mut train::tasks::ArTask) -> tch::Tensor {
    let mut output = task.vars().get("output.weight").unwrap();
    let numbers = tch::Tensor::arange(output.numel() as i64, (tch::Kind::Float, tch::Device::Cpu));
    output.copy_(&((numbers * 0.7).sin() * 0.5).view_as(&output));
    task.vars().set_requires_grad(true);
    let params: Vec<tch::Tensor> = task.vars().parameters().into_iter().map(|v| v.tensor).collect();
    let mut batch = task.batch().unwrap();
    let losses = task.losses(&mut batch, 0, 1).unwrap();
    let gradients = tch::Tensor::run_backward(&[losses.total().unwrap()], &params, false, false);
    let flat: Vec<tch::Tensor> = gradients.iter().map(|g| g.reshape([-1])).collect();
    assert!(gradients.iter().all(|g| g.kind() == tch::Kind::Float), "gradients are as wide as the weights");
    tch::Tensor::cat(&flat, 0)
}

#[test]
fn gradients_in_bf16_point_where_those_in_fp32_do() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, t) = (images(dir.path()), dir.path().join("t"));
    go(tokenizer_task(&data, &["optimization.steps=2"]), &t, 100).unwrap();
    let images = format!("data.images.train={}", data.display());
    let still =
        "model.dropout={token: 0.0, residual: 0.0, feed_forward: 0.0, drop_path: 0.0, condition: 0.0}";
    let [a, b] = ["fp32", "bf16"].map(|kind| {
        let precision = format!("optimization.precision={kind}");
        whole_gradient(&mut ar_task(&t, &[&images, still, &precision]))
    });
    let cosine = (a.dot(&b) / (a.norm() * b.norm())).double_value(&[]);
    let length = (b.norm() / a.norm()).double_value(&[]);
    assert!(cosine > 0.999 && (length - 1.0).abs() < 0.02, "cosine {cosine}, length {length}");
}

#[test]
fn fp16_is_refused_and_paths_do_not_depend_on_where_a_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let error = common::try_tokenizer_task(&data, &["optimization.precision=fp16"]).unwrap_err();
    assert!(error.to_string().contains("loss scaler"), "{error}");

    let text = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/train/gigatok-ss256.yaml"),
    );
    let text = text.unwrap().replace("trunk: null", "trunk: vgg.pth").replace("train: null", "train: images");
    let file = dir.path().join("recipe.yaml");
    std::fs::write(&file, text).unwrap();
    let document = base::config::Document::read(&file).unwrap();
    let teacher = "losses.semantic.teacher.weights=dino.pth".to_owned();
    let recipe = TokenizerRecipe::from_document(&document, &[teacher]).unwrap();
    assert_eq!(recipe.data.train.as_deref(), Some(data.as_path()));
    let yaml = base::config::to_yaml(&recipe).unwrap();
    let here = std::env::current_dir().unwrap().join("dino.pth");
    assert!(yaml.contains(&format!("trunk: {}", dir.path().join("vgg.pth").display())), "{yaml}");
    assert!(yaml.contains(&format!("weights: {}", here.display())), "{yaml}");
}

#[test]
fn bf16_starts_where_fp32_does() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    go(tokenizer_task(&data, &["optimization.steps=4"]), &a, 100).unwrap();
    go(tokenizer_task(&data, &["optimization.steps=4", "optimization.precision=bf16"]), &b, 100).unwrap();
    for key in ["l2", "adversarial", "discriminator/hinge"] {
        let (x, y) = (logged(&a, key)[0], logged(&b, key)[0]);
        assert!((x - y).abs() < 0.05 * x.abs().max(0.1), "{key}: {x} and {y}");
    }
    let images = format!("data.images.train={}", data.display());
    // Among them keys that the recipe leaves at their defaults.
    let changes = [
        images.as_str(),
        "optimization.steps=4",
        "optimization.precision=bf16",
        "optimization.tf32=true",
        "model.kv_heads=1",
    ];
    let c = dir.path().join("c");
    go(ar_task(&a, &changes), &c, 100).unwrap();
    assert!((logged(&c, "loss")[0] - 32f64.ln()).abs() < 0.02);
    let kinds: Vec<usize> = common::contents(&c.join("weights.safetensors"))
        .iter()
        .map(|(_, s, b)| b.len() / s.iter().product::<i64>() as usize)
        .collect();
    assert!(kinds.iter().all(|k| *k == 4), "the weights themselves stay fp32");
}

#[test]
fn stored_codes_train_and_those_of_another_tokenizer_do_not() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, t) = (images(dir.path()), dir.path().join("t"));
    go(tokenizer_task(&data, &["optimization.steps=2"]), &t, 100).unwrap();
    let fingerprint = open_tokenizer(&t).fingerprint().unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    common::store_codes(&good, &fingerprint);
    common::store_codes(&bad, "0123456789abcdef");
    let of = |folder: &std::path::Path| format!("data.codes=[{}]", folder.display());
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    go(ar_task(&t, &[&of(&good), "optimization.steps=5"]), &a, 100).unwrap();
    go(ar_task(&t, &[&of(&good), "optimization.steps=5"]), &b, 2).unwrap();
    go(ar_task(&t, &[&of(&good), "optimization.steps=5"]), &b, 100).unwrap();
    assert_eq!(distance(&a, &b), 0.0, "resuming from stored codes is exact");
    let tokenizer = open_tokenizer(&t);
    let recipe = ar_recipe(&[&of(&bad)], &tokenizer).unwrap();
    let error = train::tasks::ArTask::new(recipe, tokenizer, tch::Device::Cpu).err().unwrap();
    assert!(matches!(&error, Error::OtherTokenizer { found, .. } if found == "0123456789abcdef"), "{error}");
}

/// The peak of `go` is 1e9 FLOP/s.
#[test]
fn mfu_is_the_share_of_the_recipes_flops_in_the_peak() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, t, a) = (images(dir.path()), dir.path().join("t"), dir.path().join("a"));
    go(tokenizer_task(&data, &["optimization.steps=2"]), &t, 2).unwrap();
    let images = format!("data.images.train={}", data.display());
    let task = ar_task(&t, &[&images, "optimization.steps=2"]);
    let flops = task.recipe().cost().unwrap().flops_per_image;
    assert_eq!(flops, task.model().cost().training_flops(false));
    go(task, &a, 2).unwrap();
    let (mfu, speed) = (logged(&a, "mfu")[0], logged(&a, "images_per_second")[0]);
    assert!((mfu / (speed * flops / 1e9) - 1.0).abs() < 1e-9, "{mfu} at {speed} images/s");
}

#[test]
fn damaged_held_out_images_are_told_of_beside_stored_codes_too() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, t, codes) = (images(dir.path()), dir.path().join("t"), dir.path().join("codes"));
    go(tokenizer_task(&data, &["optimization.steps=2"]), &t, 100).unwrap();
    common::store_codes(&codes, &open_tokenizer(&t).fingerprint().unwrap());
    std::fs::write(data.join("n01443537/1.png"), "no image").unwrap();
    let stored = format!("data.codes=[{}]", codes.display());
    let held_out = format!("data.images.validation={}", data.display());
    let mut task = ar_task(&t, &[&stored, &held_out]);
    assert_eq!(task.validate(Share::new(&World::default())).unwrap().len(), 1);
    let left_out = task.data().skipped();
    assert_eq!(left_out.len(), 1);
    assert_eq!(left_out[0].name, "validation/n01443537/1.png");
}
