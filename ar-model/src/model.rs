//! The decoder-only transformer of LlamaGen (Sun et al., 2024, arXiv 2406.06525) and GigaTok.
//!
//! Loads GigaTok's `gpt_1d` (learned positions) and LlamaGen's `gpt` (2-D RoPE), class- and text-conditional. It
//! is Llama with a condition as prefix: RMSNorm, SwiGLU, no biases, untied output. GigaTok's `gpt_1d` with RoPE
//! cannot generate upstream and is left out; so is grouped-query attention, which no model uses.
//!
//! B batch, T prefix length, N codes, S positions, D width, V vocabulary

mod teacher_forced;

use base::nn::{Linear, RmsNorm, drop_path, dropout};
use base::{Init, Mode, Scope};
use tch::{Kind, Tensor};

use crate::attention::{Attention, Context};
use crate::conditioning::{Conditioning, Embedder, WEIGHT};
use crate::config::{ArConfig, ConditioningConfig, DropoutConfig, PositionConfig};
use crate::error::{Error, Result};
use crate::kv_cache::KvCache;
use crate::modulation::{LayerModulation, ModelCondition, ModelModulation, modulate};
use crate::position::rope_2d;

pub use teacher_forced::TeacherForced;

const EPS: f64 = 1e-5;

/// `w2(silu(w1 x) · w3 x)`.
#[derive(Debug)]
struct FeedForward {
    w1: Linear,
    w2: Linear,
    w3: Linear,
}

impl FeedForward {
    fn new(p: &Scope, width: i64, hidden: i64) -> Self {
        FeedForward {
            w1: Linear::new(&(p / "w1"), width, hidden, WEIGHT, None),
            w3: Linear::new(&(p / "w3"), width, hidden, WEIGHT, None),
            w2: Linear::new(&(p / "w2"), hidden, width, WEIGHT, None),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.w2.forward(&(self.w1.forward(x).silu() * self.w3.forward(x)))
    }
}

/// `h = x + gate · attention(norm(x))`, `y = h + gate · feed_forward(norm(h))`.
#[derive(Debug)]
struct Block {
    attention: Attention,
    feed_forward: FeedForward,
    attention_norm: RmsNorm,
    ffn_norm: RmsNorm,
    modulation: LayerModulation,
    drop_path: f64,
}

impl Block {
    fn new(p: &Scope, config: &ArConfig, index: i64) -> Self {
        let depth = (config.layers - 1).max(1) as f64;
        Block {
            attention: Attention::new(&(p / "attention"), config),
            feed_forward: FeedForward::new(&(p / "feed_forward"), config.width, config.feed_forward_width()),
            attention_norm: RmsNorm::new(&(p / "attention_norm"), config.width, EPS),
            ffn_norm: RmsNorm::new(&(p / "ffn_norm"), config.width, EPS),
            modulation: LayerModulation::new(p, config.width, config.modulation),
            drop_path: config.dropout.drop_path * index as f64 / depth,
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        condition: &ModelCondition,
        context: &Context,
        cache: Option<(&mut KvCache, usize)>,
        rates: &DropoutConfig,
        train: bool,
    ) -> Tensor {
        let parts = self.modulation.parts(condition);
        let before = |x: Tensor, i: usize| match &parts {
            Some(p) => modulate(&x, &p[i], &p[i + 1]),
            None => x,
        };
        let after = |x: Tensor, rate: f64, i: usize| {
            let x = drop_path(&dropout(&x, rate, train), self.drop_path, train);
            match &parts {
                Some(p) => x * &p[i],
                None => x,
            }
        };
        let a = self.attention.forward(&before(self.attention_norm.forward(x), 0), context, cache);
        let h = x + after(a, rates.residual, 2);
        let f = self.feed_forward.forward(&before(self.ffn_norm.forward(&h), 3));
        &h + after(f, rates.feed_forward, 5)
    }
}

/// What a transformer tells others about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArSpec {
    /// Number of different codes (V).
    pub vocab_size: i64,
    /// Codes of one image (N).
    pub num_tokens: i64,
    /// Positions in front of the first code (T).
    pub prefix_len: i64,
    /// Number of classes, for class conditioning.
    pub num_classes: Option<i64>,
}

/// A model that codes can be drawn from, one after the other.
pub trait AutoregressiveModel {
    /// What is kept between steps.
    type Cache;
    /// What it makes.
    fn spec(&self) -> &ArSpec;
    /// Refuses conditions of another kind, shape or range, so that the other methods need not.
    ///
    /// # Errors
    /// Says what was expected.
    fn check_conditioning(&self, cond: &Conditioning) -> Result<()>;
    /// The null condition, once for each of `like`.
    fn null_conditioning(&self, like: &Conditioning) -> Conditioning;
    /// A cache for `batch` sequences; it may be used again for any number of generations.
    fn new_cache(&self, batch: i64) -> Self::Cache;
    /// Runs the condition; logits of the first code, (B, V) fp32.
    fn prefill(&self, cond: &Conditioning, cache: &mut Self::Cache) -> Tensor;
    /// Runs one code, (B, 1), at `position` of the sequence (T + t for code t); logits of the next, (B, V) fp32.
    fn decode_step(&self, codes: &Tensor, position: i64, cache: &mut Self::Cache) -> Tensor;
    /// Teacher-forced logits of all codes, (B, N) → (B, N, V) fp32. In training, dropout and condition drop act.
    fn logits(&self, cond: &Conditioning, codes: &Tensor, mode: Mode) -> Tensor;
}

/// The transformer.
#[derive(Debug)]
pub struct Gpt {
    cls_embedding: Embedder,
    tok_embeddings: Tensor,               // (V, D)
    positional_embedding: Option<Tensor>, // (1 + N, D)
    rope: Option<Tensor>,                 // (T + N, K/2, 2)
    layers: Vec<Block>,
    norm: RmsNorm,
    modulation: ModelModulation,
    output: Linear,
    config: ArConfig,
    spec: ArSpec,
    compute: Kind,
}

impl Gpt {
    /// Variables under `p` with the official names. Activations follow the kind of the variables; see
    /// [`Gpt::set_compute`].
    ///
    /// # Errors
    /// A configuration that cannot be built.
    pub fn new(p: &Scope, config: &ArConfig) -> Result<Self> {
        config.check()?;
        let (d, v, n) = (config.width, config.vocab_size, config.num_tokens);
        let prefix_len = config.conditioning.prefix_len();
        let device = p.vars().device();
        let (learned, rope) = match config.position {
            PositionConfig::Learned => {
                let init = Init::Normal { std: (d as f64).powf(-0.5) };
                (Some(p.var("positional_embedding", &[1 + n, d], init)), None)
            }
            PositionConfig::Rope2d => {
                (None, Some(rope_2d(prefix_len, n, d / config.heads).to_device(device)))
            }
        };
        Ok(Gpt {
            cls_embedding: Embedder::new(&(p / "cls_embedding"), d, config.conditioning),
            tok_embeddings: (p / "tok_embeddings").var("weight", &[v, d], WEIGHT),
            positional_embedding: learned,
            rope,
            layers: (0..config.layers).map(|i| Block::new(&(p / "layers" / i), config, i)).collect(),
            norm: RmsNorm::new(&(p / "norm"), d, EPS),
            modulation: ModelModulation::new(p, d, config.modulation),
            output: Linear::new(&(p / "output"), d, v, Init::Const(0.0), None),
            config: config.clone(),
            spec: ArSpec {
                vocab_size: v,
                num_tokens: n,
                prefix_len,
                num_classes: match config.conditioning {
                    ConditioningConfig::Class { num_classes } => Some(num_classes),
                    ConditioningConfig::Text { .. } => None,
                },
            },
            compute: p.vars().kind(),
        })
    }

