//! Cost of frozen networks.

use std::path::Path;

use backbones::{DinoConfig, DinoSize, FeatureCnnConfig};
use base::cost::FlopCounter;

use crate::Result;

/// DINOv2 over 224×224 pixels: operations of a forward pass, and parameters.
pub(crate) fn dinov2(size: DinoSize) -> (f64, f64) {
    let config = DinoConfig::published(size, false);
    let mut counter = FlopCounter::new(4.0);
    counter.linear(3 * 14 * 14, config.width, 256);
    for _ in 0..config.depth {
        counter.transformer_layer(config.width, 257);
    }
    let parameters = 12.0 * (config.depth * config.width * config.width) as f64;
    (counter.flops, parameters)
}

/// VGG16's convolutions up to relu5_3 over an image, by channels and convolutions of each level.
pub(crate) fn vgg16(image_size: i64, element_bytes: f64) -> FlopCounter {
    stages(&[(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], image_size, element_bytes)
}

/// Stages of 3×3 convolutions with ReLU, given as (width, convolutions); each stage but the first
/// starts with half the side.
pub(crate) fn stages(stages: &[(i64, usize)], image_size: i64, element_bytes: f64) -> FlopCounter {
    let mut counter = FlopCounter::new(element_bytes);
    let (mut inputs, mut side) = (3, image_size);
    for (i, &(width, convolutions)) in stages.iter().enumerate() {
        if i > 0 {
            side /= 2;
        }
        for _ in 0..convolutions {
            counter.conv(inputs, width, 3, side, side);
            inputs = width;
        }
    }
    counter
}

/// Stages of a [`backbones::FeatureCnn`] with these widths.
pub(crate) fn cnn_stages(widths: &[i64]) -> Vec<(i64, usize)> {
    widths.iter().map(|&width| (width, 2)).collect()
}

/// Stages of the feature network in a model directory.
///
/// # Errors
/// Returns an error if its configuration cannot be read.
pub(crate) fn read_cnn_stages(network: &Path) -> Result<Vec<(i64, usize)>> {
    let config = FeatureCnnConfig::read(&network.join(weights::CONFIG_FILE))?;
    Ok(cnn_stages(&config.widths))
}
