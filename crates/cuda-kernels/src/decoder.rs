//! The walk through the layers.
//!
//! B sequences, S new positions of each, R = B · S rows, D width, H heads, G heads of keys and values, K channels of a head, F hidden width of the
//! feed-forward, V vocabulary, L positions of the cache

use libtorch_ext::cuda_kernel::{Arg, Launch};
use tch::{Kind, Tensor};

use crate::cache::Layer;
use crate::weight::{FEW, Fused, Weight};
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
    fn head(&self) -> i64 {
        self.width / self.heads
    }

    /// What the kernels cannot do with it, if anything.
    pub fn obstacle(&self) -> Option<String> {
        let head = self.head();
        let checks = [
            (self.width % 16 == 0, format!("a width of {}, which is no multiple of 16", self.width)),
            (self.hidden % 16 == 0, format!("a hidden width of {}, which is no multiple of 16", self.hidden)),
            (self.vocabulary % 2 == 0, format!("an odd number of codes, {}", self.vocabulary)),
            (head % 2 == 0 && head <= 256, format!("heads of {head} channels")),
            (self.length <= 8192, format!("a sequence of {} positions, more than 8192", self.length)),
        ];
        checks.into_iter().find_map(|(fits, found)| (!fits).then_some(found))
    }
}

/// Weights of a layer, of any kind.
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
}

#[derive(Debug)]
struct Packed {
    wqkv: Weight,
    wo: Weight,
    gate_up: Weight,
    down: Weight,
    attention_norm: Tensor,
    ffn_norm: Tensor,
}

/// Tables that inputs are made of, fp32 or bf16 both.
#[derive(Debug)]
pub struct Inputs {
    /// (V, D).
    pub embedding: Tensor,
    /// (positions, D), where there are learned ones.
    pub positions: Option<Tensor>,
    /// The position of the table's first row.
    pub before: i64,
}

/// A transformer's layers and output in the form that the kernels read.
#[derive(Debug)]
pub struct Decoder {
    shape: Shape,
    format: Format,
    cache: Format,
    blocks: Vec<Packed>,
    norm: Tensor,
    output: Weight,
    rope: Option<Tensor>, // (L, K/2, 2) fp32
    inputs: Inputs,
    engine: &'static dyn Launch,
}

fn single(t: &Tensor) -> Tensor {
    t.to_kind(Kind::Float).contiguous()
}

impl Decoder {
    /// Without layers yet. `norm` (D) and `output` (V, D) follow the layers; `rope` is (L, K/2, 2).
    pub fn new(
        shape: Shape,
        [format, cache]: [Format; 2],
        norm: &Tensor,
        output: &Tensor,
        rope: Option<&Tensor>,
        inputs: Inputs,
        engine: &'static dyn Launch,
    ) -> Self {
        Decoder {
            shape,
            format,
            cache,
            blocks: vec![],
            norm: single(norm),
            output: Weight::new(output, format),
            rope: rope.map(single),
            inputs,
            engine,
        }
    }

    /// Appends a layer.
    pub fn push(&mut self, block: Block) {
        self.blocks.push(Packed {
            wqkv: Weight::new(block.wqkv, self.format),
            wo: Weight::new(block.wo, self.format),
            gate_up: Weight::new(&Tensor::cat(&[block.w1, block.w3], 0), self.format),
            down: Weight::new(block.w2, self.format),
            attention_norm: single(block.attention_norm),
            ffn_norm: single(block.ffn_norm),
        });
    }

    /// Bytes of the weights that a step reads.
    pub fn bytes(&self) -> usize {
        let block =
            |b: &Packed| [&b.wqkv, &b.wo, &b.gate_up, &b.down].iter().map(|w| w.bytes()).sum::<usize>();
        self.blocks.iter().map(block).sum::<usize>() + self.output.bytes()
    }

    /// A cache for `sequences` sequences.
    pub fn new_cache(&self, sequences: i64) -> KvCache {
        let Shape { kv_heads, length, .. } = self.shape;
        let size = [sequences, kv_heads, length];
        KvCache::new(self.blocks.len(), size, self.shape.head(), self.cache, self.engine.device())
    }

