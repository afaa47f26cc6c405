//! A Llama-like decoder (RMSNorm, SwiGLU, no biases) that runs a few new positions through a KV
//! cache.
//!
//! All threads run the layers in step. In each layer a thread computes keys and values of its heads
//! and the queries that share them, writes the cache and attends, without a barrier in between;
//! then its chunk of the output projection's columns, of the gated hidden channels, and of the down
//! projection's columns: four barriers per layer. Norms and the conversion of inputs are so little
//! work that every thread repeats them.
//!
//! N tokens of this call, D width, H heads, G heads of keys and values, K head width, F hidden
//! channels, V vocabulary

use std::sync::{Mutex, PoisonError};

use crate::attention::{self, BLOCK, attend_bf16, attend_f32, write_key, write_value};
use crate::isa::{Format, Isa};
use crate::math::{layer_norm, rms_norm, rotate, swiglu};
use crate::matmul::{Matrix, PackedActivations};
use crate::memory::{Aligned, DisjointSlice};
use crate::thread_pool::{ThreadPool, Worker};

/// Columns that a thread computes at a time.
const PANEL: usize = 64;

/// Sizes of a decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Channels of a token (D).
    pub width: usize,
    /// Attention heads (H).
    pub heads: usize,
    /// Heads of keys and values (G), each shared by H / G heads of queries.
    pub kv_heads: usize,
    /// Channels of the feed-forward (F).
    pub hidden: usize,
    /// Outputs of the last layer (V).
    pub vocabulary: usize,
    /// Epsilon of the RMS norms.
    pub eps: f32,
}

impl Shape {
    fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// Query heads that share keys and values.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// The weights of one layer, each (outputs × inputs) row after row.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// ((H + 2G) · K, D): queries, keys, values.
    pub wqkv: &'a [f32],
    /// (D, D).
    pub wo: &'a [f32],
    /// (F, D), through the SiLU.
    pub w1: &'a [f32],
    /// (D, F).
    pub w2: &'a [f32],
    /// (F, D).
    pub w3: &'a [f32],
    /// (D).
    pub attention_norm: &'a [f32],
    /// (D).
    pub ffn_norm: &'a [f32],
    /// Layer norms of queries and keys: weight and bias (K) of each.
    pub qk_norm: Option<[&'a [f32]; 4]>,
}

struct Layer {
    qkv: Matrix,     // one panel per key/value head: its queries, keys, values
    wo: Matrix,      // D → D
    gate_up: Matrix, // each panel: rows of w1, then the same rows of w3
    down: Matrix,    // F → D
    attention_norm: Vec<f32>,
    ffn_norm: Vec<f32>,
    qk_norm: Option<[Vec<f32>; 4]>,
}

/// A decoder with packed weights.
pub struct Decoder {
    layers: Vec<Layer>,
    norm: Vec<f32>,
    output: Matrix,
    /// Cosine and sine of each pair of channels at each position: (positions, K/2, 2).
    rotary: Option<Vec<f32>>,
    shape: Shape,
    format: Format,
    isa: Isa,
    pool: ThreadPool,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Decoder({:?}, {} layers, {:?}, {:?})",
            self.shape,
            self.layers.len(),
            self.format,
            self.pool
        )
    }
}

/// A new position of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Index of the sequence in the cache.
    pub sequence: usize,
    /// Position in the sequence. Positions of one sequence come in order, without gaps.
    pub position: usize,
}

impl Decoder {
    /// A decoder without layers yet, run by `threads` threads.
    ///
    /// # Panics
    /// Panics if a weight's size does not match `shape`.
    pub fn new(
        shape: Shape,
        format: Format,
        norm: &[f32],
        output: &[f32],
        rotary: Option<Vec<f32>>,
        threads: usize,
    ) -> Self {
        assert_eq!((norm.len(), output.len()), (shape.width, shape.vocabulary * shape.width));
        assert!(shape.width.is_multiple_of(shape.heads) && shape.heads.is_multiple_of(shape.kv_heads));
        Decoder {
            layers: vec![],
            norm: norm.to_vec(),
            output: Matrix::pack(output, shape.width, PANEL, format),
            rotary,
            shape,
            format,
            isa: Isa::best(Format::F32),
            pool: ThreadPool::new(threads),
        }
    }

