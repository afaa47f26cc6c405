//! The decoder-only transformer of LlamaGen (Sun et al., 2024, arXiv 2406.06525) and GigaTok.
//!
//! Loads GigaTok's `gpt_1d` (learned positions) and LlamaGen's `gpt` (2-D RoPE), class- and text-conditional. It
//! is Llama with a condition as prefix: RMSNorm, SwiGLU, no biases, untied output. GigaTok's `gpt_1d` with RoPE
//! cannot generate upstream and is left out.
//!
//! B batch, T prefix length, N codes, S positions, D width, V vocabulary

mod teacher_forced;

use base::nn::{Linear, RmsNorm, add_dropped, drop_path, dropout, swiglu};
use base::{Init, Mode, Scope};
use libtorch_ext::cuda_kernel::Launch;
use tch::{Device, Kind, Tensor};

use crate::attention::{Attention, Context, fused_width, is_fused};
use crate::conditioning::{Conditioning, Embedder};
use crate::config::{ArConfig, ConditioningConfig, DropoutConfig, PositionConfig};
use crate::error::{Error, Result};
use crate::gpu;
use crate::kv_cache::{Cache, KvCache};
use crate::modulation::{LayerModulation, ModelCondition, ModelModulation, modulate};
use crate::position::{Place, rope_2d};

pub use teacher_forced::TeacherForced;

/// `w2(silu(w1 x) · w3 x)`.
#[derive(Debug)]
struct FeedForward {
    w1: Linear,
    w2: Linear,
    w3: Linear,
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
            feed_forward: FeedForward::new(&(p / "feed_forward"), config),
            attention_norm: RmsNorm::new(&(p / "attention_norm"), config.width, config.norm_eps),
            ffn_norm: RmsNorm::new(&(p / "ffn_norm"), config.width, config.norm_eps),
            modulation: LayerModulation::new(p, config.width, config.modulation),
            drop_path: config.dropout.drop_path * index as f64 / depth,
        }
    }

    /// wqkv, wo, w1, w2, w3.
    pub fn matrices(&self) -> [&Tensor; 5] {
        let ([wqkv, wo], ff) = (self.attention.matrices(), &self.feed_forward);
        [wqkv, wo, ff.w1.weight(), ff.w2.weight(), ff.w3.weight()]
    }

    /// Weights of the norms before attention and feed-forward.
    pub fn norms(&self) -> [&Tensor; 2] {
        [self.attention_norm.weight(), self.ffn_norm.weight()]
    }

    /// Weight and bias of the norms of queries and keys.
    pub fn qk_norm(&self) -> Option<[&Tensor; 4]> {
        self.attention.qk_norm()
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
        let add = |x: &Tensor, branch: Tensor, rate: f64, i: usize| match &parts {
            None if self.drop_path == 0.0 => add_dropped(x, &branch, rate, train),
            None => x + drop_path(&dropout(&branch, rate, train), self.drop_path, train),
            Some(p) => x + drop_path(&dropout(&branch, rate, train), self.drop_path, train) * &p[i],
        };
        let a = self.attention.forward(&before(self.attention_norm.forward(x), 0), context, cache);
        let h = add(x, a, rates.residual, 2);
        let f = self.feed_forward.forward(&before(self.ffn_norm.forward(&h), 3));
        add(&h, f, rates.feed_forward, 5)
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
    /// Runs K codes at once, (B, K), from `position` on; logits of the code after each, (B, K, V) fp32. What the cache
    /// held from `position` on is replaced, so a guess that proved wrong is simply run over.
    fn decode_block(&self, codes: &Tensor, position: i64, cache: &mut Self::Cache) -> Tensor;
    /// A row's result is the same in every batch that is a whole multiple of this many rows. Matrix products round
    /// differently where a few rows are left over from the kernel's tile, and such a difference, of 1e-6 in a logit,
    /// moves an image across the edge between two codes now and then (3 of 16 images of a random model between
    /// batches of 1 and 16). libtorch's tiles have 8 rows or fewer, and a product with 8 takes no longer than one
    /// with 2.
    fn row_tile(&self) -> i64 {
        8
    }
    /// Whether it decodes with threads of its own, so that libtorch's had better leave the processor alone.
    fn has_own_threads(&self) -> bool {
        false
    }
    /// Teacher-forced logits of all codes, (B, N) → (B, N, V) fp32. In training, dropout and condition drop act.
    fn logits(&self, cond: &Conditioning, codes: &Tensor, mode: Mode) -> Tensor;
}

