//! EfficientNet-Lite: the output of every block, features and logits, under weights by recipe and
//! the published ones.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use backbones::files::{PublicFile, weights_folder};
use backbones::{EfficientNetLite, EfficientNetSize, WeightSource};
use base::{Build, Precision, Vars};
use tch::{Device, Kind, Tensor};

use super::inception::{cases, images, place_mean};
use crate::check::{Check, Rule};
use crate::golden::Golden;

/// The size that the manifest names.
pub fn size(golden: &Golden) -> Option<EfficientNetSize> {
    let name = golden.config("network").as_str()?;
    EfficientNetSize::ALL.into_iter().find(|size| size.name() == name)
}

/// The whole golden. The published weights are compared where the weights folder has them.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let size = size(golden).context("config.network")?;
    state_dict(check, size)?;
    let weights = match golden.text("weights")? {
        "published" => published(check)?,
        kind => {
            ensure!(kind == "recipe", "weights `{kind}`");
            Some(WeightSource::Random { seed: golden.get("seed").as_u64().context("no seed")? })
        }
    };
    let Some(weights) = weights else { return Ok(()) };
    let net = EfficientNetLite::open(&weights, size, Device::Cpu, Precision::Fp32)?;
    let cases = cases(golden);
    ensure!(!cases.is_empty(), "there are no images");
    for case in cases {
        let images = images(&check.input(&format!("{case}.img"))?)?;
        let x = EfficientNetLite::normalize(&images.tensor().to_kind(Kind::Float));
        tch::no_grad(|| compare(check, &net, &case, &x))?;
    }
    Ok(())
}

fn state_dict(check: &mut Check, size: EfficientNetSize) -> Result<()> {
    let shapes: BTreeMap<String, Vec<i64>> = serde_json::from_value(check.golden.get("state_dict").clone())?;
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
    EfficientNetLite::new(&vars.root(), size);
    let ours: BTreeMap<_, _> = vars.all().into_iter().map(|v| (v.name, v.tensor.size())).collect();
    let counts = |name: &String| name.ends_with(".num_batches_tracked");
    let theirs: BTreeMap<_, _> = shapes.into_iter().filter(|(name, _)| !counts(name)).collect();
    check.must("state dict", ours == theirs, format!("{} names and shapes", theirs.len()));
    Ok(())
}

/// The published file, where it is at hand; else all values are left out.
fn published(check: &mut Check) -> Result<Option<WeightSource>> {
    let golden = check.golden;
    let public = PublicFile::named(golden.text("network")?)?;
    let same = public.sha256 == Some(golden.text("sha256")?) && public.file == golden.text("file")?;
    check.must("file", same, public.known());
    let package = public.pip().map(|pip| pip.requirement);
    check.must("package", package == Some(golden.text("package")?), format!("{package:?}"));
    match public.locate(&weights_folder(None)) {
        Ok(path) => Ok(Some(WeightSource::File(path))),
        Err(backbones::Error::Missing { .. }) => {
            let why = format!("`{}` is not in the weights folder", public.file);
            golden.tensor_names().into_iter().for_each(|name| check.skip(name, &why));
            Ok(None)
        }
        Err(other) => Err(other.into()),
    }
}

/// Means over channels nearly cancel: PyTorch's own fp32 is up to 1.5e-5 of them off float64, 1e-6
/// of the map.
fn against(map: &Tensor) -> Rule {
    Rule::Within(5e-6 * map.square().mean(Kind::Double).double_value(&[]).sqrt())
}

fn compare(check: &mut Check, net: &EfficientNetLite, case: &str, x: &Tensor) -> Result<()> {
    let mut outputs = vec![];
    let out = net.forward_visiting(x, |y| outputs.push(y.shallow_clone()));
    let head = outputs.pop().context("the network has no head")?;
    let channel_mean = |y: &Tensor| y.mean_dim([1i64].as_slice(), false, Kind::Float);
    for (i, y) in outputs.iter().enumerate() {
        check.compare(&format!("{case}.block{i}.channels"), Rule::Values, || place_mean(y))?;
        check.compare(&format!("{case}.block{i}.places"), against(y), || channel_mean(y))?;
    }
    check.compare(&format!("{case}.head"), against(&head), || channel_mean(&head))?;
    check.compare(&format!("{case}.features"), Rule::Values, || out.pool)?;
    check.compare(&format!("{case}.logits"), Rule::Bounded, || out.logits)
}