    /// What runs the kernels.
    pub fn engine(&self) -> &'static dyn Launch {
        self.engine
    }

    /// Codes (B, S) int64 whose first is at `position`, (1) int64 → inputs (B, S, D) fp32.
    ///
    /// # Errors
    /// The kernel does not compile or cannot be launched.
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
            Arg::Int(width),
            Arg::Int(s),
            Arg::Int(*before),
        ];
        let program = sources::embed(embedding.kind() == Kind::Float);
        self.engine.launch(&program, "embed", [b * s, 1], &args)?;
        Ok(output.view([b, s, width]))
    }

    /// Runs inputs (B, S, D) whose first is at `position`, (1) int64; logits of the last `wanted`, (B, wanted, V) fp32. The
    /// inputs' memory may be written to.
    ///
    /// # Errors
    /// The kernels do not compile or cannot be launched.
    pub fn forward(&self, cache: &KvCache, x: Tensor, position: &Tensor, wanted: i64) -> Result<Tensor> {
        let (b, s, d) = x.size3().expect("inputs are (B, S, D)");
        let stream = x.to_kind(Kind::Float).reshape([b * s, d]);
        let place = Place { cache, position, sequences: b, count: s };
        let last = |t: &Tensor| t.view([b, s, d]).narrow(1, s - wanted, wanted).reshape([b * wanted, d]);
        let logits = if b * s <= FEW {
            self.few(&stream, place)?;
            self.normed_product(&self.output, &last(&stream).contiguous(), &self.norm)?
        } else {
            let rest = self.many(&stream, place)?;
            let normed = self.add_and_norm(&stream, rest.as_ref(), &self.norm)?;
            self.output.many(self.engine, &last(&normed))?.to_kind(Kind::Float)
        };
        Ok(logits.view([b, wanted, self.shape.vocabulary]))
    }

    fn empty(&self, size: [i64; 2], kind: Kind) -> Tensor {
        Tensor::empty(size, (kind, self.engine.device()))
    }

    /// All layers over the residual stream (R, D), in five launches each.
    fn few(&self, stream: &Tensor, place: Place) -> Result<()> {
        let (engine, eps, rows) = (self.engine, self.shape.eps, stream.size()[0]);
        for (block, layer) in self.blocks.iter().zip(&place.cache.layers) {
            let qkv = self.normed_product(&block.wqkv, stream, &block.attention_norm)?;
            let attended = self.attention(&qkv, place, layer)?;
            block.wo.few(engine, &attended, Fused::Add, stream)?;
            let hidden = self.empty([rows, self.shape.hidden], Kind::Float);
            block.gate_up.few(engine, stream, Fused::NormSwiglu(&block.ffn_norm, eps), &hidden)?;
            block.down.few(engine, &hidden, Fused::Add, stream)?;
        }
        Ok(())
    }

    /// All layers over the residual stream (R, D); the last branch is returned, still to be added.
    fn many(&self, stream: &Tensor, place: Place) -> Result<Option<Tensor>> {
        let (engine, rows) = (self.engine, stream.size()[0]);
        let mut branch = None;
        for (block, layer) in self.blocks.iter().zip(&place.cache.layers) {
            let normed = self.add_and_norm(stream, branch.as_ref(), &block.attention_norm)?;
            let qkv = block.wqkv.many(engine, &normed)?;
            let attended = self.attention(&qkv, place, layer)?;
            let attended = block.wo.many(engine, &attended)?;
            let normed = self.add_and_norm(stream, Some(&attended), &block.ffn_norm)?;
            let both = block.gate_up.many(engine, &normed)?;
            let hidden = self.empty([rows, self.shape.hidden], Kind::BFloat16);
            let args = [Arg::Tensor(&both), Arg::Tensor(&hidden), Arg::Int(self.shape.hidden)];
            sources::launch_rows(engine, "swiglu", rows, &args)?;
            branch = Some(block.down.many(engine, &hidden)?);
        }
        Ok(branch)
    }

    /// Few rows (R, D) → (R, O) fp32, through a norm.
    fn normed_product(&self, weight: &Weight, input: &Tensor, gamma: &Tensor) -> Result<Tensor> {
        let output = self.empty([input.size()[0], weight.outputs()], Kind::Float);
        weight.few(self.engine, input, Fused::Norm(gamma, self.shape.eps), &output)?;
        Ok(output)
    }

    /// Adds a branch (R, D) bf16 to the stream and norms it, → (R, D) bf16.
    fn add_and_norm(&self, stream: &Tensor, branch: Option<&Tensor>, gamma: &Tensor) -> Result<Tensor> {
        let (rows, d) = stream.size2().expect("the stream is (R, D)");
        let output = self.empty([rows, d], Kind::BFloat16);
        let args = [
            Arg::Tensor(stream),
            branch.into(),
            Arg::Tensor(gamma),
            Arg::Tensor(&output),
            Arg::Int(d),
            Arg::Float(self.shape.eps),
        ];
        sources::launch_rows(self.engine, "add_and_norm", rows, &args)?;
        Ok(output)
    }

    /// Queries, keys and values (R, (H + 2G) · K) → (R, D), through the cache.
    fn attention(&self, qkv: &Tensor, place: Place, layer: &Layer) -> Result<Tensor> {
        let Place { cache, position, sequences, count } = place;
        let output = self.empty([sequences * count, self.shape.width], qkv.kind());
        let args = [
            Arg::Tensor(qkv),
            Arg::Tensor(&output),
            Arg::Tensor(&layer.keys.numbers),
            Arg::Tensor(&layer.values.numbers),
            layer.keys.scale.as_ref().into(),
            layer.values.scale.as_ref().into(),
            self.rope.as_ref().into(),
            cache.seen.as_ref().into(),
            Arg::Tensor(position),
            Arg::Int(count),
            Arg::Int(cache.seen.as_ref().map_or(0, |seen| seen.size()[1])),
            Arg::Int(self.shape.kv_heads),
        ];
        let program =
            sources::attention(cache.format, self.shape.head(), cache.length, qkv.kind() == Kind::Float);
        let blocks = [sequences * count, self.shape.heads];
        let kernels: &[_] = if count == 1 { &["write_and_attend"] } else { &["write_only", "attend_only"] };
        for &kernel in kernels {
            self.engine.launch(&program, kernel, blocks, &args)?;
        }
        Ok(output)
    }
}

/// Where rows stand.
#[derive(Clone, Copy)]
struct Place<'a> {
    cache: &'a KvCache,
    position: &'a Tensor, // (1) int64, of the first of each sequence
    sequences: i64,
    count: i64,
}
