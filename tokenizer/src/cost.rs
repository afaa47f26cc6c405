//! The arithmetic of one image, in floating-point operations (a product and a sum are two):
//! convolutions, linear layers, attention and the search of the codebook. Norms and activations are
//! not counted.

use crate::config::{CnnConfig, GigaTokConfig, Latent, TokenizerConfig};
use crate::sizes::TransformerSize;

/// Operations of encoding one image and of decoding one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Pixels → codes.
    pub encode: f64,
    /// Codes → pixels.
    pub decode: f64,
}

/// The cost of `config` at its own image size.
pub fn cost(config: &TokenizerConfig) -> Cost {
    let (cnn, quantizer) = match config {
        TokenizerConfig::Gigatok(c) => (&c.cnn, &c.quantizer),
        TokenizerConfig::LlamagenVq(c) => (&c.cnn, &c.quantizer),
    };
    let side = config.image_size() as f64 / cnn.stem as f64;
    let grid = side / 2f64.powi(cnn.encoder_multipliers.len() as i32 - 1);
    let codes = match config {
        TokenizerConfig::Gigatok(c) => c.num_tokens() as f64,
        TokenizerConfig::LlamagenVq(_) => grid * grid,
    };
    let search = codes * quantizer.settings().encode_flops();
    let transformers = match config {
        TokenizerConfig::Gigatok(c) => [
            transformer(c, c.encoder.resolve(), codes, grid * grid),
            transformer(c, c.decoder.resolve(), grid * grid, codes) + {
                let width = c.decoder.resolve().width as f64;
                conv(width, cnn.z_channels as f64, 3, grid)
            },
        ],
        TokenizerConfig::LlamagenVq(_) => [0.0, 0.0],
    };
    let vision = match config {
        TokenizerConfig::Gigatok(c) => c.vision.map_or(0.0, |v| v.flops(c.image_size)),
        TokenizerConfig::LlamagenVq(_) => 0.0,
    };
    Cost {
        encode: cnn_encoder(cnn, side) + vision + transformers[0] + search,
        decode: cnn_decoder(cnn, grid) + transformers[1],
    }
}

fn conv(inputs: f64, outputs: f64, kernel: i32, side: f64) -> f64 {
    2.0 * f64::from(kernel * kernel) * inputs * outputs * side * side
}

fn block(inputs: f64, outputs: f64, side: f64) -> f64 {
    let shortcut = if inputs == outputs { 0.0 } else { conv(inputs, outputs, 1, side) };
    conv(inputs, outputs, 3, side) + conv(outputs, outputs, 3, side) + shortcut
}

/// One attention of every position to every other, with its four projections.
fn attention(channels: f64, side: f64) -> f64 {
    let n = side * side;
    4.0 * conv(channels, channels, 1, side) + 4.0 * n * n * channels
}

fn cnn_encoder(c: &CnnConfig, mut side: f64) -> f64 {
    let base = c.channels as f64;
    let last = c.encoder_multipliers.len() - 1;
    let mut width = base;
    let mut total = conv(3.0 * (c.stem * c.stem) as f64, base, 3, side);
    for (i, m) in c.encoder_multipliers.iter().enumerate() {
        for _ in 0..c.res_blocks {
            total += block(width, base * *m as f64, side);
            width = base * *m as f64;
            total += if c.attention && i == last { attention(width, side) } else { 0.0 };
        }
        if i < last {
            side /= 2.0;
            total += conv(width, width, 3, side);
        }
    }
    total + middle(c, width, side) + conv(width, c.z_channels as f64, 3, side)
}

fn middle(c: &CnnConfig, width: f64, side: f64) -> f64 {
    2.0 * block(width, width, side) + if c.attention { attention(width, side) } else { 0.0 }
}

fn cnn_decoder(c: &CnnConfig, mut side: f64) -> f64 {
    let base = c.channels as f64;
    let last = c.decoder_multipliers.len() - 1;
    let mut width = base * c.decoder_multipliers[last] as f64;
    let mut total = conv(c.z_channels as f64, width, 3, side) + middle(c, width, side);
    for (i, m) in c.decoder_multipliers.iter().rev().enumerate() {
        for _ in 0..=c.res_blocks {
            total += block(width, base * *m as f64, side);
            width = base * *m as f64;
            total += if c.attention && i == 0 { attention(width, side) } else { 0.0 };
        }
        if i < last {
            total += match c.upsample {
                crate::config::Upsample::DepthToSpace => conv(width, 4.0 * width, 3, side),
                crate::config::Upsample::Nearest => conv(width, width, 3, 2.0 * side),
            };
            side *= 2.0;
        }
    }
    total + conv(width, 3.0 * (c.stem * c.stem) as f64, 3, side)
}

/// A stack over `queries` positions that looks at `keys` others: 16 D² weights a layer (12 D²
/// without the cross-attention of a sequence), and the linear map of the keys' channels in front.
fn transformer(config: &GigaTokConfig, size: TransformerSize, queries: f64, keys: f64) -> f64 {
    let (d, layers) = (size.width as f64, size.layers as f64);
    let z = config.cnn.z_channels as f64;
    let crossed = match config.latent {
        Latent::Sequence { .. } => 4.0 * queries * keys * d + 4.0 * d * d * (queries + keys),
        Latent::Grid { .. } => 0.0,
    };
    layers * (2.0 * 12.0 * d * d * queries + 4.0 * queries * queries * d + crossed)
        + 4.0 * z * d * keys.max(queries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::config::Document;

    /// 151 and 265 GFLOP of S-S were counted independently (layer by layer, from the official
    /// code).
    #[test]
    fn the_cost_of_the_smallest_release_is_known() {
        let (_, text) = crate::released::RELEASED.iter().find(|(n, _)| *n == "gigatok-ss256").unwrap();
        let config = TokenizerConfig::from_document(&Document::parse("test", text).unwrap()).unwrap();
        let Cost { encode, decode } = cost(&config);
        assert!((encode / 151e9 - 1.0).abs() < 0.01, "{encode:e}");
        assert!((decode / 265e9 - 1.0).abs() < 0.01, "{decode:e}");
    }
}
