//! Counting a forward pass through convolutions and transformers for one image.

/// Arithmetic of a forward pass and what it leaves for the backward pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes kept.
    pub kept: f64,
    /// Bytes of an activation.
    kind: f64,
}

impl Work {
    /// Nothing yet, with activations of `kind` bytes.
    pub fn new(kind: f64) -> Work {
        Work { flops: 0.0, kept: 0.0, kind }
    }

    /// A convolution `k`×`k` to `side`×`side` positions, whose input of `from`×`from` positions is kept.
    pub fn conv(&mut self, inputs: i64, outputs: i64, k: i64, side: i64, from: i64) {
        self.flops += (2 * k * k * inputs * outputs * side * side) as f64;
        self.kept += self.kind * (inputs * from * from) as f64;
    }

    /// A group norm, which keeps its input in fp32, and a SiLU, which keeps its own.
    pub fn norm_and_silu(&mut self, channels: i64, side: i64) {
        self.kept += (4.0 + self.kind) * (channels * side * side) as f64;
    }

    /// Two times norm, SiLU and 3×3 convolution, and a shortcut where the channels change.
    pub fn res_block(&mut self, inputs: i64, outputs: i64, side: i64) {
        for (inputs, outputs) in [(inputs, outputs), (outputs, outputs)] {
            self.norm_and_silu(inputs, side);
            self.conv(inputs, outputs, 3, side, side);
        }
        if inputs != outputs {
            self.conv(inputs, outputs, 1, side, side);
        }
    }

    /// Single-head attention over `side`² positions by 1×1 convolutions.
    pub fn conv_attention(&mut self, channels: i64, side: i64) {
        let n = (side * side) as f64;
        self.kept += 4.0 * channels as f64 * n;
        for _ in 0..4 {
            self.conv(channels, channels, 1, side, side);
        }
        self.flops += 4.0 * n * n * channels as f64;
        self.kept += 3.0 * self.kind * channels as f64 * n;
    }

    /// A layer of `weights`·`width`² weights with `attentions` attentions over `n` positions. It keeps `fp32` times
    /// the width in fp32 and `narrow` times in the activations' kind, at every position.
    pub fn layer(&mut self, width: i64, n: i64, weights: f64, attentions: f64, fp32: f64, narrow: f64) {
        let (d, n) = (width as f64, n as f64);
        self.flops += 2.0 * weights * d * d * n + attentions * 4.0 * n * n * d;
        self.kept += (4.0 * fp32 + self.kind * narrow) * d * n;
    }

    /// Linear layer at `n` positions, whose input is kept.
    pub fn linear(&mut self, inputs: i64, outputs: i64, n: i64) {
        self.flops += (2 * inputs * outputs * n) as f64;
        self.kept += self.kind * (inputs * n) as f64;
    }
}
