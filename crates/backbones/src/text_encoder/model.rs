//! The encoder's layers.
//!
//! B batch, T tokens, D width, H heads, K head width, F feed-forward width

use base::{Init, Scope};
use nn::{Linear, RmsNorm};
use tch::{Device, Kind, Tensor};

use super::config::T5Config;

/// Tokens → features.
#[derive(Debug)]
pub struct T5Encoder {
    tokens: Tensor, // (V, D)
    positions: RelativePositions,
    blocks: Vec<Block>,
    norm: RmsNorm,
    config: T5Config,
    compute: Kind,
}

fn linear(p: &Scope, name: &str, inputs: i64, outputs: i64, std: f64) -> Linear {
    Linear::new(&(p / name), inputs, outputs, Init::Normal { std }, None)
}

/// A learned number for each head and class of distance, added to the scores of every block.
#[derive(Debug)]
struct RelativePositions {
    table: Tensor, // (buckets, H)
    buckets: i64,
    farthest: i64,
}

impl RelativePositions {
    fn new(p: &Scope, config: &T5Config) -> Self {
        let (buckets, d) = (config.relative_attention_num_buckets, config.d_model as f64);
        let init = Init::Normal { std: d.powf(-0.5) };
        RelativePositions {
            table: (p / "relative_attention_bias").var("weight", &[buckets, config.num_heads], init),
            buckets,
            farthest: config.relative_attention_max_distance,
        }
    }

    /// (1, H, T, T).
    fn bias(&self, length: i64, kind: Kind) -> Tensor {
        let classes = distance_classes(length, self.buckets, self.farthest, self.table.device());
        Tensor::embedding(&self.table, &classes, -1, false, false)
            .permute([2, 0, 1])
            .unsqueeze(0)
            .to_kind(kind)
    }
}

/// (T, T) int64, query by key: half of the classes for each direction, of them half for exact
/// distances and the rest logarithmic up to `farthest`. The logarithm is taken in fp32 as in the
/// original, since it decides by rounding.
fn distance_classes(length: i64, buckets: i64, farthest: i64, device: Device) -> Tensor {
    let at = Tensor::arange(length, (Kind::Int64, device));
    let relative = at.unsqueeze(0) - at.unsqueeze(1); // key - query
    let half = buckets / 2;
    let exact = half / 2;
    let distance = relative.abs();
    let scale = (half - exact) as f64 / (farthest as f64 / exact as f64).ln();
    let far =
        ((distance.clamp_min(1).to_kind(Kind::Float) / exact as f64).log() * scale).to_kind(Kind::Int64);
    let far = (far + exact).clamp_max(half - 1);
    let class = distance.where_self(&distance.lt(exact), &far);
    class + relative.gt(0).to_kind(Kind::Int64) * half
}

/// Self-attention without scaling of the scores.
#[derive(Debug)]
struct SelfAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: i64,
    width: i64,
}

impl SelfAttention {
    fn new(p: &Scope, config: &T5Config) -> Self {
        let (d, inner) = (config.d_model, config.num_heads * config.d_kv);
        let fan = (d as f64).powf(-0.5);
        SelfAttention {
            q: linear(p, "q", d, inner, ((d * config.d_kv) as f64).powf(-0.5)),
            k: linear(p, "k", d, inner, fan),
            v: linear(p, "v", d, inner, fan),
            o: linear(p, "o", inner, d, (inner as f64).powf(-0.5)),
            heads: config.num_heads,
            width: config.d_kv,
        }
    }

    /// (B, T, D) and what is added to the scores, (B, H, T, T), → (B, T, D).
    fn forward(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        let (b, t, _) = x.size3().expect("activations are (B, T, D)");
        let heads = |layer: &Linear| layer.forward(x).view([b, t, self.heads, self.width]).transpose(1, 2);
        let scores = heads(&self.q).matmul(&heads(&self.k).transpose(-2, -1)) + bias;
        let shares = scores.softmax(-1, Kind::Float).to_kind(x.kind());
        let y = shares.matmul(&heads(&self.v)); // (B, H, T, K)
        self.o.forward(&y.transpose(1, 2).reshape([b, t, self.heads * self.width]))
    }
}

/// `wo(gelu(wi_0 x) · wi_1 x)`.
#[derive(Debug)]
struct FeedForward {
    wi_0: Linear,
    wi_1: Linear,
    wo: Linear,
}

