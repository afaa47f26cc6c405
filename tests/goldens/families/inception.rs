//! The Inception network of FID: features by input path, and the outputs of its stages.

use anyhow::{Context, Result, ensure};
use backbones::{InceptionFid, InceptionOutput, InputPath, WeightSource};
use base::ImagesU8;
use base::testing::max_abs;
use tch::{Device, Kind, Tensor};

use crate::check::{Check, Near, Rule};
use crate::golden::Golden;

/// Features and means over places.
const FEATURE: Rule = Rule::Within(2e-5);
const LOGITS: Rule = Rule::Within(1e-4);
const MEAN: Rule = Rule::Within(1e-5);

/// The names before `.img`.
pub fn cases(golden: &Golden) -> Vec<String> {
    let prefix = |n: &&str| n.strip_suffix(".img").map(str::to_owned);
    golden.tensor_names().iter().filter_map(prefix).collect()
}

/// u8 (B, H, W, 3).
pub fn images(t: &Tensor) -> Result<ImagesU8> {
    Ok(ImagesU8::new(t.permute([0, 3, 1, 2]).contiguous())?)
}

/// (B, C, H, W) → (B, C).
pub fn place_mean(x: &Tensor) -> Tensor {
    x.mean_dim([2i64, 3].as_slice(), false, Kind::Float)
}

/// The whole golden: weights by the seed and the tensors' names.
pub fn check(check: &mut Check) -> Result<()> {
    let seed = check.golden.get("seed").as_u64().context("no seed")?;
    let net = InceptionFid::open(&WeightSource::Random { seed }, Device::Cpu)?;
    let cases = cases(check.golden);
    ensure!(!cases.is_empty(), "there are no images");
    for case in cases {
        let images = images(&check.input(&format!("{case}.img"))?)?;
        let mut pools = vec![];
        for path in InceptionFid::INPUT_PATHS {
            let prefix = format!("{case}.{path}");
            if check.golden.has(&format!("{prefix}.pool")) {
                let out = compare(check, &net, &prefix, &net.prepare(&images, path)?)?;
                pools.push((path, out.pool));
            }
        }
        if let [(InputPath::Tf, tf), (InputPath::Pf, pf)] = pools.as_slice() {
            let apart = format!("{case}.pf_vs_tf.pool.max_abs");
            check.scalar(&apart, Near::Within(4e-5), max_abs(tf, pf))?;
        }
    }
    skip_foreign(check);
    Ok(())
}

fn compare(check: &mut Check, net: &InceptionFid, prefix: &str, x: &Tensor) -> Result<InceptionOutput> {
    let mut stages = vec![];
    let out = net.forward_visiting(x, |name, y| stages.push((name.to_owned(), y.shallow_clone())));
    for (name, y) in &stages {
        check.compare(&format!("{prefix}.mean.{name}"), MEAN, || place_mean(&y.narrow(0, 0, 1)).get(0))?;
        let corner = || y.get(0).narrow(0, 0, 4).narrow(1, 0, 2).narrow(2, 0, 2).reshape([-1]);
        check.compare(&format!("{prefix}.corner.{name}"), FEATURE, corner)?;
        let depth = match name.as_str() {
            "MaxPool_1" => "f64",
            "MaxPool_2" => "f192",
            "Mixed_6e" => "f768",
            _ => continue,
        };
        check.compare(&format!("{prefix}.{depth}"), FEATURE, || place_mean(y))?;
    }
    check.compare(&format!("{prefix}.pool"), FEATURE, || out.pool.shallow_clone())?;
    check.compare(&format!("{prefix}.spatial"), FEATURE, || out.spatial.shallow_clone())?;
    check.compare(&format!("{prefix}.logits_unbiased"), LOGITS, || out.logits.shallow_clone())?;
    check.compare(&format!("{prefix}.logits"), LOGITS, || &out.logits + net.class_bias())?;
    Ok(out)
}

/// Scalars about runs that are not ours.
pub fn skip_foreign(check: &mut Check) {
    let golden = check.golden;
    for name in golden.scalar_names() {
        if name.contains("f32_maxdiff") {
            check.skip(name, "it tells how far the reference's own fp32 run was from its float64 run");
        } else if name.starts_with("wrong.") {
            check.skip(name, "it tells how far a common mistake leads astray");
        }
    }
}