    /// Packs one more layer.
    ///
    /// # Panics
    /// Panics if a weight's size does not match the shape.
    pub fn push(&mut self, block: Block) {
        let Shape { width: d, heads, kv_heads, hidden: f, .. } = self.shape;
        let (k, group) = (self.shape.head_width(), self.shape.group());
        assert_eq!((block.wqkv.len(), block.wo.len()), ((heads + 2 * kv_heads) * k * d, d * d), "attention");
        assert_eq!((block.w1.len(), block.w2.len(), block.w3.len()), (d * f, d * f, d * f), "feed-forward");
        assert_eq!((block.attention_norm.len(), block.ffn_norm.len()), (d, d), "norms");
        let rows = |head: usize, count: usize| &block.wqkv[head * k * d..][..count * k * d];
        let of = |g: usize| [rows(g * group, group), rows(heads + g, 1), rows(heads + kv_heads + g, 1)];
        let by_head = (0..kv_heads).flat_map(of).collect::<Vec<_>>().concat();
        let chunk = hidden_chunk(f);
        let chunks = block.w1.chunks_exact(chunk * d).zip(block.w3.chunks_exact(chunk * d));
        let gate_up = chunks.flat_map(|(gate, up)| [gate, up]).collect::<Vec<_>>().concat();
        self.layers.push(Layer {
            qkv: Matrix::pack(&by_head, d, (group + 2) * k, self.format),
            wo: Matrix::pack(block.wo, d, PANEL, self.format),
            gate_up: Matrix::pack(&gate_up, d, 2 * chunk, self.format),
            down: Matrix::pack(block.w2, f, PANEL, self.format),
            attention_norm: block.attention_norm.to_vec(),
            ffn_norm: block.ffn_norm.to_vec(),
            qk_norm: block.qk_norm.map(|parts| parts.map(<[f32]>::to_vec)),
        });
    }

    /// Storage format of the weights.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes of weights that one call of [`Decoder::forward`] reads.
    pub fn bytes(&self) -> usize {
        let layer = |l: &Layer| [&l.qkv, &l.wo, &l.gate_up, &l.down].iter().map(|m| m.bytes()).sum::<usize>();
        self.layers.iter().map(layer).sum::<usize>() + self.output.bytes()
    }

    /// A cache for `sequences` sequences of up to `positions` positions.
    pub fn new_cache(&self, sequences: usize, positions: usize) -> KvCache {
        let positions = positions.next_multiple_of(BLOCK);
        let (heads, k) = (self.shape.kv_heads, self.shape.head_width());
        let (keys, values) = (k * positions, k.next_multiple_of(16) * positions);
        let layer = |_| LayerKv::new(self.format, heads * sequences * keys, heads * sequences * values);
        KvCache {
            layers: (0..self.layers.len()).map(layer).collect(),
            sequences,
            positions,
            masked: vec![vec![]; sequences],
            modulation: None,
            work: Work::default(),
            scratch: (0..self.pool.size()).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// Runs new tokens with inputs `x` (N × D) through the cache, and writes the logits of the
    /// tokens with indices `wanted` to `logits` (wanted × V).
    ///
    /// # Panics
    /// Panics if sizes do not match each other or the cache.
    pub fn forward(
        &self,
        cache: &mut KvCache,
        tokens: &[Token],
        x: &[f32],
        wanted: &[usize],
        logits: &mut [f32],
    ) {
        let Shape { width, hidden: channels, vocabulary, .. } = self.shape;
        let n = tokens.len();
        assert_eq!((x.len(), logits.len()), (n * width, wanted.len() * vocabulary), "inputs and logits");
        assert!(tokens.iter().all(|t| t.sequence < cache.sequences && t.position < cache.positions));
        assert!(wanted.iter().all(|&w| w < n));
        cache.work.resize(x, n * channels);
        let KvCache { layers, sequences, positions, masked, modulation, work, scratch } = cache;
        let run = Run {
            decoder: self,
            tokens,
            wanted,
            x: DisjointSlice::new(&mut work.x),
            attended: DisjointSlice::new(&mut work.attended),
            gated: DisjointSlice::new(&mut work.gated),
            logits: DisjointSlice::new(logits),
            layers: layers.iter_mut().map(LayerKv::slices).collect(),
            sequences: *sequences,
            positions: *positions,
            masked,
            modulation: modulation.as_ref(),
        };
        let scratch = &*scratch;
        self.pool.run(|worker| {
            let mut scratch = scratch[worker.index()].lock().unwrap_or_else(PoisonError::into_inner);
            if scratch.as_ref().is_none_or(|s| s.tokens != n || s.wanted != wanted.len()) {
                *scratch = Some(Scratch::new(self, n, wanted.len(), run.positions));
            }
            run.forward_layers(worker, scratch.as_mut().expect("made above"));
        });
    }
}

/// Hidden channels of a panel: a divisor of their number, up to half a tile.
fn hidden_chunk(hidden: usize) -> usize {
    [32, 16, 8, 4, 2].into_iter().find(|s| hidden.is_multiple_of(*s)).unwrap_or(1)
}

/// Keys and values of one layer.
enum LayerKv {
    F32(Aligned<f32>, Aligned<f32>),
    Bf16(Aligned<u16>, Aligned<u16>),
}

/// [`LayerKv`] as the workers share it during a call.
enum LayerKvSlices<'a> {
    F32(DisjointSlice<'a, f32>, DisjointSlice<'a, f32>),
    Bf16(DisjointSlice<'a, u16>, DisjointSlice<'a, u16>),
}

impl LayerKv {
    fn new(format: Format, keys: usize, values: usize) -> Self {
        match format {
            Format::F32 => LayerKv::F32(Aligned::zeros(keys), Aligned::zeros(values)),
            Format::Bf16 | Format::Int8 => LayerKv::Bf16(Aligned::zeros(keys), Aligned::zeros(values)),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            LayerKv::F32(k, v) => size_of_val(k.as_slice()) + size_of_val(v.as_slice()),
            LayerKv::Bf16(k, v) => size_of_val(k.as_slice()) + size_of_val(v.as_slice()),
        }
    }

