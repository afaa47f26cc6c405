//! Cost of encoding and decoding one image: arithmetic (a multiplication and an addition are two
//! operations) of convolutions, linear layers, attention and the codebook search, and the
//! activations kept for a backward pass. Norms and activation functions are not counted.

use base::cost::FlopCounter;

use crate::config::{CnnConfig, GigaTokConfig, GridLayers, Latent, TokenizerConfig, Upsample, VisionConfig};

/// Costs of a tokenizer for one image at its own size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Pixels → codes by the trained networks.
    pub encode: FlopCounter,
    /// Codes → pixels.
    pub decode: FlopCounter,
    /// Projection of features onto a teacher's, in training alone.
    pub alignment: FlopCounter,
    /// Operations of the frozen vision network beside the encoder.
    pub vision_flops: f64,
}

impl TokenizerConfig {
    /// Costs of this tokenizer, with activations of `element_bytes` bytes.
    pub fn cost(&self, element_bytes: f64) -> Cost {
        let cnn = self.cnn();
        let zero = FlopCounter::new(element_bytes);
        let mut cost = Cost { encode: zero, decode: zero, alignment: zero, vision_flops: 0.0 };
        let places = (self.image_size() / cnn.patch()).pow(2);
        cnn_encoder(&mut cost.encode, cnn, self.image_size());
        let tokens = match self {
            TokenizerConfig::Gigatok(c) => {
                cost.vision_flops = c.vision.map_or(0.0, |v: VisionConfig| v.flops(c.image_size));
                transformers(&mut cost, c, places)
            }
            TokenizerConfig::LlamagenVq(_) => places,
        };
        let quantizer = self.quantizer().settings();
        cost.encode.linear(cnn.z_channels, quantizer.code_dim(), tokens);
        cost.encode.flops += quantizer.encode_flops() * tokens as f64;
        cost.encode.activation_bytes += quantizer.activation_bytes() * tokens as f64;
        cost.decode.linear(quantizer.code_dim(), cnn.z_channels, tokens);
        cnn_decoder(&mut cost.decode, cnn, self.image_size());
        cost
    }
}

impl Cost {
    /// Operations of encoding.
    pub fn encode_flops(&self) -> f64 {
        self.encode.flops + self.vision_flops
    }

    /// Operations of decoding.
    pub fn decode_flops(&self) -> f64 {
        self.decode.flops
    }

    /// Operations of a training step, forward and backward, without losses. The backward pass costs
    /// twice the forward pass; the frozen vision network has none.
    pub fn training_flops(&self) -> f64 {
        3.0 * (self.encode.flops + self.decode.flops + self.alignment.flops) + self.vision_flops
    }

    /// Bytes of activations that a training step keeps for the backward pass.
    pub fn activation_bytes(&self) -> f64 {
        self.encode.activation_bytes + self.decode.activation_bytes + self.alignment.activation_bytes
    }
}

fn cnn_encoder(counter: &mut FlopCounter, cnn: &CnnConfig, image_size: i64) {
    let mut side = image_size / cnn.stem;
    let mut inputs = cnn.channels;
    counter.conv(3 * cnn.stem * cnn.stem, cnn.channels, 3, side, side);
    let last = cnn.encoder_multipliers.len() - 1;
    for (i, multiplier) in cnn.encoder_multipliers.iter().enumerate() {
        let outputs = cnn.channels * multiplier;
        for _ in 0..cnn.res_blocks {
            counter.res_block(inputs, outputs, side);
            if cnn.attention && i == last {
                counter.conv_attention(outputs, side);
            }
            inputs = outputs;
        }
        if i < last {
            counter.conv(outputs, outputs, 3, side / 2, side);
            side /= 2;
        }
    }
    middle(counter, cnn, inputs, side);
    counter.norm_and_silu(inputs, side);
    counter.conv(inputs, cnn.z_channels, 3, side, side);
}

fn cnn_decoder(counter: &mut FlopCounter, cnn: &CnnConfig, image_size: i64) {
    let mut side = image_size / cnn.patch();
    let last = cnn.decoder_multipliers.len() - 1;
    let mut inputs = cnn.channels * cnn.decoder_multipliers[last];
    counter.conv(cnn.z_channels, inputs, 3, side, side);
    middle(counter, cnn, inputs, side);
    for (i, multiplier) in cnn.decoder_multipliers.iter().enumerate().rev() {
        let outputs = cnn.channels * multiplier;
        if cnn.adaptive_norm {
            counter.norm_and_silu(inputs, side);
        }
        for _ in 0..=cnn.res_blocks {
            counter.res_block(inputs, outputs, side);
            if cnn.attention && i == last {
                counter.conv_attention(outputs, side);
            }
            inputs = outputs;
        }
        if i > 0 {
            match cnn.upsample {
                Upsample::DepthToSpace => counter.conv(outputs, 4 * outputs, 3, side, side),
                Upsample::Nearest => counter.conv(outputs, outputs, 3, 2 * side, 2 * side),
            }
            side *= 2;
        }
    }
    counter.norm_and_silu(inputs, side);
    counter.conv(inputs, 3 * cnn.stem * cnn.stem, 3, side, side);
}

fn middle(counter: &mut FlopCounter, cnn: &CnnConfig, channels: i64, side: i64) {
    counter.res_block(channels, channels, side);
    if cnn.attention {
        counter.conv_attention(channels, side);
    }
    counter.res_block(channels, channels, side);
}

/// Counts both transformers and the alignment head; returns the number of codes.
fn transformers(cost: &mut Cost, config: &GigaTokConfig, places: i64) -> i64 {
    let (tokens, qformer) = match config.latent {
        Latent::Sequence { num_tokens, .. } => (num_tokens, true),
        Latent::Grid { layers } => (places, layers == GridLayers::Qformer),
    };
    let z = config.cnn.z_channels;
    let (encoder, decoder) = (config.encoder.resolve(), config.decoder.resolve());
    let stack = |counter: &mut FlopCounter, width, layers, queries, keys| {
        counter.linear(z, width, keys);
        for _ in 0..layers {
            match qformer {
                true => counter.cross_attention_layer(width, queries, keys),
                false => counter.transformer_layer(width, queries),
            }
        }
    };
    stack(&mut cost.encode, encoder.width, encoder.layers, tokens, places);
    if qformer {
        cost.encode.linear(encoder.width, encoder.width, tokens);
    }
    cost.encode.linear(encoder.width, z, tokens);
    stack(&mut cost.decode, decoder.width, decoder.layers, places, tokens);
    cost.decode.linear(9 * decoder.width, z, places);
    if let Some(alignment) = config.alignment {
        let from = if alignment.decoder_layer().is_some() { decoder.width } else { z };
        cost.alignment.linear(from, 4 * from, places);
        cost.alignment.linear(4 * from, 4 * from, places);
        cost.alignment.linear(4 * from, alignment.width, places);
    }
    tokens
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
        let cost = config.cost(4.0);
        let (encode, decode) = (cost.encode_flops(), cost.decode_flops());
        assert!((encode / 151e9 - 1.0).abs() < 0.01, "{encode:e}");
        assert!((decode / 265e9 - 1.0).abs() < 0.01, "{decode:e}");
    }
}
