//! The decoder-only transformer of LlamaGen (Sun et al., 2024, arXiv 2406.06525) and GigaTok.
//!
//! GigaTok's `gpt_1d` (learned positions) and LlamaGen's `gpt` (2-D RoPE), class- and
//! text-conditional: Llama with a condition as prefix (RMSNorm, SwiGLU, no biases, untied output).
//! GigaTok's `gpt_1d` with RoPE, which cannot generate upstream, is not supported. Decoding with a
//! cache is in `decode`.
//!
//! B batch, T prefix length, N codes, S positions, D width, V vocabulary

mod teacher_forced;

use base::{Init, Mode, Scope};
use nn::{Linear, RmsNorm, add_dropped, drop_path, dropout, swiglu};
use tch::{Kind, Tensor};

use crate::attention::{Attention, AttentionInput};
use crate::conditioning::Conditioning;
use crate::config::{ArConfig, ConditioningConfig, DropoutConfig, PositionConfig};
use crate::embeddings::Embeddings;
use crate::error::Result;
use crate::kv_cache::KvCache;
use crate::modulation::{LayerModulation, ModelCondition, ModelModulation, modulate};
use crate::position::rope_2d;
use crate::spec::ArSpec;

pub use teacher_forced::TeacherForced;

/// `w2(silu(w1 x) · w3 x)`.
#[derive(Debug)]
pub(crate) struct FeedForward {
    pub w1: Linear,
    pub w2: Linear,
    pub w3: Linear,
}

impl FeedForward {
    fn new(p: &Scope, config: &ArConfig) -> Self {
        let (width, hidden, weight) = (config.width, config.feed_forward_width(), config.weight_init());
        FeedForward {
            w1: Linear::new(&(p / "w1"), width, hidden, weight, None),
            w3: Linear::new(&(p / "w3"), width, hidden, weight, None),
            w2: Linear::new(&(p / "w2"), hidden, width, weight, None),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.w2.forward(&swiglu(&self.w1.forward(x), &self.w3.forward(x)))
    }
}

/// `h = x + gate · attention(norm(x))`, `y = h + gate · feed_forward(norm(h))`.
#[derive(Debug)]
pub(crate) struct Block {
    pub attention: Attention,
    pub feed_forward: FeedForward,
    pub attention_norm: RmsNorm,
    pub ffn_norm: RmsNorm,
    pub modulation: LayerModulation,
    pub drop_path: f64,
}

impl Block {
    fn new(p: &Scope, config: &ArConfig, index: i64) -> Self {
        let depth = (config.layers - 1).max(1) as f64;
        Block {
            attention: Attention::new(&(p / "attention"), config),
            feed_forward: FeedForward::new(&(p / "feed_forward"), config),
            attention_norm: RmsNorm::new(&(p / "attention_norm"), config.width, config.norm_eps),
            ffn_norm: RmsNorm::new(&(p / "ffn_norm"), config.width, config.norm_eps),
            modulation: LayerModulation::new(p, config.width, config.modulation),
            drop_path: config.dropout.drop_path * index as f64 / depth,
        }
    }

    pub fn forward(
        &self,
        x: &Tensor,
        condition: &ModelCondition,
        input: &AttentionInput,
        cache: Option<(&mut KvCache, usize)>,
        rates: &DropoutConfig,
        train: bool,
    ) -> Tensor {
        let parts = self.modulation.parts(condition);
        let before = |x: Tensor, i: usize| match &parts {
            Some(p) => modulate(&x, &p[i], &p[i + 1]),
            None => x,
        };
        let add = |x: &Tensor, branch: Tensor, rate: f64, i: usize| match &parts {
            None if self.drop_path == 0.0 => add_dropped(x, &branch, rate, train),
            None => x + drop_path(&dropout(&branch, rate, train), self.drop_path, train),
            Some(p) => x + drop_path(&dropout(&branch, rate, train), self.drop_path, train) * &p[i],
        };
        let a = self.attention.forward(&before(self.attention_norm.forward(x), 0), input, cache);
        let h = add(x, a, rates.residual, 2);
        let f = self.feed_forward.forward(&before(self.ffn_norm.forward(&h), 3));
        add(&h, f, rates.feed_forward, 5)
    }
}

/// The transformer. Its fields are visible to the decoding backends, each of which matches all of
/// them.
#[derive(Debug)]
pub struct Gpt {
    pub(crate) embeddings: Embeddings,
    pub(crate) rope: Option<Tensor>, // (T + N, K/2, 2)
    pub(crate) layers: Vec<Block>,
    pub(crate) norm: RmsNorm,
    pub(crate) modulation: ModelModulation,
    pub(crate) output: Linear,
    pub(crate) config: ArConfig,
    pub(crate) spec: ArSpec,
}

impl Gpt {
    /// Creates variables under `p` with the official names. Activations have the dtype of the
    /// variables; see [`Gpt::set_compute`].
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent.
    pub fn new(p: &Scope, config: &ArConfig) -> Result<Self> {
        config.check()?;
        let (d, v, n) = (config.width, config.vocab_size, config.num_tokens);
        let prefix_len = config.conditioning.prefix_len();
        let rope = match config.position {
            PositionConfig::Learned => None,
            PositionConfig::Rope2d => Some(rope_2d(prefix_len, n, d / config.heads, config.rope_base)),
        };
        Ok(Gpt {
            embeddings: Embeddings::new(p, config),
            rope: rope.map(|table| table.to_device(p.vars().device())),
            layers: (0..config.layers).map(|i| Block::new(&(p / "layers" / i), config, i)).collect(),
            norm: RmsNorm::new(&(p / "norm"), d, config.norm_eps),
            modulation: ModelModulation::new(p, d, config.modulation),
            output: Linear::new(&(p / "output"), d, v, Init::Const(0.0), None),
            config: config.clone(),
            spec: ArSpec {
                vocab_size: v,
                num_tokens: n,
                prefix_len,
                num_classes: match config.conditioning {
                    ConditioningConfig::Class { num_classes, .. } => Some(num_classes),
                    ConditioningConfig::Text { .. } => None,
                },
            },
        })
    }