    fn slices(&mut self) -> LayerKvSlices<'_> {
        match self {
            LayerKv::F32(k, v) => {
                LayerKvSlices::F32(DisjointSlice::new(k.as_mut_slice()), DisjointSlice::new(v.as_mut_slice()))
            }
            LayerKv::Bf16(k, v) => LayerKvSlices::Bf16(
                DisjointSlice::new(k.as_mut_slice()),
                DisjointSlice::new(v.as_mut_slice()),
            ),
        }
    }
}

/// KV cache: keys and values of earlier positions, in single precision with fp32 weights, else in
/// bfloat16.
pub struct KvCache {
    layers: Vec<LayerKv>, // keys: (G, sequences, positions/16, K, 16); values: (G, sequences, positions, K padded)
    sequences: usize,
    positions: usize,
    masked: Vec<Vec<bool>>, // of each sequence's first positions
    modulation: Option<Modulation>,
    work: Work,
    scratch: Vec<Mutex<Option<Scratch>>>,
}

impl std::fmt::Debug for KvCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KvCache({} sequences of {} positions)", self.sequences, self.positions)
    }
}

/// Parameters of adaptive norms for each sequence.
#[derive(Debug, Clone)]
struct Modulation {
    layers: Vec<Vec<f32>>, // each (sequences, 6, D)
    last: Vec<f32>,        // (sequences, 2, D)
}

impl KvCache {
    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(LayerKv::bytes).sum()
    }

    /// Sets the attention mask of a sequence's first positions: true where later positions attend to
    /// it. (A position always attends to itself.) Empty: all are attended to.
    ///
    /// # Panics
    /// Panics if the cache does not have the sequence.
    pub fn set_prefix_mask(&mut self, sequence: usize, mask: &[bool]) {
        self.masked[sequence] = mask.iter().map(|attended| !attended).collect();
    }

    /// Sets the adaptive norms of a sequence: for each layer (6, D) shift, scale and gate of the
    /// attention, then of the feed-forward; and (2, D) shift and scale of the final norm.
    ///
    /// # Panics
    /// Panics if the cache does not have the sequence, or the sizes differ from those set before.
    pub fn modulate(&mut self, sequence: usize, layers: &[&[f32]], last: &[f32]) {
        let sequences = self.sequences;
        let zeros = |part: &[f32]| vec![0.0; sequences * part.len()];
        let Modulation { layers: all, last: all_last } = self.modulation.get_or_insert_with(|| Modulation {
            layers: layers.iter().map(|part| zeros(part)).collect(),
            last: zeros(last),
        });
        let set = |all: &mut [f32], new: &[f32]| {
            all[sequence * new.len()..][..new.len()].copy_from_slice(new);
        };
        all.iter_mut().zip(layers).for_each(|(all, new)| set(all, new));
        set(all_last, last);
    }
}