/// A model whose decoding step can be recorded once and replayed.
pub trait RecordableModel: AutoregressiveModel {
    /// As [`AutoregressiveModel::decode_step`], made of the same operations on the same memory whatever the position,
    /// (1) int64 on the model's device and below `length`: nothing waits for the host, and all that changes from one
    /// step to the next is in tensors. The model must not be packed for the CPU.
    fn decode_step_at(
        &self,
        codes: &Tensor,
        position: &Tensor,
        length: i64,
        cache: &mut Self::Cache,
    ) -> Tensor;
    /// What runs kernels of its own, for a model that was packed for a GPU.
    fn engine(&self) -> Option<&'static dyn Launch>;
}

/// Weights in the form of the kernels that decode with them.
#[derive(Debug)]
enum Packed {
    Cpu(kernels::Decoder),
    Gpu(cuda_kernels::Decoder),
}

/// How a cache is decoded with.
enum Way<'a> {
    Tensors(&'a mut KvCache),
    Cpu(&'a kernels::Decoder, &'a mut kernels::KvCache),
    Gpu(&'a cuda_kernels::Decoder, &'a mut cuda_kernels::KvCache),
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
    packed: Option<Packed>,
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
                let table = rope_2d(prefix_len, n, d / config.heads, config.rope_base);
                (None, Some(table.to_device(device)))
            }
        };
        Ok(Gpt {
            cls_embedding: Embedder::new(&(p / "cls_embedding"), config),
            tok_embeddings: (p / "tok_embeddings").var("weight", &[v, d], config.weight_init()),
            positional_embedding: learned,
            rope,
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
            compute: p.vars().kind(),
            packed: None,
        })
    }

    /// The kind of activations, where it differs from the weights' (bf16 over fp32 masters).
    pub fn set_compute(&mut self, kind: Kind) {
        self.compute = kind;
    }

    /// Bytes of the weights that a decode step reads, once packed (see [`Gpt::pack`], [`Gpt::pack_on_gpu`]).
    pub fn packed_bytes(&self) -> Option<usize> {
        self.packed.as_ref().map(|packed| match packed {
            Packed::Cpu(decoder) => decoder.bytes(),
            Packed::Gpu(decoder) => decoder.bytes(),
        })
    }

    /// From now on decoding goes through `decoder`, whose inputs are fp32.
    pub(crate) fn set_packed(&mut self, decoder: kernels::Decoder) {
        self.packed = Some(Packed::Cpu(decoder));
        self.compute = Kind::Float;
    }

    /// Likewise.
    pub(crate) fn set_packed_on_gpu(&mut self, decoder: cuda_kernels::Decoder) {
        self.packed = Some(Packed::Gpu(decoder));
        self.compute = Kind::Float;
    }

    pub(crate) fn device(&self) -> Device {
        self.tok_embeddings.device()
    }

    pub(crate) fn prefix_len(&self) -> i64 {
        self.spec.prefix_len
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.layers
    }

    /// Weights of the final norm and of the output layer; the rotary table.
    pub(crate) fn ends(&self) -> (&Tensor, &Tensor, Option<&Tensor>) {
        (self.norm.weight(), self.output.weight(), self.rope.as_ref())
    }

    /// What embeds codes.
    pub(crate) fn inputs(&self) -> cuda_kernels::Inputs {
        let table = |t: &Tensor| match t.kind() {
            Kind::BFloat16 => t.shallow_clone(),
            _ => t.to_kind(Kind::Float),
        };
        cuda_kernels::Inputs {
            embedding: table(&self.tok_embeddings),
            positions: self.positional_embedding.as_ref().map(table),
            before: self.spec.prefix_len - 1,
        }
    }

    /// Adaptive norms under a condition (B, 1, D): of each layer (B, 6, D), of the final norm (B, 2, D).
    pub(crate) fn modulations(&self, condition: &Tensor) -> Option<(Vec<Tensor>, Tensor)> {
        let last = Tensor::cat(&self.modulation.last_parts(Some(condition))?, 1);
        let shared = self.modulation.condition(Some(condition));
        let layer = |block: &Block| block.modulation.parts(&shared).map(|parts| Tensor::cat(&parts, 1));
        Some((self.layers.iter().filter_map(layer).collect(), last))
    }

    /// The condition with its positions, (B, T, D).
    pub(crate) fn prefix(&self, cond: &Conditioning) -> Tensor {
        self.condition_with_position(self.embed_condition(cond, None))
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

    /// Adds the learned table's row of the condition, if there is one. All positions of a text get the same: what
    /// stands where is in its features, and LlamaGen's rotary table has no positions there either.
    fn condition_with_position(&self, prefix: Tensor) -> Tensor {
        match &self.positional_embedding {
            Some(table) => prefix + table.narrow(0, 0, 1).to_kind(self.compute),
            None => prefix,
        }
    }

    /// Adds the learned table's rows of embedded codes, if there is one. The table has one row for all of the prefix.
    fn codes_with_positions(&self, codes: Tensor, place: Place) -> Tensor {
        match &self.positional_embedding {
            Some(table) => {
                let rows = place.rows(table, self.spec.prefix_len - 1, codes.size()[1]);
                codes + rows.to_kind(self.compute)
            }
            None => codes,
        }
    }

    /// Final norm and its modulation: the output layer's input.
    fn normed(&self, x: &Tensor, condition: Option<&Tensor>) -> Tensor {
        self.modulation.finish(self.norm.forward(x), condition)
    }

    fn way<'a>(&'a self, cache: &'a mut Cache) -> Way<'a> {
        match (&self.packed, cache) {
            (None, Cache::Tensors(cache)) => Way::Tensors(cache),
            (Some(Packed::Cpu(decoder)), Cache::Cpu(cache)) => Way::Cpu(decoder, cache),
            (Some(Packed::Gpu(decoder)), Cache::Gpu(cache)) => Way::Gpu(decoder, cache),
            _ => panic!("the cache was made before the model was packed"),
        }
    }

    /// Runs new positions, (B, S, D), through the cache; logits of the last `wanted` of them, (B, wanted, V).
    fn cached(
        &self,
        x: Tensor,
        place: Place,
        wanted: i64,
        mask: Option<&Tensor>,
        cache: &mut KvCache,
    ) -> Tensor {
        let skipped = x.size()[1] - wanted;
        let condition = cache.condition.as_ref().map(Tensor::shallow_clone);
        let modulation = self.modulation.condition(condition.as_ref());
        let context = Context { place, rope: self.rope.as_ref(), mask, dropout: 0.0 };
        let mut x = x;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &modulation, &context, Some((&mut *cache, i)), &self.config.dropout, false);
        }
        let x = self.normed(&x.narrow(1, skipped, wanted), condition.as_ref());
        self.output.forward(&x).to_kind(Kind::Float)
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