impl FeedForward {
    fn new(p: &Scope, config: &T5Config) -> Self {
        let (d, f) = (config.d_model, config.d_ff);
        FeedForward {
            wi_0: linear(p, "wi_0", d, f, (d as f64).powf(-0.5)),
            wi_1: linear(p, "wi_1", d, f, (d as f64).powf(-0.5)),
            wo: linear(p, "wo", f, d, (f as f64).powf(-0.5)),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.wo.forward(&(self.wi_0.forward(x).gelu("tanh") * self.wi_1.forward(x)))
    }
}

#[derive(Debug)]
struct Block {
    attention_norm: RmsNorm,
    attention: SelfAttention,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl Block {
    fn new(p: &Scope, config: &T5Config) -> Self {
        let (attention, feed_forward) = (p / "layer" / 0, p / "layer" / 1);
        let norm = |p: &Scope| RmsNorm::new(&(p / "layer_norm"), config.d_model, config.layer_norm_epsilon);
        Block {
            attention: SelfAttention::new(&(&attention / "SelfAttention"), config),
            attention_norm: norm(&attention),
            feed_forward: FeedForward::new(&(&feed_forward / "DenseReluDense"), config),
            feed_forward_norm: norm(&feed_forward),
        }
    }

    fn forward(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        let x = x + self.attention.forward(&self.attention_norm.forward(x), bias);
        &x + self.feed_forward.forward(&self.feed_forward_norm.forward(&x))
    }
}

impl T5Encoder {
    /// Variables under `p` with Hugging Face's names. Activations have the variables' dtype; see
    /// [`T5Encoder::set_compute`].
    pub fn new(p: &Scope, config: &T5Config) -> Self {
        let tokens =
            (p / "shared").var("weight", &[config.vocab_size, config.d_model], Init::Normal { std: 1.0 });
        let p = p / "encoder";
        let first = &p / "block" / 0 / "layer" / 0 / "SelfAttention";
        T5Encoder {
            tokens,
            positions: RelativePositions::new(&first, config),
            blocks: (0..config.num_layers).map(|i| Block::new(&(&p / "block" / i), config)).collect(),
            norm: RmsNorm::new(&(&p / "final_layer_norm"), config.d_model, config.layer_norm_epsilon),
            config: config.clone(),
            compute: p.vars().kind(),
        }
    }

    /// Dtype of activations, if it differs from the weights' (bf16 over fp32 masters).
    pub fn set_compute(&mut self, kind: Kind) {
        self.compute = kind;
    }

    /// Its configuration.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Tokens (B, T) int64 and where they are text, (B, T), one or zero → features (B, T, D).
    /// Rows of padding hold whatever comes out there.
    pub fn forward(&self, tokens: &Tensor, mask: &Tensor) -> Tensor {
        self.layers(tokens, mask).pop().expect("the last is the output")
    }

    /// The input of each block, then the output: (B, T, D) each.
    pub fn layers(&self, tokens: &Tensor, mask: &Tensor) -> Vec<Tensor> {
        let (b, t) = tokens.size2().expect("tokens are (B, T)");
        let closed = mask.eq(0).view([b, 1, 1, t]).to_kind(self.compute) * lowest(self.compute);
        let bias = self.positions.bias(t, self.compute) + closed;
        let mut x = Tensor::embedding(&self.tokens, tokens, -1, false, false).to_kind(self.compute);
        let mut all = vec![];
        for block in &self.blocks {
            let next = block.forward(&x, &bias);
            all.push(std::mem::replace(&mut x, next));
        }
        all.push(self.norm.forward(&x));
        all
    }
}

/// Most negative number of a dtype, for masked positions.
fn lowest(kind: Kind) -> f64 {
    match kind {
        Kind::BFloat16 => -3.389_531_389_251_535_5e38,
        Kind::Half => -65504.0,
        _ => f64::from(f32::MIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Build, Vars};

    #[test]
    fn distances_fall_into_the_classes_of_the_paper() {
        let classes = distance_classes(300, 32, 128, Device::Cpu);
        let from_zero = |key: i64| classes.int64_value(&[0, key]);
        assert_eq!([0, 1, 7, 8, 127, 128, 299].map(from_zero), [0, 17, 23, 24, 31, 31, 31]);
        assert_eq!([1, 7, 8, 200].map(|query| classes.int64_value(&[query, 0])), [1, 7, 8, 15]);
    }

    #[test]
    fn published_encoders_have_the_published_parameters() {
        for (name, parameters) in [("small", 35_332_800), ("xl", 1_223_527_424)] {
            let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
            T5Encoder::new(&vars.root(), &T5Config::named(name).unwrap());
            assert_eq!(vars.num_parameters(), parameters, "{name}");
        }
    }
}
