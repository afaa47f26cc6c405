//! The forward pass through the layers.
//!
//! B sequences, S new positions of each, R = B · S rows, D width, H heads, G heads of keys and
//! values, K channels of a head, F hidden width of the feed-forward, V vocabulary, L positions of
//! the cache

use libtorch_ext::cuda_kernel::{Arg, KernelLauncher};
use tch::{Kind, Tensor};

use crate::cache::Layer;
use crate::weight::{Fused, GEMV_MAX_ROWS, Weight};
use crate::{Format, KvCache, Result, sources};

/// Sizes of a transformer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// D, a multiple of 16.
    pub width: i64,
    /// H; heads are even and at most 256 channels wide.
    pub heads: i64,
    /// G, a divisor of H.
    pub kv_heads: i64,
    /// F, a multiple of 16.
    pub hidden: i64,
    /// V, even.
    pub vocabulary: i64,
    /// L.
    pub length: i64,
    /// Epsilon of the RMS norms.
    pub eps: f64,
}

impl Shape {
    fn head_dim(&self) -> i64 {
        self.width / self.heads
    }

    /// The first property that the kernels do not support, if there is one.
    pub fn unsupported_reason(&self) -> Option<String> {
        let head = self.head_dim();
        let checks = [
            (self.width % 16 == 0, format!("a width of {}, which is not a multiple of 16", self.width)),
            (
                self.hidden % 16 == 0,
                format!("a hidden width of {}, which is not a multiple of 16", self.hidden),
            ),
            (self.vocabulary % 2 == 0, format!("an odd number of codes, {}", self.vocabulary)),
            (head % 2 == 0 && head <= 256, format!("heads of {head} channels")),
            (self.length <= 8192, format!("a sequence of {} positions, more than 8192", self.length)),
        ];
        checks.into_iter().find_map(|(fits, found)| (!fits).then_some(found))
    }
}

/// Weights of a layer, of any dtype.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// ((H + 2G) · K, D): rows of queries, keys, values.
    pub wqkv: &'a Tensor,
    /// (D, D).
    pub wo: &'a Tensor,
    /// (F, D), the gate.
    pub w1: &'a Tensor,
    /// (D, F).
    pub w2: &'a Tensor,
    /// (F, D).
    pub w3: &'a Tensor,
    /// (D).
    pub attention_norm: &'a Tensor,
    /// (D).
    pub ffn_norm: &'a Tensor,
    /// Weight and bias (K) of the queries' layer norm, then of the keys'.
    pub qk_norm: Option<[&'a Tensor; 4]>,
}

#[derive(Debug)]
struct PackedBlock {
    wqkv: Weight,
    wo: Weight,
    gate_up: Weight,
    down: Weight,
    attention_norm: Tensor,
    ffn_norm: Tensor,
    qk_norm: Option<Tensor>, // (4, K) fp32
}

/// Embedding tables, both fp32 or both bf16.
#[derive(Debug)]
pub struct Inputs {
    /// (V, D).
    pub embedding: Tensor,
    /// (positions, D), if positions are learned.
    pub positions: Option<Tensor>,
    /// Position of the first row of `positions`.
    pub before: i64,
}

/// A transformer's layers and output layer in the kernels' format.
#[derive(Debug)]
pub struct Decoder {
    shape: Shape,
    format: Format,
    cache: Format,
    blocks: Vec<PackedBlock>,
    norm: Tensor,
    output: Weight,
    rope: Option<Tensor>, // (L, K/2, 2) fp32
    inputs: Inputs,
    launcher: &'static dyn KernelLauncher,
}

fn to_f32(t: &Tensor) -> Tensor {
    t.to_kind(Kind::Float).contiguous()
}

impl Decoder {
    /// A decoder without layers. `norm` (D) and `output` (V, D) follow the layers; `rope` is
    /// (L, K/2, 2). The formats are those of weights and cache.
    pub fn new(
        shape: Shape,
        [format, cache]: [Format; 2],
        norm: &Tensor,
        output: &Tensor,
        rope: Option<&Tensor>,
        inputs: Inputs,
        launcher: &'static dyn KernelLauncher,
    ) -> Self {
        Decoder {
            shape,
            format,
            cache,
            blocks: vec![],
            norm: to_f32(norm),
            output: Weight::new(output, format),
            rope: rope.map(to_f32),
            inputs,
            launcher,
        }
    }

