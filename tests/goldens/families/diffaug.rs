//! Differentiable augmentation, with the draws that the golden recorded.

use anyhow::Result;
use tch::Tensor;
use train::discriminator::{DiffAug, Draws};

use crate::check::{Check, Rule};
use crate::run::number_after;

/// The whole golden: `DiffAug(prob=P, cutout=C)`, where a negative P switches cutout off.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let image = check.input("image")?;
    let batch = image.size()[0];
    for i in (0..).take_while(|i| golden.has(&format!("case{i}.out"))) {
        let flags = check.input(&format!("case{i}.flags"))?;
        let draws = Draws {
            gates: [0, 1, 2].map(|k| flags.double_value(&[k])),
            uniforms: check.input(&format!("case{i}.rand01"))?,
        };
        let name = format!("case{i}.out");
        let meaning = golden.meaning(&name).to_owned();
        let probability = number_after(&meaning, "prob=")?;
        let cutout = if probability > 0.0 { number_after(&meaning, "cutout=")? } else { 0.0 };
        let augmentation = DiffAug { probability: probability.abs(), cutout, blur: 0.0 };
        check.compare(&name, Rule::Values, || augmentation.apply(&image, &draws))?;
    }
    let off = |blur: f64| -> Tensor {
        let draws = Draws::new(batch, image.device());
        DiffAug { probability: 0.0, blur, ..DiffAug::default() }.apply(&image, &draws)
    };
    check.compare("off", Rule::Equal, || off(0.0))?;
    if golden.has("blur.out") {
        let strength = number_after(golden.meaning("blur.out"), "warmup_blur_schedule")?;
        check.compare("blur.out", Rule::Values, || off(strength))?;
    }
    Ok(())
}
