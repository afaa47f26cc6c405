//! Cost of a forward pass through convolutions and transformers, counted layer by layer for one
//! image.

/// Arithmetic of a forward pass and the activations that it keeps for the backward pass. A
/// multiplication and an addition are two operations; norms and activation functions are free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlopCounter {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes of activations kept.
    pub activation_bytes: f64,
    /// Bytes of one activation.
    element_bytes: f64,
}

impl FlopCounter {
    /// Starts at 0, with activations of `element_bytes` bytes.
    pub fn new(element_bytes: f64) -> Self {
        FlopCounter { flops: 0.0, activation_bytes: 0.0, element_bytes }
    }

    /// A convolution `k`×`k` to `side`×`side` positions, which keeps its input of `from`×`from`
    /// positions.
    pub fn conv(&mut self, inputs: i64, outputs: i64, k: i64, side: i64, from: i64) {
        self.flops += (2 * k * k * inputs * outputs * side * side) as f64;
        self.activation_bytes += self.element_bytes * (inputs * from * from) as f64;
    }

    /// A group norm, which keeps its input in fp32, and a SiLU, which keeps its own.
    pub fn norm_and_silu(&mut self, channels: i64, side: i64) {
        self.activation_bytes += (4.0 + self.element_bytes) * (channels * side * side) as f64;
    }

    /// Twice norm, SiLU and 3×3 convolution, and a pointwise shortcut if the channels change.
    pub fn res_block(&mut self, inputs: i64, outputs: i64, side: i64) {
        for (inputs, outputs) in [(inputs, outputs), (outputs, outputs)] {
            self.norm_and_silu(inputs, side);
            self.conv(inputs, outputs, 3, side, side);
        }
        if inputs != outputs {
            self.conv(inputs, outputs, 1, side, side);
        }
    }

    /// Single-head attention over `side`² positions by pointwise convolutions.
    pub fn conv_attention(&mut self, channels: i64, side: i64) {
        let n = (side * side) as f64;
        self.activation_bytes += 4.0 * channels as f64 * n;
        for _ in 0..4 {
            self.conv(channels, channels, 1, side, side);
        }
        self.flops += 4.0 * n * n * channels as f64;
        self.activation_bytes += 3.0 * self.element_bytes * channels as f64 * n;
    }

    /// A linear layer at `n` positions, which keeps its input.
    pub fn linear(&mut self, inputs: i64, outputs: i64, n: i64) {
        self.flops += (2 * inputs * outputs * n) as f64;
        self.activation_bytes += self.element_bytes * (inputs * n) as f64;
    }

    /// A transformer layer of 12·`width`² weights over `n` positions.
    pub fn transformer_layer(&mut self, width: i64, n: i64) {
        self.self_attention_layer(width, n);
        self.keep(width, n, 2.0, 16.0);
    }

    /// The same layer with a cross-attention to `keys` positions, of 4·`width`² weights more.
    pub fn cross_attention_layer(&mut self, width: i64, n: i64, keys: i64) {
        self.self_attention_layer(width, n);
        let (d, n_f, k) = (width as f64, n as f64, keys as f64);
        self.flops += 4.0 * d * d * (n_f + k) + 4.0 * n_f * k * d;
        self.keep(width, n, 3.0, 24.0);
    }

    fn self_attention_layer(&mut self, width: i64, n: i64) {
        let (d, n) = (width as f64, n as f64);
        self.flops += 24.0 * d * d * n + 4.0 * n * n * d;
    }

    /// Keeps `fp32` times the width in fp32 and `narrow` times in the activations' dtype, at every
    /// position.
    fn keep(&mut self, width: i64, n: i64, fp32: f64, narrow: f64) {
        self.activation_bytes += (4.0 * fp32 + self.element_bytes * narrow) * (width * n) as f64;
    }
}