    /// Appends a layer.
    pub fn push(&mut self, block: Block) {
        self.blocks.push(PackedBlock {
            wqkv: Weight::new(block.wqkv, self.format),
            wo: Weight::new(block.wo, self.format),
            gate_up: Weight::new(&Tensor::cat(&[block.w1, block.w3], 0), self.format),
            down: Weight::new(block.w2, self.format),
            attention_norm: to_f32(block.attention_norm),
            ffn_norm: to_f32(block.ffn_norm),
            qk_norm: block.qk_norm.map(|parts| to_f32(&Tensor::stack(&parts, 0))),
        });
    }

    /// Bytes of the weights that a step reads.
    pub fn bytes(&self) -> usize {
        let block =
            |b: &PackedBlock| [&b.wqkv, &b.wo, &b.gate_up, &b.down].iter().map(|w| w.bytes()).sum::<usize>();
        self.blocks.iter().map(block).sum::<usize>() + self.output.bytes()
    }

    /// A cache for `sequences` sequences.
    pub fn new_cache(&self, sequences: i64) -> KvCache {
        let Shape { kv_heads, length, .. } = self.shape;
        let size = [sequences, kv_heads, length];
        KvCache::new(self.blocks.len(), size, self.shape.head_dim(), self.cache, self.launcher.device())
    }