    /// The kind of activations, where it differs from the weights' (bf16 over fp32 masters).
    pub fn set_compute(&mut self, kind: Kind) {
        self.compute = kind;
    }

    /// What it was built from.
    pub fn config(&self) -> &ArConfig {
        &self.config
    }

    /// The prefix (B, T, D) before positions, with the conditions dropped where `drop` (B,) bool says so.
    pub fn embed_condition(&self, cond: &Conditioning, drop: Option<&Tensor>) -> Tensor {
        match drop {
            Some(drop) => self.cls_embedding.forward(&self.cls_embedding.drop(cond, drop), self.compute),
            None => self.cls_embedding.forward(cond, self.compute),
        }
    }

    /// Hidden states (B, T + N − 1, D) after `layer` (1-based) of the teacher-forced pass, without the final
    /// norm. For probing (gigatok.md §7.4: layer n/2).
    pub fn hidden(&self, cond: &Conditioning, codes: &Tensor, layer: usize, mode: Mode) -> Tensor {
        let (pass, x) = self.teacher_forced(cond, codes, mode);
        pass.layers(x, layer)
    }

    fn embed_codes(&self, codes: &Tensor) -> Tensor {
        Tensor::embedding(&self.tok_embeddings, codes, -1, false, false).to_kind(self.compute)
    }

    /// Adds rows `from..` of the learned table, if there is one.
    fn add_positions(&self, x: Tensor, from: i64) -> Tensor {
        match &self.positional_embedding {
            Some(table) => {
                let rows = table.narrow(0, from, x.size()[1]).to_kind(x.kind());
                x + rows
            }
            None => x,
        }
    }

    /// Final norm and its modulation: the output layer's input.
    fn normed(&self, x: &Tensor, condition: Option<&Tensor>) -> Tensor {
        self.modulation.finish(self.norm.forward(x), condition)
    }

