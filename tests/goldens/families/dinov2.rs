//! DINOv2: tokens, the outputs of its blocks, resampled positions; and GigaTok's use of it as a
//! teacher.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use backbones::{DinoConfig, DinoTeacher, DinoV2, FeedForward, Positions, WeightSource};
use base::{Build, ImagesU8, Vars};
use tch::{Device, Kind, Tensor};

use super::inception::{cases, images, skip_foreign};
use crate::check::{Check, Rule};
use crate::golden::Golden;
use crate::recipe::Recipe;

const FEATURE: Rule = Rule::Within(3e-5);
const BLOCK: Rule = Rule::Within(6e-5);
const POSITIONS: Rule = Rule::Within(5e-6);

/// Type of feed-forward according to the state dict.
fn feed_forward(shapes: &BTreeMap<String, Vec<i64>>) -> Result<FeedForward> {
    let rows = |name: &str| shapes.get(name).and_then(|s| s.first()).copied();
    match (rows("blocks.0.mlp.fc1.weight"), rows("blocks.0.mlp.w12.weight")) {
        (Some(hidden), None) => Ok(FeedForward::Mlp { hidden }),
        (None, Some(both)) => Ok(FeedForward::SwiGlu { hidden: both / 2 }),
        _ => bail!("the state dict has no feed-forward that is known"),
    }
}

fn config(golden: &Golden, shapes: &BTreeMap<String, Vec<i64>>) -> Result<DinoConfig> {
    let antialias = golden.config("antialias").as_bool().context("config.antialias")?;
    let offset = golden.number("offset")?;
    ensure!(!antialias || offset == 0.0, "an offset with antialias is not DINOv2");
    Ok(DinoConfig {
        width: golden.integer("embed_dim")?,
        depth: golden.integer("depth")?,
        heads: golden.integer("heads")?,
        patch: golden.integer("patch")?,
        image_size: golden.integer("img_size")?,
        registers: golden.integer("registers")?,
        feed_forward: feed_forward(shapes)?,
        positions: if antialias { Positions::Antialiased } else { Positions::Scaled { offset } },
    })
}

/// A published network: weights by the seed and the tensors' names.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let shapes: BTreeMap<String, Vec<i64>> = serde_json::from_value(golden.get("state_dict").clone())?;
    let config = config(golden, &shapes)?;
    let seed = golden.get("seed").as_u64().context("no seed")?;
    let described = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
    DinoV2::new(&described.root(), &config);
    let ours: BTreeMap<_, _> = described.all().into_iter().map(|v| (v.name, v.tensor.size())).collect();
    check.must("state dict", ours == shapes, format!("{} names and shapes", shapes.len()));

    let net = DinoV2::open(&WeightSource::Random { seed }, &config, Device::Cpu)?;
    let cases = cases(golden);
    ensure!(!cases.is_empty(), "there are no images");
    for case in cases {
        let x = normalized(&images(&check.input(&format!("{case}.img"))?)?);
        tch::no_grad(|| compare(check, &net, &config, &case, &x))?;
    }
    skip_foreign(check);
    Ok(())
}

/// ImageNet's mean and deviation, as the manifest states them.
fn normalized(images: &ImagesU8) -> Tensor {
    let colour = |c: [f32; 3]| Tensor::from_slice(&c).view([1, 3, 1, 1]);
    let x = images.tensor().to_kind(Kind::Float) / 255.0;
    (x - colour([0.485, 0.456, 0.406])) / colour([0.229, 0.224, 0.225])
}

fn compare(check: &mut Check, net: &DinoV2, config: &DinoConfig, case: &str, x: &Tensor) -> Result<()> {
    let golden = check.golden;
    let (h, w) = (x.size()[2] / config.patch, x.size()[3] / config.patch);
    let positions = net.positions(h, w).get(0);
    // "every 8th": from the first on.
    let thinned = |name: &str, t: &Tensor, dim: i64| {
        let rows = golden.shape(name).and_then(|s| s.get(dim as usize).copied()).unwrap_or(1);
        let all = t.size()[dim as usize];
        t.slice(dim, None, None, (all + rows - 1) / rows)
    };
    let name = format!("{case}.pos_embed");
    check.compare(&name, POSITIONS, || thinned(&name, &positions, 0))?;
    let mut outputs = vec![];
    let tokens = net.forward_visiting(x, |_, y| outputs.push(y.shallow_clone()))?;
    for (i, y) in outputs.iter().enumerate() {
        check.compare(&format!("{case}.block{i}"), BLOCK, || y.shallow_clone())?;
        check.compare(&format!("{case}.block{i}.cls"), BLOCK, || y.select(1, 0))?;
        let back = outputs.len() - i;
        let name = format!("{case}.inter_m{back}");
        if golden.has(&name) {
            let map = net.intermediate(x, &[i])?.remove(0);
            check.compare(&name, FEATURE, || map)?;
        }
    }
    check.compare(&format!("{case}.cls"), FEATURE, || tokens.class.shallow_clone())?;
    check.compare(&format!("{case}.reg"), FEATURE, || tokens.registers.shallow_clone())?;
    let name = format!("{case}.patch");
    check.compare(&name, FEATURE, || thinned(&name, &tokens.patches, 1))
}

/// The teacher of semantic regularisation: weights in a table.
pub fn check_teacher(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let table = golden.get("recipe_table");
    let recipe = Recipe::new(&table["seed"], &table["tensors"], "")?;
    ensure!(golden.text("ffn_layer")? == "mlp", "another feed-forward");
    let width = golden.integer("embed_dim")?;
    let config = DinoConfig {
        width,
        depth: golden.integer("depth")?,
        heads: golden.integer("num_heads")?,
        patch: golden.integer("patch_size")?,
        image_size: golden.integer("img_size")?,
        registers: golden.integer("num_register_tokens")?,
        feed_forward: FeedForward::Mlp { hidden: golden.integer("mlp_ratio")? * width },
        positions: Positions::Antialiased,
    };
    let teacher = DinoTeacher::load(&recipe, &config, Device::Cpu)?;
    let images = ImagesU8::new(check.input("image_u8")?)?.to_float();
    let x = teacher.prepare(&images);
    let sums = x.sum_dim_intlist([2i64, 3].as_slice(), false, Kind::Double);
    check.compare("preprocessed_sum", Rule::Values, || sums)?;
    let rows = golden.shape("preprocessed_top").and_then(|s| s.get(2).copied()).unwrap_or(0);
    check.compare("preprocessed_top", Rule::Values, || x.narrow(0, 0, 1).narrow(2, 0, rows))?;
    let side = (teacher.positions().size()[1] - 1).isqrt();
    let positions = format!("pos_embed_{side}");
    check.compare(&positions, Rule::Values, || teacher.positions().shallow_clone())?;
    check.compare("x_norm_patchtokens", Rule::Values, || teacher.patches(&images))
}