    /// Launcher of the kernels.
    pub fn launcher(&self) -> &'static dyn KernelLauncher {
        self.launcher
    }

    /// Embeds codes (B, S) int64, the first at `position` (1) or, each sequence's, (B) int64 → inputs
    /// (B, S, D) fp32.
    ///
    /// # Errors
    /// Returns an error if the kernel does not compile or cannot be launched.
    pub fn embed(&self, codes: &Tensor, position: &Tensor) -> Result<Tensor> {
        let (b, s) = codes.size2().expect("codes are (B, S)");
        let Inputs { embedding, positions, before } = &self.inputs;
        let width = self.shape.width;
        let (codes, output) = (codes.contiguous(), self.empty([b * s, width], Kind::Float));
        let args = [
            Arg::Tensor(embedding),
            positions.as_ref().into(),
            Arg::Tensor(&codes),
            Arg::Tensor(position),
            Arg::Tensor(&output),
            Arg::Int(each(position)),
            Arg::Int(width),
            Arg::Int(s),
            Arg::Int(*before),
        ];
        let source = sources::embed(embedding.kind() == Kind::Float);
        self.launcher.launch(&source, "embed", [b * s, 1], &args)?;
        Ok(output.view([b, s, width]))
    }

    /// Runs inputs (B, S, D) in their places of the cache; logits of the last `wanted`,
    /// (B, wanted, V) fp32. May overwrite the inputs.
    ///
    /// # Errors
    /// Returns an error if the kernels do not compile or cannot be launched.
    pub fn forward(&self, cache: &KvCache, x: Tensor, places: Places, wanted: i64) -> Result<Tensor> {
        let (b, s, d) = x.size3().expect("inputs are (B, S, D)");
        let residual = x.to_kind(Kind::Float).reshape([b * s, d]);
        let step = StepInput { cache, places, sequences: b, count: s };
        let last = |t: &Tensor| t.view([b, s, d]).narrow(1, s - wanted, wanted).reshape([b * wanted, d]);
        let logits = if b * s <= GEMV_MAX_ROWS {
            self.layers_by_gemv(&residual, step)?;
            self.norm_gemv(&self.output, &last(&residual).contiguous(), &self.norm)?
        } else {
            let branch = self.layers_by_gemm(&residual, step)?;
            let normed = self.add_and_norm(&residual, branch.as_ref(), &self.norm)?;
            self.output.gemm(self.launcher, &last(&normed))?.to_kind(Kind::Float)
        };
        Ok(logits.view([b, wanted, self.shape.vocabulary]))
    }

    fn empty(&self, size: [i64; 2], kind: Kind) -> Tensor {
        Tensor::empty(size, (kind, self.launcher.device()))
    }

    /// All layers on the residual stream (R, D), in five launches each.
    fn layers_by_gemv(&self, residual: &Tensor, step: StepInput) -> Result<()> {
        let (launcher, eps, rows) = (self.launcher, self.shape.eps, residual.size()[0]);
        for (block, layer) in self.blocks.iter().zip(&step.cache.layers) {
            let qkv = self.norm_gemv(&block.wqkv, residual, &block.attention_norm)?;
            let attended = self.attention(&qkv, block, step, layer)?;
            block.wo.gemv(launcher, &attended, Fused::Add, residual)?;
            let hidden = self.empty([rows, self.shape.hidden], Kind::Float);
            block.gate_up.gemv(launcher, residual, Fused::NormSwiglu(&block.ffn_norm, eps), &hidden)?;
            block.down.gemv(launcher, &hidden, Fused::Add, residual)?;
        }
        Ok(())
    }

    /// All layers on the residual stream (R, D). Returns the last branch, which is not added yet.
    fn layers_by_gemm(&self, residual: &Tensor, step: StepInput) -> Result<Option<Tensor>> {
        let (launcher, rows) = (self.launcher, residual.size()[0]);
        let mut branch = None;
        for (block, layer) in self.blocks.iter().zip(&step.cache.layers) {
            let normed = self.add_and_norm(residual, branch.as_ref(), &block.attention_norm)?;
            let qkv = block.wqkv.gemm(launcher, &normed)?;
            let attended = self.attention(&qkv, block, step, layer)?;
            let attended = block.wo.gemm(launcher, &attended)?;
            let normed = self.add_and_norm(residual, Some(&attended), &block.ffn_norm)?;
            let gate_up = block.gate_up.gemm(launcher, &normed)?;
            let hidden = self.empty([rows, self.shape.hidden], Kind::BFloat16);
            let args = [Arg::Tensor(&gate_up), Arg::Tensor(&hidden), Arg::Int(self.shape.hidden)];
            sources::launch_rows(launcher, "swiglu", rows, &args)?;
            branch = Some(block.down.gemm(launcher, &hidden)?);
        }
        Ok(branch)
    }

    /// RMS norm and product of a few rows: (R, D) → (R, O) fp32.
    fn norm_gemv(&self, weight: &Weight, input: &Tensor, gamma: &Tensor) -> Result<Tensor> {
        let output = self.empty([input.size()[0], weight.outputs()], Kind::Float);
        weight.gemv(self.launcher, input, Fused::Norm(gamma, self.shape.eps), &output)?;
        Ok(output)
    }

    /// Adds a branch (R, D) bf16 to the residual stream, and norms the sum → (R, D) bf16.
    fn add_and_norm(&self, residual: &Tensor, branch: Option<&Tensor>, gamma: &Tensor) -> Result<Tensor> {
        let (rows, d) = residual.size2().expect("the residual stream is (R, D)");
        let output = self.empty([rows, d], Kind::BFloat16);
        let args = [
            Arg::Tensor(residual),
            branch.into(),
            Arg::Tensor(gamma),
            Arg::Tensor(&output),
            Arg::Int(d),
            Arg::Float(self.shape.eps),
        ];
        sources::launch_rows(self.launcher, "add_and_norm", rows, &args)?;
        Ok(output)
    }

    /// Attention over the cache: queries, keys and values (R, (H + 2G) · K) → (R, D).
    fn attention(&self, qkv: &Tensor, block: &PackedBlock, step: StepInput, layer: &Layer) -> Result<Tensor> {
        let StepInput { cache, places: Places { position, rows }, sequences, count } = step;
        let output = self.empty([sequences * count, self.shape.width], qkv.kind());
        let args = [
            Arg::Tensor(qkv),
            Arg::Tensor(&output),
            Arg::Tensor(&layer.keys.data),
            Arg::Tensor(&layer.values.data),
            layer.keys.scale.as_ref().into(),
            layer.values.scale.as_ref().into(),
            block.qk_norm.as_ref().into(),
            self.rope.as_ref().into(),
            cache.prefix_mask.as_ref().into(),
            Arg::Tensor(position),
            rows.into(),
            Arg::Int(each(position)),
            Arg::Int(count),
            Arg::Int(cache.prefix_mask.as_ref().map_or(0, |mask| mask.size()[1])),
            Arg::Int(self.shape.kv_heads),
        ];
        let source =
            sources::attention(cache.format, self.shape.head_dim(), cache.length, qkv.kind() == Kind::Float);
        let blocks = [sequences * count, self.shape.heads];
        let kernels: &[_] = if count == 1 { &["write_and_attend"] } else { &["write_only", "attend_only"] };
        for &kernel in kernels {
            self.launcher.launch(&source, kernel, blocks, &args)?;
        }
        Ok(output)
    }
}

/// Places of B sequences of inputs in a cache, on its device.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Position of the first input: (1) of all sequences, or (B) of each, int64.
    pub position: &'a Tensor,
    /// Sequence of the cache for each, (B) int64; `None`: the first B in their order.
    pub rows: Option<&'a Tensor>,
}

/// 1 where each sequence has a position of its own, the stride of the kernels.
fn each(position: &Tensor) -> i64 {
    i64::from(position.numel() > 1)
}

/// Cache and positions of a call's rows.
#[derive(Clone, Copy)]
struct StepInput<'a> {
    cache: &'a KvCache,
    places: Places<'a>,
    sequences: i64,
    count: i64,
}