    /// Runs new positions through the cache; logits of the last one, (B, V).
    fn cached(&self, x: Tensor, from: i64, mask: Option<&Tensor>, cache: &mut KvCache) -> Tensor {
        let last = x.size()[1] - 1;
        let condition = cache.condition.as_ref().map(Tensor::shallow_clone);
        let modulation = self.modulation.condition(condition.as_ref());
        let context = Context { from, rope: self.rope.as_ref(), mask };
        let mut x = x;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &modulation, &context, Some((&mut *cache, i)), &self.config.dropout, false);
        }
        let x = self.normed(&x.narrow(1, last, 1), condition.as_ref());
        self.output.forward(&x).to_kind(Kind::Float).squeeze_dim(1)
    }
}

/// (B, T) → (B, 1, S, S) bool: causal, prefix columns only where there is text, the diagonal always
/// (LlamaGen `t2i.py`).
fn prefix_lm_mask(prefix: &Tensor, length: i64) -> Tensor {
    let (b, t) = prefix.size2().expect("masks are (B, T)");
    let options = (Kind::Bool, prefix.device());
    let rest = Tensor::ones([b, length - t], options);
    let columns = Tensor::cat(&[prefix.to_kind(Kind::Bool), rest], 1).view([b, 1, 1, length]);
    let causal = Tensor::ones([length, length], options).tril(0);
    let diagonal = Tensor::eye(length, options);
    columns.logical_and(&causal).logical_or(&diagonal)
}

impl AutoregressiveModel for Gpt {
    type Cache = KvCache;

    fn spec(&self) -> &ArSpec {
        &self.spec
    }

    fn check_conditioning(&self, cond: &Conditioning) -> Result<()> {
        let fail =
            |expected: String, found: String| Err(Error::Input { what: "conditions", expected, found });
        match (self.config.conditioning, cond) {
            (ConditioningConfig::Class { num_classes }, Conditioning::Class(ids)) => {
                if ids.dim() != 1 || ids.kind() != Kind::Int64 {
                    return fail("int64 (B,)".into(), format!("{:?} {:?}", ids.kind(), ids.size()));
                }
                let (low, high) = (ids.min().int64_value(&[]), ids.max().int64_value(&[]));
                if low < 0 || high > num_classes {
                    return fail(format!("classes in 0..={num_classes}"), format!("{low}..={high}"));
                }
                Ok(())
            }
            (ConditioningConfig::Text { length, feature_width }, Conditioning::Text { features, mask }) => {
                let (f, m) = (features.size(), mask.size());
                if f.len() != 3 || f[1..] != [length, feature_width] || m != f[..2] {
                    return fail(
                        format!("features (B, {length}, {feature_width}), mask (B, {length})"),
                        format!("{f:?}, {m:?}"),
                    );
                }
                Ok(())
            }
            (ConditioningConfig::Class { .. }, _) => fail("classes".into(), "text".into()),
            (ConditioningConfig::Text { .. }, _) => fail("text".into(), "classes".into()),
        }
    }

    fn null_conditioning(&self, like: &Conditioning) -> Conditioning {
        self.cls_embedding.null(like)
    }

    fn new_cache(&self, batch: i64) -> KvCache {
        let c = &self.config;
        let device = self.tok_embeddings.device();
        KvCache::new(
            c.layers,
            batch,
            c.heads,
            self.spec.prefix_len + c.num_tokens,
            c.width / c.heads,
            self.compute,
            device,
        )
    }

    fn prefill(&self, cond: &Conditioning, cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let x = self.add_positions(self.embed_condition(cond, None), 0);
        cache.condition = self.modulation.needs_condition().then(|| x.shallow_clone());
        cache.prefix_mask = cond.prefix_mask().map(|m| m.to_kind(Kind::Bool));
        let mask = cache.prefix_mask.as_ref().map(|m| prefix_lm_mask(m, self.spec.prefix_len));
        self.cached(x, 0, mask.as_ref(), cache)
    }

    fn decode_step(&self, codes: &Tensor, position: i64, cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let x = self.add_positions(self.embed_codes(codes), position);
        let mask = cache.prefix_mask.as_ref().map(|m| {
            let (b, t) = m.size2().expect("masks are (B, T)");
            let rest = Tensor::ones([b, position + 1 - t], (Kind::Bool, m.device()));
            Tensor::cat(&[m, &rest], 1).view([b, 1, 1, position + 1])
        });
        self.cached(x, position, mask.as_ref(), cache)
    }

    fn logits(&self, cond: &Conditioning, codes: &Tensor, mode: Mode) -> Tensor {
        let (pass, x) = self.teacher_forced(cond, codes, mode);
        let x = pass.head_input(&pass.layers(x, self.layers.len()));
        self.output.forward(&x).to_kind(Kind::Float)
    }
}