/// What `k` new positions from `position` on may see of the L = position + k, (B or 1, 1, k, L) bool: what comes before
/// each, and of the prefix (B, T) what is text. `None` is everything.
fn block_mask(prefix: Option<&Tensor>, position: i64, k: i64, device: Device) -> Option<Tensor> {
    let columns = prefix.map(|m| {
        let (b, t) = m.size2().expect("masks are (B, T)");
        let rest = Tensor::ones([b, position + k - t], (Kind::Bool, device));
        Tensor::cat(&[m, &rest], 1).view([b, 1, 1, position + k])
    });
    let causal = (k > 1).then(|| Tensor::ones([1, 1, k, position + k], (Kind::Bool, device)).tril(position));
    match (columns, causal) {
        (Some(columns), Some(causal)) => Some(columns.logical_and(&causal)),
        (columns, causal) => columns.or(causal),
    }
}

/// What one new position may see of the first `length` places: (1 or B, 1, 1, length) bool.
fn step_mask(prefix: Option<&Tensor>, position: &Tensor, length: i64) -> Tensor {
    let past = Tensor::arange(length, (Kind::Int64, position.device())).le_tensor(position); // (length)
    match prefix {
        Some(m) => {
            let (b, t) = m.size2().expect("masks are (B, T)");
            let rest = Tensor::ones([b, length - t], (Kind::Bool, m.device()));
            let columns = Tensor::cat(&[m, &rest], 1);
            columns.logical_and(&past).view([b, 1, 1, length])
        }
        None => past.view([1, 1, 1, length]),
    }
}

impl RecordableModel for Gpt {
    fn decode_step_at(&self, codes: &Tensor, position: &Tensor, length: i64, cache: &mut Cache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let cache = match self.way(cache) {
            Way::Tensors(cache) => cache,
            Way::Gpu(decoder, cache) => return gpu::codes(decoder, cache, codes, position).squeeze_dim(1),
            Way::Cpu(..) => panic!("a model packed for the CPU has no tensors to record"),
        };
        let place = Place::At { position, length };
        let x = self.codes_with_positions(self.embed_codes(codes), place);
        let mask = step_mask(cache.prefix_mask.as_ref(), position, length);
        self.cached(x, place, 1, Some(&mask), cache).squeeze_dim(1)
    }

