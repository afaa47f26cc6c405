//! Cost of the transformer: arithmetic, activations and memory traffic.
//!
//! L layers, D width, V vocabulary, S positions. A multiplication and an addition are two
//! operations. The forward pass costs 2 operations a weight and position, and 4·L·D·S a position
//! for attention, counted in full (the convention of PaLM and nanoGPT); the backward pass costs
//! twice as much.

use crate::config::{ArConfig, PositionConfig};
use crate::model::Gpt;

/// Costs of a configuration, see [`ArConfig::cost`].
#[derive(Debug, Clone, Copy)]
pub struct ArCost<'a> {
    config: &'a ArConfig,
}

impl ArConfig {
    /// Arithmetic, activations and memory traffic of this model for one image.
    pub fn cost(&self) -> ArCost<'_> {
        ArCost { config: self }
    }
}

impl Gpt {
    /// Arithmetic, activations and memory traffic for one image.
    pub fn cost(&self) -> ArCost<'_> {
        self.config().cost()
    }
}

impl ArCost<'_> {
    /// Positions of one image: its condition and its codes.
    pub fn positions(self) -> f64 {
        (self.config.conditioning.prefix_len() + self.config.num_tokens) as f64
    }

    /// Operations of one forward pass over an image (teacher forcing).
    pub fn forward_flops(self) -> f64 {
        self.positions() * (self.layers_flops() + self.head_flops())
    }

    /// Operations of a training step for one image: forward and backward, and with `recompute` all
    /// layers forward a second time, but not the head.
    pub fn training_flops(self, recompute: bool) -> f64 {
        let layers = if recompute { 4.0 } else { 3.0 };
        self.positions() * (layers * self.layers_flops() + 3.0 * self.head_flops())
    }

    /// Operations of decoding one image with a KV cache: one row, all steps.
    pub fn decode_flops(self) -> f64 {
        let attention = 4.0 * self.layer_widths() * self.mean_context();
        self.config.num_tokens as f64 * (2.0 * self.weights() + attention)
    }

    /// Bytes read while decoding `rows` rows side by side, all steps: each step reads all weights
    /// (`weight_bytes`) once, and the keys and values of every row so far, of `cache_element_bytes`
    /// bytes a number.
    pub fn decode_bytes(self, rows: f64, weight_bytes: f64, cache_element_bytes: f64) -> f64 {
        let kv_share = self.config.num_kv_heads() as f64 / self.config.heads as f64;
        let cache = 2.0 * kv_share * self.layer_widths() * cache_element_bytes * self.mean_context();
        self.config.num_tokens as f64 * (weight_bytes + rows * cache)
    }

    /// Weights in matrix products.
    pub fn weights(self) -> f64 {
        self.config.product_weights() as f64
    }

    /// Bytes of activations that the forward pass of one image keeps for the backward pass, with
    /// activations of `element_bytes` bytes; with `recompute` each layer's input and one layer's
    /// activations.
    pub fn activation_bytes(self, element_bytes: f64, recompute: bool) -> f64 {
        let (layers, width) = (self.config.layers as f64, self.config.width as f64);
        let layer = self.layer_activation_bytes(element_bytes);
        let all = if recompute { layers * element_bytes * width + layer } else { layers * layer };
        self.positions() * all
    }

    /// Activations of a layer at one position, in widths: two norms' inputs and normalised inputs
    /// in fp32; in the activations' dtype both norms' outputs, q, k and v, the attention's output
    /// twice, and four times the feed-forward's width. Rotary embedding keeps queries and keys in
    /// fp32. A CPU's fused layers keep less: no normalised inputs, three times the feed-forward's
    /// width, no masks.
    fn layer_activation_bytes(self, element_bytes: f64) -> f64 {
        let config = self.config;
        let d = config.width as f64;
        let rotary = if config.position == PositionConfig::Rope2d { 2.0 } else { 0.0 };
        let rates = &config.dropout;
        let masks = f64::from(u8::from(rates.residual > 0.0)) + f64::from(u8::from(rates.feed_forward > 0.0));
        let hidden = config.feed_forward_width() as f64;
        let qkv = config.qkv_width() as f64;
        4.0 * (4.0 + rotary) * d + element_bytes * ((4.0 + 2.0) * d + qkv + 4.0 * hidden) + masks * d
    }

    /// Forward operations of all layers at one position.
    fn layers_flops(self) -> f64 {
        2.0 * self.weights() + 4.0 * self.layer_widths() * self.positions() - self.head_flops()
    }

    /// Forward operations of the head at one position.
    fn head_flops(self) -> f64 {
        2.0 * (self.config.vocab_size * self.config.width) as f64
    }

    /// L·D.
    fn layer_widths(self) -> f64 {
        (self.config.layers * self.config.width) as f64
    }

    /// Positions that a decoding step attends to, on average.
    fn mean_context(self) -> f64 {
        self.config.conditioning.prefix_len() as f64 + (self.config.num_tokens as f64 - 1.0) / 2.0
    }
}
