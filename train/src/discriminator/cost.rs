//! Cost of a discriminator.

use base::cost::FlopCounter;
use base::{Build, Precision, Vars};
use tch::{Device, Kind};

use super::{DiscriminatorConfig, PatchGanConfig, ProjectedConfig, Scales, StyleGanConfig};
use crate::Result;

impl DiscriminatorConfig {
    /// Number of trained parameters.
    ///
    /// # Errors
    /// Returns an error if the network cannot be described.
    pub(crate) fn num_parameters(&self, image_size: i64) -> Result<f64> {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
        match self {
            DiscriminatorConfig::Dino(c) => {
                // A pointwise, a wide and a last convolution for each head, with their biases and
                // norms.
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

    /// Name and bytes of the frozen network, if there is one, with weights of `element_bytes` bytes
    /// where it computes in the precision of training.
    pub(crate) fn frozen_state(&self, element_bytes: f64) -> Option<(&'static str, f64)> {
        match self {
            DiscriminatorConfig::Dino(_) => Some(("DINO", 4.0 * 21.7e6)),
            DiscriminatorConfig::Projected(c) => {
                Some(("the discriminator's EfficientNet-Lite", element_bytes * c.size.parameters()))
            }
            DiscriminatorConfig::Patchgan(_) | DiscriminatorConfig::Stylegan(_) => None,
        }
    }

    /// Forward pass over an image, with activations of `element_bytes` bytes.
    pub(crate) fn cost(&self, image_size: i64, element_bytes: f64) -> FlopCounter {
        let mut counter = FlopCounter::new(element_bytes);
        match self {
            DiscriminatorConfig::Patchgan(c) => patchgan(&mut counter, c, image_size),
            DiscriminatorConfig::Stylegan(c) => stylegan(&mut counter, *c, image_size),
            DiscriminatorConfig::Projected(c) => projected(&mut counter, c, element_bytes),
            DiscriminatorConfig::Dino(c) => {
                let n = (c.image_size / c.patch_size).pow(2);
                counter.linear(3 * c.patch_size.pow(2), c.width, n);
                for _ in 0..c.depth {
                    counter.transformer_layer(c.width, n + 1);
                }
                for _ in 0..=c.taps.len() {
                    counter.linear(c.width, c.width, n);
                    counter.linear(c.width * c.kernel, c.width, n);
                }
            }
        }
        counter
    }
}

fn patchgan(counter: &mut FlopCounter, config: &PatchGanConfig, image_size: i64) {
    let width = |i: i64| config.channels << i.min(3);
    let (mut side, mut inputs) = (image_size, 3);
    for i in 0..=config.layers {
        let next = if i == config.layers { side - 1 } else { side / 2 };
        counter.conv(inputs, width(i), 4, next, side);
        counter.norm_and_silu(width(i), next); // batch norm and leaky ReLU keep as much
        (side, inputs) = (next, width(i));
    }
    counter.conv(inputs, 1, 4, side - 1, side);
}

fn stylegan(counter: &mut FlopCounter, config: StyleGanConfig, image_size: i64) {
    counter.conv(3, config.at(image_size), 3, image_size, image_size);
    let mut side = image_size;
    while side > 4 {
        let (inputs, outputs) = (config.at(side), config.at(side / 2));
        counter.conv(inputs, outputs, 1, side / 2, side);
        counter.conv(inputs, outputs, 3, side, side);
        counter.conv(outputs, outputs, 3, side, side);
        counter.conv(outputs, outputs, 3, side / 2, side);
        side /= 2;
    }
    let width = config.at(side);
    counter.conv(width, width, 3, side, side);
    counter.linear(width * side * side, width, 1);
}

fn projected(counter: &mut FlopCounter, config: &ProjectedConfig, element_bytes: f64) {
    let scales = config.scales();
    let (flops, values) = config.size.cost(config.image_size, scales[3].block);
    counter.flops += flops;
    counter.activation_bytes += element_bytes * values;
    for scale in &scales {
        counter.conv(scale.features, scale.mixed, 1, scale.side, scale.side);
        counter.conv(scale.mixed, scale.output, 3, scale.side, scale.side);
    }
    // Fixed weights have no gradient, and the discriminator's phase takes none through them.
    counter.flops /= 2.0;
    for scale in &scales {
        let (mut side, mut inputs) = (2 * scale.side, scale.output);
        for &outputs in &scale.head {
            counter.conv(inputs, outputs, 4, side / 2, side);
            counter.norm_and_silu(outputs, side / 2); // group norm and leaky ReLU keep as much
            (side, inputs) = (side / 2, outputs);
        }
        let kernel = scale.last_kernel();
        counter.conv(inputs, 1, kernel, side + 1 - kernel, side);
    }
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
        assert_eq!(config.num_parameters(64).unwrap(), heads as f64);
        // In GFLOP 0.8 of the network and 0.6 of the mixing, half of which count, and 2.3 of the
        // heads.
        let flops = config.cost(64, 4.0).flops;
        assert!(flops > 2.7e9 && flops < 3.2e9, "{flops}");
        let small = ProjectedConfig { image_size: 128, channels: 32, ..ProjectedConfig::default() };
        let less = DiscriminatorConfig::Projected(small).cost(64, 4.0).flops;
        assert!(less < flops / 5.0, "{less}");
    }
}