/// Activations that all workers share.
#[derive(Default)]
struct Work {
    x: Vec<f32>,        // (N, D)
    attended: Vec<f32>, // (N, D)
    gated: Vec<f32>,    // (N, F)
}

impl Work {
    fn resize(&mut self, x: &[f32], gated: usize) {
        self.x.clear();
        self.x.extend_from_slice(x);
        self.attended.resize(x.len(), 0.0);
        self.gated.resize(gated, 0.0);
    }
}

/// Scratch memory of one worker.
struct Scratch {
    tokens: usize,
    wanted: usize,
    normed: Vec<f32>,          // (N, D)
    rows: PackedActivations,   // (N, D)
    hidden: PackedActivations, // (N, F)
    last: PackedActivations,   // (wanted, D)
    out: Vec<f32>,             // (N, padded panel): a product's result
    scores: Vec<f32>,          // (positions)
    value: Vec<f32>,           // (K padded)
}

impl Scratch {
    fn new(decoder: &Decoder, tokens: usize, wanted: usize, positions: usize) -> Self {
        let width = decoder.shape.width;
        let down = decoder.layers.first().map_or(&decoder.output, |layer| &layer.down);
        let widest = decoder.layers.iter().flat_map(|l| [&l.qkv, &l.wo, &l.gate_up, &l.down]);
        let widest = widest.map(Matrix::padded_panel).max().unwrap_or(0).max(PANEL);
        Scratch {
            tokens,
            wanted,
            normed: vec![0.0; tokens * width],
            rows: PackedActivations::new(&decoder.output, tokens),
            hidden: PackedActivations::new(down, tokens),
            last: PackedActivations::new(&decoder.output, wanted),
            out: vec![0.0; tokens * widest],
            scores: vec![0.0; positions],
            value: vec![0.0; decoder.shape.head_width().next_multiple_of(16)],
        }
    }
}

/// One call of [`Decoder::forward`].
struct Run<'a> {
    decoder: &'a Decoder,
    tokens: &'a [Token],
    wanted: &'a [usize],
    x: DisjointSlice<'a, f32>,
    attended: DisjointSlice<'a, f32>,
    gated: DisjointSlice<'a, f32>,
    logits: DisjointSlice<'a, f32>,
    layers: Vec<LayerKvSlices<'a>>,
    sequences: usize,
    positions: usize,
    masked: &'a [Vec<bool>],
    modulation: Option<&'a Modulation>,
}