    fn engine(&self) -> Option<&'static dyn Launch> {
        match &self.packed {
            Some(Packed::Gpu(decoder)) => Some(decoder.engine()),
            _ => None,
        }
    }
}

impl AutoregressiveModel for Gpt {
    type Cache = Cache;

    fn spec(&self) -> &ArSpec {
        &self.spec
    }

    fn check_conditioning(&self, cond: &Conditioning) -> Result<()> {
        let fail =
            |expected: String, found: String| Err(Error::Input { what: "conditions", expected, found });
        match (self.config.conditioning, cond) {
            (ConditioningConfig::Class { num_classes, null_class }, Conditioning::Class(ids)) => {
                if ids.dim() != 1 || ids.kind() != Kind::Int64 {
                    return fail("int64 (B,)".into(), format!("{:?} {:?}", ids.kind(), ids.size()));
                }
                let (low, high) = (ids.min().int64_value(&[]), ids.max().int64_value(&[]));
                let last = if null_class { num_classes } else { num_classes - 1 };
                let why = if null_class { "" } else { " (it has no null class, which guidance needs)" };
                if low < 0 || high > last {
                    return fail(format!("classes in 0..={last}{why}"), format!("{low}..={high}"));
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

    fn new_cache(&self, batch: i64) -> Cache {
        let c = &self.config;
        let length = self.spec.prefix_len + c.num_tokens;
        match &self.packed {
            Some(Packed::Cpu(decoder)) => {
                return Cache::Cpu(decoder.new_cache(batch as usize, length as usize));
            }
            Some(Packed::Gpu(decoder)) => return Cache::Gpu(decoder.new_cache(batch)),
            None => {}
        }
        let (kind, device, head) = (self.compute, self.device(), c.width / c.heads);
        let width = if is_fused(kind, device) { fused_width(head) } else { head };
        Cache::Tensors(KvCache::new(c.layers, [batch, c.num_kv_heads(), length], width, kind, device))
    }

    fn prefill(&self, cond: &Conditioning, cache: &mut Cache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let cache = match self.way(cache) {
            Way::Tensors(cache) => cache,
            Way::Cpu(decoder, cache) => return self.packed_prefill(decoder, cond, cache),
            Way::Gpu(decoder, cache) => return self.gpu_prefill(decoder, cond, cache),
        };
        let x = self.prefix(cond);
        let condition = self.modulation.needs_condition().then(|| x.copy());
        cache.keep(condition, cond.prefix_mask().map(|m| m.to_kind(Kind::Bool).copy()));
        let mask = cache.prefix_mask.as_ref().map(|m| prefix_lm_mask(m, self.spec.prefix_len));
        self.cached(x, Place::From(0), 1, mask.as_ref(), cache).squeeze_dim(1)
    }

    fn decode_step(&self, codes: &Tensor, position: i64, cache: &mut Cache) -> Tensor {
        self.decode_block(codes, position, cache).squeeze_dim(1)
    }

    fn decode_block(&self, codes: &Tensor, position: i64, cache: &mut Cache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let (_, k) = codes.size2().expect("codes are (B, K)");
        let place = Place::From(position);
        let embedded = || self.codes_with_positions(self.embed_codes(codes), place);
        let cache = match self.way(cache) {
            Way::Tensors(cache) => cache,
            Way::Cpu(decoder, cache) => return Gpt::packed_block(decoder, &embedded(), position, cache),
            Way::Gpu(decoder, cache) => {
                return gpu::codes(decoder, cache, codes, &cache.position(position));
            }
        };
        let x = embedded();
        let mask = block_mask(cache.prefix_mask.as_ref(), position, k, x.device());
        self.cached(x, place, k, mask.as_ref(), cache)
    }

    fn row_tile(&self) -> i64 {
        if self.packed.is_some() { 1 } else { 8 }
    }

    fn has_own_threads(&self) -> bool {
        matches!(self.packed, Some(Packed::Cpu(_)))
    }

    fn logits(&self, cond: &Conditioning, codes: &Tensor, mode: Mode) -> Tensor {
        let (pass, x) = self.teacher_forced(cond, codes, mode);
        if let Some(packed) = self.packed.as_ref().filter(|_| !mode.is_train()) {
            let _guard = tch::no_grad_guard();
            return match packed {
                Packed::Cpu(decoder) => self.packed_logits(decoder, cond, &x),
                Packed::Gpu(decoder) => self.gpu_logits(decoder, cond, x),
            };
        }
        let x = pass.head_input(&pass.layers(x, self.layers.len()));
        self.output.forward(&x).to_kind(Kind::Float)
    }
}
