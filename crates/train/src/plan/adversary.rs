//! Costs of a discriminator and of frozen networks.

use backbones::DinoSize;
use base::{Build, Precision, Vars};
use tch::{Device, Kind};

use super::work::Work;
use crate::Result;
use crate::discriminator::{DiscriminatorConfig, PatchGanConfig, ProjectedConfig, Scales, StyleGanConfig};

/// Parameters that are trained.
pub(super) fn parameters(config: &DiscriminatorConfig, image_size: i64) -> Result<f64> {
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
    match config {
        DiscriminatorConfig::Dino(c) => {
            // A pointwise, a wide and a last convolution for each head, with their biases and norms.
            let (w, heads) = (c.width as f64, (c.taps.len() + 1) as f64);
            Ok(heads * (w * w * (1.0 + c.kernel as f64) + 7.0 * w + 1.0))
        }
        DiscriminatorConfig::Projected(c) => {
            Scales::new(&vars.root(), c);
            Ok(vars.num_parameters() as f64)
        }
        other => {
            other.build(&vars.root(), image_size, Precision::Fp32)?;
            Ok(vars.num_parameters() as f64)
        }
    }
}

/// One forward pass over an image.
pub(super) fn forward(config: &DiscriminatorConfig, image_size: i64, kind: f64) -> Work {
    let mut work = Work::new(kind);
    match config {
        DiscriminatorConfig::Patchgan(c) => patchgan(&mut work, c, image_size),
        DiscriminatorConfig::Stylegan(c) => stylegan(&mut work, *c, image_size),
        DiscriminatorConfig::Projected(c) => projected(&mut work, c, kind),
        DiscriminatorConfig::Dino(c) => {
            let n = (c.image_size / c.patch_size).pow(2);
            work.linear(3 * c.patch_size.pow(2), c.width, n);
            for _ in 0..c.depth {
                vit_layer(&mut work, c.width, n + 1);
            }
            for _ in 0..=c.taps.len() {
                work.linear(c.width, c.width, n);
                work.linear(c.width * c.kernel, c.width, n);
            }
        }
    }
    work
}

fn patchgan(work: &mut Work, config: &PatchGanConfig, image_size: i64) {
    let width = |i: i64| config.channels << i.min(3);
    let (mut side, mut inputs) = (image_size, 3);
    for i in 0..=config.layers {
        let next = if i == config.layers { side - 1 } else { side / 2 };
        work.conv(inputs, width(i), 4, next, side);
        work.norm_and_silu(width(i), next); // batch norm and leaky ReLU keep as much
        (side, inputs) = (next, width(i));
    }
    work.conv(inputs, 1, 4, side - 1, side);
}

fn stylegan(work: &mut Work, config: StyleGanConfig, image_size: i64) {
    work.conv(3, config.at(image_size), 3, image_size, image_size);
    let mut side = image_size;
    while side > 4 {
        let (inputs, outputs) = (config.at(side), config.at(side / 2));
        work.conv(inputs, outputs, 1, side / 2, side);
        work.conv(inputs, outputs, 3, side, side);
        work.conv(outputs, outputs, 3, side, side);
        work.conv(outputs, outputs, 3, side / 2, side);
        side /= 2;
    }
    let width = config.at(side);
    work.conv(width, width, 3, side, side);
    work.linear(width * side * side, width, 1);
}

fn projected(work: &mut Work, config: &ProjectedConfig, kind: f64) {
    let scales = config.scales();
    let (flops, values) = config.size.cost(config.image_size, scales[3].block);
    work.flops += flops;
    work.kept += kind * values;
    for scale in &scales {
        work.conv(scale.features, scale.mixed, 1, scale.side, scale.side);
        work.conv(scale.mixed, scale.output, 3, scale.side, scale.side);
    }
    // What is fixed has no gradient of its own, and the discriminator's phase takes none through it.
    work.flops /= 2.0;
    for scale in &scales {
        let (mut side, mut inputs) = (2 * scale.side, scale.output);
        for &outputs in &scale.head {
            work.conv(inputs, outputs, 4, side / 2, side);
            work.norm_and_silu(outputs, side / 2); // group norm and leaky ReLU keep as much
            (side, inputs) = (side / 2, outputs);
        }
        let kernel = scale.last_kernel();
        work.conv(inputs, 1, kernel, side + 1 - kernel, side);
    }
}

/// A layer of 12 d² weights.
fn vit_layer(work: &mut Work, width: i64, n: i64) {
    work.layer(width, n, 12.0, 1.0, 2.0, 16.0);
}

/// DINOv2's forward pass over 224×224 pixels, and its parameters.
pub(super) fn dinov2(size: DinoSize) -> (f64, f64) {
    let config = backbones::DinoConfig::published(size, false);
    let mut work = Work::new(4.0);
    work.linear(3 * 14 * 14, config.width, 256);
    for _ in 0..config.depth {
        vit_layer(&mut work, config.width, 257);
    }
    let parameters = 12.0 * (config.depth * config.width * config.width) as f64;
    (work.flops, parameters)
}

/// VGG16's convolutions up to relu5_3 over an image, in channels of a level and convolutions in it.
pub(super) fn vgg16(image_size: i64, kind: f64) -> Work {
    stages(&[(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], image_size, kind)
}

/// 3×3 convolutions with ReLU; each stage but the first starts with half the side.
pub(super) fn stages(stages: &[(i64, usize)], image_size: i64, kind: f64) -> Work {
    let mut work = Work::new(kind);
    let (mut inputs, mut side) = (3, image_size);
    for (i, &(width, convolutions)) in stages.iter().enumerate() {
        if i > 0 {
            side /= 2;
        }
        for _ in 0..convolutions {
            work.conv(inputs, width, 3, side, side);
            inputs = width;
        }
    }
    work
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projected_discriminator_is_counted_without_the_weights_of_its_network() {
        let config = DiscriminatorConfig::Projected(ProjectedConfig::default());
        // Halvings of each head, with the two vectors of a norm, and its last convolution.
        let head = |widths: &[i64]| -> i64 {
            let halvings = widths.windows(2).map(|w| 16 * w[0] * w[1] + 2 * w[1]);
            halvings.sum::<i64>() + 16 * 512
        };
        let heads = head(&[64, 64, 128, 256, 512])
            + head(&[64, 128, 256, 512])
            + head(&[128, 256, 512])
            + head(&[256, 512]);
        assert_eq!(parameters(&config, 64).unwrap(), heads as f64);
        // In GFLOP 0.8 of the network and 0.6 of the mixing, half of which count, and 2.3 of the heads.
        let flops = forward(&config, 64, 4.0).flops;
        assert!(flops > 2.7e9 && flops < 3.2e9, "{flops}");
        let small = ProjectedConfig { image_size: 128, channels: 32, ..ProjectedConfig::default() };
        let less = forward(&DiscriminatorConfig::Projected(small), 64, 4.0).flops;
        assert!(less < flops / 5.0, "{less}");
    }
}