impl Run<'_> {
    fn forward_layers(&self, worker: &Worker, scratch: &mut Scratch) {
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            self.norm(&layer.attention_norm, i, 0, scratch);
            for head in worker.chunk(self.decoder.shape.kv_heads) {
                self.project(i, head, scratch);
                self.attend(i, head, scratch);
            }
            worker.barrier();
            // SAFETY: the barrier ended the writing of `attended`; it is not written before the
            // next one.
            let attended = unsafe { self.attended.read(0, self.tokens.len() * self.decoder.shape.width) };
            scratch.rows.set(attended);
            for panel in worker.chunk(layer.wo.panels()) {
                layer.wo.matmul(panel, &scratch.rows, &mut scratch.out);
                self.add(&layer.wo, panel, &scratch.out, i, 2);
            }
            worker.barrier();
            self.norm(&layer.ffn_norm, i, 3, scratch);
            for panel in worker.chunk(layer.gate_up.panels()) {
                layer.gate_up.matmul(panel, &scratch.rows, &mut scratch.out);
                self.gate(&layer.gate_up, panel, &scratch.out);
            }
            worker.barrier();
            // SAFETY: as above, for `gated`.
            let gated = unsafe { self.gated.read(0, self.tokens.len() * self.decoder.shape.hidden) };
            scratch.hidden.set(gated);
            for panel in worker.chunk(layer.down.panels()) {
                layer.down.matmul(panel, &scratch.hidden, &mut scratch.out);
                self.add(&layer.down, panel, &scratch.out, i, 5);
            }
            worker.barrier();
        }
        self.final_norm_and_head(worker, scratch);
    }

    /// Parts `from..6` of a layer's modulation for a token's sequence.
    fn modulation(&self, layer: usize, token: usize, from: usize) -> Option<&[f32]> {
        let d = self.decoder.shape.width;
        let sequence = self.tokens[token].sequence;
        self.modulation.map(|m| &m.layers[layer][(sequence * 6 + from) * d..(sequence + 1) * 6 * d])
    }

    /// Norms and modulates the inputs of all tokens, and packs them for products.
    fn norm(&self, weight: &[f32], layer: usize, part: usize, scratch: &mut Scratch) {
        let Decoder { shape: Shape { width: d, eps, .. }, isa, .. } = *self.decoder;
        // SAFETY: a barrier ended the writing of `x`; it is written again only after the next one.
        let x = unsafe { self.x.read(0, self.tokens.len() * d) };
        rms_norm(isa, x, weight, eps, &mut scratch.normed);
        for (token, row) in scratch.normed.chunks_exact_mut(d).enumerate() {
            if let Some(parts) = self.modulation(layer, token, part) {
                shift_and_scale(row, &parts[..d], &parts[d..2 * d]);
            }
        }
        scratch.rows.set(&scratch.normed);
    }

    /// Writes a head's queries to `scratch.out`, its keys and values to the cache.
    fn project(&self, layer: usize, head: usize, scratch: &mut Scratch) {
        let Layer { qkv, qk_norm, .. } = &self.decoder.layers[layer];
        let (k, group) = (self.decoder.shape.head_width(), self.decoder.shape.group());
        qkv.matmul(head, &scratch.rows, &mut scratch.out);
        for (token, row) in self.tokens.iter().zip(scratch.out.chunks_exact_mut(qkv.padded_panel())) {
            let (queries, rest) = row.split_at_mut(group * k);
            let (key, rest) = rest.split_at_mut(k);
            if let Some([qw, qb, kw, kb]) = qk_norm {
                for query in queries.chunks_exact_mut(k) {
                    layer_norm(self.decoder.isa, query, qw, qb, 1e-5);
                }
                layer_norm(self.decoder.isa, key, kw, kb, 1e-5);
            }
            if let Some(table) = &self.decoder.rotary {
                let angles = &table[token.position * k..(token.position + 1) * k];
                queries.chunks_exact_mut(k).for_each(|query| rotate(query, angles));
                rotate(key, angles);
            }
            scratch.value[..k].copy_from_slice(&rest[..k]);
            self.store(layer, head, *token, key, &scratch.value);
        }
    }

    /// Start and length of a head's keys and of its values, for one sequence.
    fn kv_ranges(&self, head: usize, sequence: usize) -> [(usize, usize); 2] {
        let k = self.decoder.shape.head_width();
        let at = head * self.sequences + sequence;
        [k, k.next_multiple_of(16)].map(|w| w * self.positions).map(|len| (at * len, len))
    }

    fn store(&self, layer: usize, head: usize, token: Token, key: &[f32], value: &[f32]) {
        let [(k, k_len), (v, v_len)] = self.kv_ranges(head, token.sequence);
        // SAFETY: a head belongs to one worker during a call, which holds no other view of its
        // cache here.
        unsafe {
            match &self.layers[layer] {
                LayerKvSlices::F32(keys, values) => {
                    write_key(keys.write(k, k_len), token.position, key);
                    write_value(values.write(v, v_len), token.position, value);
                }
                LayerKvSlices::Bf16(keys, values) => {
                    write_key(keys.write(k, k_len), token.position, key);
                    write_value(values.write(v, v_len), token.position, value);
                }
            }
        }
    }

    /// Attention of all tokens in one key/value head, into the columns of `attended` of the query
    /// heads that share it.
    fn attend(&self, layer: usize, head: usize, scratch: &mut Scratch) {
        let Decoder { shape, isa, .. } = self.decoder;
        let (k, group) = (shape.head_width(), shape.group());
        let stride = self.decoder.layers[layer].qkv.padded_panel();
        let queries = self.tokens.iter().enumerate().flat_map(|row| (0..group).map(move |q| (row, q)));
        for ((i, token), q) in queries {
            let query = &scratch.out[i * stride + q * k..][..k];
            let [(keys_at, keys_len), (values_at, values_len)] = self.kv_ranges(head, token.sequence);
            let masked = &self.masked[token.sequence];
            let masked = &masked[..masked.len().min(token.position)];
            let (length, scores, out) = (token.position + 1, &mut scratch.scores, &mut scratch.value);
            // SAFETY: this worker wrote this head's cache, and no other touches it during this
            // call.
            unsafe {
                match &self.layers[layer] {
                    LayerKvSlices::F32(keys, values) => {
                        let (keys, values) =
                            (keys.read(keys_at, keys_len), values.read(values_at, values_len));
                        attend_f32(*isa, query, keys, values, length, masked, scores, out);
                    }
                    LayerKvSlices::Bf16(keys, values) => {
                        let (keys, values) =
                            (keys.read(keys_at, keys_len), values.read(values_at, values_len));
                        attend_bf16(*isa, query, keys, values, length, masked, scores, out);
                    }
                }
            }
            // SAFETY: these columns belong to this head, so to this worker, until the barrier.
            let columns = unsafe { self.attended.write(i * shape.width + (head * group + q) * k, k) };
            columns.copy_from_slice(&out[..k]);
        }
        // Clears what attention left in the padding of values.
        scratch.value[k..].fill(0.0);
    }

    /// Adds a panel's columns to `x`, through the gate of the modulation.
    fn add(&self, matrix: &Matrix, panel: usize, out: &[f32], layer: usize, gate: usize) {
        let d = self.decoder.shape.width;
        let first = panel * matrix.panel();
        let columns = matrix.panel().min(d - first);
        for (token, row) in out.chunks_exact(matrix.padded_panel()).take(self.tokens.len()).enumerate() {
            // SAFETY: these columns are this worker's, and `x` is not read between the barriers
            // around this.
            let x = unsafe { self.x.write(token * d + first, columns) };
            match self.modulation(layer, token, gate) {
                None => x.iter_mut().zip(row).for_each(|(x, y)| *x += y),
                Some(gate) => x.iter_mut().zip(row).zip(&gate[first..]).for_each(|((x, y), g)| *x += y * g),
            }
        }
    }

    /// Writes `silu(gate) · up` of a panel's hidden channels to `gated`.
    fn gate(&self, matrix: &Matrix, panel: usize, product: &[f32]) {
        let Decoder { shape: Shape { hidden, .. }, isa, .. } = *self.decoder;
        let channels = matrix.panel() / 2;
        for (token, row) in product.chunks_exact(matrix.padded_panel()).take(self.tokens.len()).enumerate() {
            // SAFETY: these channels are this worker's until the barrier.
            let out = unsafe { self.gated.write(token * hidden + panel * channels, channels) };
            swiglu(isa, &row[..channels], &row[channels..2 * channels], out);
        }
    }

    /// Final norm and logits of the wanted tokens.
    fn final_norm_and_head(&self, worker: &Worker, scratch: &mut Scratch) {
        let Decoder { shape: Shape { width: d, vocabulary, eps, .. }, isa, norm, output, .. } = self.decoder;
        for (&token, row) in self.wanted.iter().zip(scratch.normed.chunks_exact_mut(*d)) {
            // SAFETY: the last barrier ended the writing of `x`.
            let x = unsafe { self.x.read(token * d, *d) };
            rms_norm(*isa, x, norm, *eps, row);
            if let Some(m) = self.modulation {
                let parts = &m.last[self.tokens[token].sequence * 2 * d..][..2 * d];
                shift_and_scale(row, &parts[..*d], &parts[*d..]);
            }
        }
        scratch.last.set(&scratch.normed[..self.wanted.len() * d]);
        for panel in worker.chunk(output.panels()) {
            output.matmul(panel, &scratch.last, &mut scratch.out);
            let first = panel * output.panel();
            let columns = output.panel().min(vocabulary - first);
            let rows = scratch.out.chunks_exact(output.padded_panel());
            for (i, row) in rows.take(self.wanted.len()).enumerate() {
                // SAFETY: these columns are this worker's.
                let out = unsafe { self.logits.write(i * vocabulary + first, columns) };
                out.copy_from_slice(&row[..columns]);
            }
        }
    }
}

/// `x · (1 + scale) + shift`.
fn shift_and_scale(x: &mut [f32], shift: &[f32], scale: &[f32]) {
    for ((x, shift), scale) in x.iter_mut().zip(shift).zip(scale) {
        *x = *x * (scale + 1.0) + shift;
    }
}

const _: () = assert!(attention::BLOCK == 16, "scores are summed in vectors of 16");