    /// Sets the dtype of activations, if it differs from the weights' (bf16 with fp32 master
    /// weights).
    pub fn set_compute(&mut self, kind: Kind) {
        self.embeddings.compute = kind;
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &ArConfig {
        &self.config
    }

    /// Embeds conditions → prefix (B, T, D) without positions. Conditions are dropped where
    /// `drop` (B,) bool is true.
    pub fn embed_condition(&self, cond: &Conditioning, drop: Option<&Tensor>) -> Tensor {
        self.embeddings.condition(cond, drop)
    }

    /// Teacher-forced logits of all codes, (B, N) → (B, N, V) fp32, in training with dropout and
    /// dropped conditions.
    pub fn forward(&self, cond: &Conditioning, codes: &Tensor, mode: Mode) -> Tensor {
        let (pass, x) = self.teacher_forced(cond, codes, mode);
        let x = pass.head_input(&pass.layers(x, self.layers.len()));
        self.output.forward(&x).to_kind(Kind::Float)
    }

    /// Hidden states (B, T + N − 1, D) after `layer` (1-based) of the teacher-forced pass,
    /// without the final norm. For probing, in GigaTok at half of the layers.
    pub fn hidden(&self, cond: &Conditioning, codes: &Tensor, layer: usize, mode: Mode) -> Tensor {
        let (pass, x) = self.teacher_forced(cond, codes, mode);
        pass.layers(x, layer)
    }

    /// Runs new positions (B, S, D) through the layers and the cache.
    pub(crate) fn cached_layers(
        &self,
        x: Tensor,
        input: &AttentionInput,
        condition: Option<&Tensor>,
        cache: &mut KvCache,
    ) -> Tensor {
        let modulation = self.modulation.condition(condition);
        let rates = &self.config.dropout;
        self.layers.iter().enumerate().fold(x, |x, (i, layer)| {
            layer.forward(&x, &modulation, input, Some((&mut *cache, i)), rates, false)
        })
    }

    /// Final norm with its modulation → input of the output layer.
    fn final_norm(&self, x: &Tensor, condition: Option<&Tensor>) -> Tensor {
        self.modulation.finish(self.norm.forward(x), condition)
    }

    /// Final norm and output layer, (B, S, D) → logits (B, S, V) fp32.
    pub(crate) fn final_norm_and_head(&self, x: &Tensor, condition: Option<&Tensor>) -> Tensor {
        self.output.forward(&self.final_norm(x, condition)).to_kind(Kind::Float)
    }
}

/// Attention mask of a text prefix, (B, T) → (B, 1, S, S) bool: causal, padding of the prefix
/// excluded, the diagonal always included (LlamaGen `t2i.py`).
pub(crate) fn prefix_lm_mask(prefix: &Tensor, length: i64) -> Tensor {
    let (b, t) = prefix.size2().expect("masks are (B, T)");
    let options = (Kind::Bool, prefix.device());
    let rest = Tensor::ones([b, length - t], options);
    let columns = Tensor::cat(&[prefix.to_kind(Kind::Bool), rest], 1).view([b, 1, 1, length]);
    let causal = Tensor::ones([length, length], options).tril(0);
    let diagonal = Tensor::eye(length, options);
    columns.logical_and(&causal).logical_or(&diagonal)
}
