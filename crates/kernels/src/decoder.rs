//! A Llama-like decoder (RMSNorm, SwiGLU, no biases) that runs a few new positions through a cache of keys and values.
//!
//! All threads walk through the layers in step. In each layer a thread computes keys and values of its heads and the queries
//! that share them, writes the cache and attends, with no waiting in between; then its share of the output projection's columns, of
//! the gated hidden channels, and of the columns that come back from them: four barriers a layer. Norms and the
//! conversion of inputs are so little work that every thread does them for itself.
//!
//! N tokens of this call, D width, H heads, G heads of keys and values, K head width, F hidden channels, V vocabulary

use std::sync::{Mutex, PoisonError};

use crate::attention::{self, BLOCK, attend_bf16, attend_f32, write_key, write_value};
use crate::isa::{Format, Isa};
use crate::math::{layer_norm, rms_norm, rotate, swiglu};
use crate::matmul::{Matrix, Rows};
use crate::memory::{Aligned, Shared};
use crate::team::{Member, Team};

/// Columns that a thread computes at a time.
const SECTION: usize = 64;

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

    /// Heads of queries that share keys and values.
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
    qkv: Matrix,     // a section a head of keys and values: its queries, keys, values
    wo: Matrix,      // D → D
    gate_up: Matrix, // a section: rows of w1, then the same rows of w3
    down: Matrix,    // F → D
    attention_norm: Vec<f32>,
    ffn_norm: Vec<f32>,
    qk_norm: Option<[Vec<f32>; 4]>,
}

/// A decoder with its weights packed.
pub struct Decoder {
    layers: Vec<Layer>,
    norm: Vec<f32>,
    output: Matrix,
    /// Cosine and sine of each pair of channels at each position: (positions, K/2, 2).
    rotary: Option<Vec<f32>>,
    shape: Shape,
    format: Format,
    isa: Isa,
    team: Team,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Decoder({:?}, {} layers, {:?}, {:?})",
            self.shape,
            self.layers.len(),
            self.format,
            self.team
        )
    }
}

/// One new position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Which sequence of the cache.
    pub sequence: usize,
    /// Where in it. Positions of one sequence come in order, with none left out.
    pub position: usize,
}

impl Decoder {
    /// A decoder without layers yet, run by `threads` threads.
    ///
    /// # Panics
    /// If a weight has another size than `shape` says.
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
            output: Matrix::pack(output, shape.width, SECTION, format),
            rotary,
            shape,
            format,
            isa: Isa::best(Format::F32),
            team: Team::new(threads),
        }
    }

    /// Packs one more layer.
    ///
    /// # Panics
    /// If a weight has another size than the shape says.
    pub fn push(&mut self, block: Block) {
        let Shape { width: d, heads, kv_heads, hidden: f, .. } = self.shape;
        let (k, group) = (self.shape.head_width(), self.shape.group());
        assert_eq!((block.wqkv.len(), block.wo.len()), ((heads + 2 * kv_heads) * k * d, d * d), "attention");
        assert_eq!((block.w1.len(), block.w2.len(), block.w3.len()), (d * f, d * f, d * f), "feed-forward");
        assert_eq!((block.attention_norm.len(), block.ffn_norm.len()), (d, d), "norms");
        let rows = |head: usize, count: usize| &block.wqkv[head * k * d..][..count * k * d];
        let of = |g: usize| [rows(g * group, group), rows(heads + g, 1), rows(heads + kv_heads + g, 1)];
        let by_head = (0..kv_heads).flat_map(of).collect::<Vec<_>>().concat();
        let share = hidden_share(f);
        let shares = block.w1.chunks_exact(share * d).zip(block.w3.chunks_exact(share * d));
        let gate_up = shares.flat_map(|(gate, up)| [gate, up]).collect::<Vec<_>>().concat();
        self.layers.push(Layer {
            qkv: Matrix::pack(&by_head, d, (group + 2) * k, self.format),
            wo: Matrix::pack(block.wo, d, SECTION, self.format),
            gate_up: Matrix::pack(&gate_up, d, 2 * share, self.format),
            down: Matrix::pack(block.w2, f, SECTION, self.format),
            attention_norm: block.attention_norm.to_vec(),
            ffn_norm: block.ffn_norm.to_vec(),
            qk_norm: block.qk_norm.map(|parts| parts.map(<[f32]>::to_vec)),
        });
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes of weights that one call reads.
    pub fn bytes(&self) -> usize {
        let layer = |l: &Layer| [&l.qkv, &l.wo, &l.gate_up, &l.down].iter().map(|m| m.bytes()).sum::<usize>();
        self.layers.iter().map(layer).sum::<usize>() + self.output.bytes()
    }

    /// A cache for `sequences` of up to `positions`.
    pub fn new_cache(&self, sequences: usize, positions: usize) -> KvCache {
        let positions = positions.next_multiple_of(BLOCK);
        let (heads, k) = (self.shape.kv_heads, self.shape.head_width());
        let (keys, values) = (k * positions, k.next_multiple_of(16) * positions);
        let layer = |_| Layered::new(self.format, heads * sequences * keys, heads * sequences * values);
        KvCache {
            layers: (0..self.layers.len()).map(layer).collect(),
            sequences,
            positions,
            hidden: vec![],
            modulation: None,
            work: Work::default(),
            scratch: (0..self.team.size()).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// Runs new tokens, whose inputs are `x` (N × D), through the cache; logits of the tokens with the numbers `wanted`
    /// into `logits`, one row of V after the other.
    ///
    /// # Panics
    /// If sizes do not fit each other or the cache.
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
        let KvCache { layers, sequences, positions, hidden, modulation, work, scratch } = cache;
        let run = Run {
            decoder: self,
            tokens,
            wanted,
            x: Shared::new(&mut work.x),
            attended: Shared::new(&mut work.attended),
            gated: Shared::new(&mut work.gated),
            logits: Shared::new(logits),
            layers: layers.iter_mut().map(Layered::share).collect(),
            sequences: *sequences,
            positions: *positions,
            hidden,
            modulation: modulation.as_ref(),
        };
        let scratch = &*scratch;
        self.team.run(|member| {
            let mut scratch = scratch[member.index()].lock().unwrap_or_else(PoisonError::into_inner);
            if scratch.as_ref().is_none_or(|s| s.tokens != n || s.wanted != wanted.len()) {
                *scratch = Some(Scratch::new(self, n, wanted.len(), run.positions));
            }
            run.walk(member, scratch.as_mut().expect("made above"));
        });
    }
}

/// Hidden channels of a section: what divides them, up to half a group.
fn hidden_share(hidden: usize) -> usize {
    [32, 16, 8, 4, 2].into_iter().find(|s| hidden.is_multiple_of(*s)).unwrap_or(1)
}

enum Layered {
    F32(Aligned<f32>, Aligned<f32>),
    Bf16(Aligned<u16>, Aligned<u16>),
}

enum SharedLayer<'a> {
    F32(Shared<'a, f32>, Shared<'a, f32>),
    Bf16(Shared<'a, u16>, Shared<'a, u16>),
}

impl Layered {
    fn new(format: Format, keys: usize, values: usize) -> Self {
        match format {
            Format::F32 => Layered::F32(Aligned::zeros(keys), Aligned::zeros(values)),
            Format::Bf16 | Format::Int8 => Layered::Bf16(Aligned::zeros(keys), Aligned::zeros(values)),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Layered::F32(k, v) => size_of_val(k.as_slice()) + size_of_val(v.as_slice()),
            Layered::Bf16(k, v) => size_of_val(k.as_slice()) + size_of_val(v.as_slice()),
        }
    }

    fn share(&mut self) -> SharedLayer<'_> {
        match self {
            Layered::F32(k, v) => {
                SharedLayer::F32(Shared::new(k.as_mut_slice()), Shared::new(v.as_mut_slice()))
            }
            Layered::Bf16(k, v) => {
                SharedLayer::Bf16(Shared::new(k.as_mut_slice()), Shared::new(v.as_mut_slice()))
            }
        }
    }
}

/// Keys and values of the positions seen so far, in single precision beside fp32 weights, else in bfloat16.
pub struct KvCache {
    layers: Vec<Layered>, // keys: (G, sequences, positions/16, K, 16); values: (G, sequences, positions, K padded)
    sequences: usize,
    positions: usize,
    hidden: Vec<Vec<bool>>,
    modulation: Option<Modulation>,
    work: Work,
    scratch: Vec<Mutex<Option<Scratch>>>,
}

impl std::fmt::Debug for KvCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KvCache({} sequences of {} positions)", self.sequences, self.positions)
    }
}

/// What adaptive norms do to each sequence.
#[derive(Debug, Clone)]
struct Modulation {
    layers: Vec<Vec<f32>>, // each (sequences, 6, D)
    last: Vec<f32>,        // (sequences, 2, D)
}

impl KvCache {
    /// Sequences it was made for.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(Layered::bytes).sum()
    }

    /// Which of its first positions each sequence may not see (its own excepted); none: all are seen.
    ///
    /// # Panics
    /// If it is not one list a sequence.
    pub fn hide(&mut self, hidden: Vec<Vec<bool>>) {
        assert!(hidden.is_empty() || hidden.len() == self.sequences);
        self.hidden = hidden;
    }

    /// Adaptive norms: for each layer (sequences, 6, D) shift, scale and gate of the attention, then of the
    /// feed-forward; and (sequences, 2, D) shift and scale of the final norm.
    pub fn modulate(&mut self, layers: Vec<Vec<f32>>, last: Vec<f32>) {
        self.modulation = Some(Modulation { layers, last });
    }
}

/// What the members share.
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

/// What a member has for itself.
struct Scratch {
    tokens: usize,
    wanted: usize,
    normed: Vec<f32>,  // (N, D)
    rows: Rows,        // (N, D)
    hidden: Rows,      // (N, F)
    last: Rows,        // (wanted, D)
    product: Vec<f32>, // (N, a padded section)
    scores: Vec<f32>,  // (positions)
    value: Vec<f32>,   // (K padded)
}

impl Scratch {
    fn new(decoder: &Decoder, tokens: usize, wanted: usize, positions: usize) -> Self {
        let width = decoder.shape.width;
        let down = decoder.layers.first().map_or(&decoder.output, |layer| &layer.down);
        let widest = decoder.layers.iter().flat_map(|l| [&l.qkv, &l.wo, &l.gate_up, &l.down]);
        let widest = widest.map(Matrix::padded_section).max().unwrap_or(0).max(SECTION);
        Scratch {
            tokens,
            wanted,
            normed: vec![0.0; tokens * width],
            rows: Rows::of(&decoder.output, tokens),
            hidden: Rows::of(down, tokens),
            last: Rows::of(&decoder.output, wanted),
            product: vec![0.0; tokens * widest],
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
    x: Shared<'a, f32>,
    attended: Shared<'a, f32>,
    gated: Shared<'a, f32>,
    logits: Shared<'a, f32>,
    layers: Vec<SharedLayer<'a>>,
    sequences: usize,
    positions: usize,
    hidden: &'a [Vec<bool>],
    modulation: Option<&'a Modulation>,
}

impl Run<'_> {
    fn walk(&self, member: &Member, scratch: &mut Scratch) {
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            self.norm(&layer.attention_norm, i, 0, scratch);
            for head in member.share(self.decoder.shape.kv_heads) {
                self.project(i, head, scratch);
                self.attend(i, head, scratch);
            }
            member.barrier();
            // SAFETY: the barrier ended the writing of `attended`, and nobody writes it before the next.
            let attended = unsafe { self.attended.read(0, self.tokens.len() * self.decoder.shape.width) };
            scratch.rows.set(attended);
            for section in member.share(layer.wo.sections()) {
                layer.wo.product(section, &scratch.rows, &mut scratch.product);
                self.add(&layer.wo, section, &scratch.product, i, 2);
            }
            member.barrier();
            self.norm(&layer.ffn_norm, i, 3, scratch);
            for section in member.share(layer.gate_up.sections()) {
                layer.gate_up.product(section, &scratch.rows, &mut scratch.product);
                self.gate(&layer.gate_up, section, &scratch.product);
            }
            member.barrier();
            // SAFETY: as above, for `gated`.
            let gated = unsafe { self.gated.read(0, self.tokens.len() * self.decoder.shape.hidden) };
            scratch.hidden.set(gated);
            for section in member.share(layer.down.sections()) {
                layer.down.product(section, &scratch.hidden, &mut scratch.product);
                self.add(&layer.down, section, &scratch.product, i, 5);
            }
            member.barrier();
        }
        self.head(member, scratch);
    }

    /// Six parts of a layer's modulation of a token's sequence, from part `from` on.
    fn modulation(&self, layer: usize, token: usize, from: usize) -> Option<&[f32]> {
        let d = self.decoder.shape.width;
        let sequence = self.tokens[token].sequence;
        self.modulation.map(|m| &m.layers[layer][(sequence * 6 + from) * d..(sequence + 1) * 6 * d])
    }

    /// Normed and modulated inputs of all tokens, as rows for products.
    fn norm(&self, weight: &[f32], layer: usize, part: usize, scratch: &mut Scratch) {
        let Decoder { shape: Shape { width: d, eps, .. }, isa, .. } = *self.decoder;
        // SAFETY: a barrier ended the writing of `x`; it is written again after the next one.
        let x = unsafe { self.x.read(0, self.tokens.len() * d) };
        rms_norm(isa, x, weight, eps, &mut scratch.normed);
        for (token, row) in scratch.normed.chunks_exact_mut(d).enumerate() {
            if let Some(parts) = self.modulation(layer, token, part) {
                shift_and_scale(row, &parts[..d], &parts[d..2 * d]);
            }
        }
        scratch.rows.set(&scratch.normed);
    }

    /// Queries into `scratch.product`; keys and values into the cache.
    fn project(&self, layer: usize, head: usize, scratch: &mut Scratch) {
        let Layer { qkv, qk_norm, .. } = &self.decoder.layers[layer];
        let (k, group) = (self.decoder.shape.head_width(), self.decoder.shape.group());
        qkv.product(head, &scratch.rows, &mut scratch.product);
        for (token, row) in self.tokens.iter().zip(scratch.product.chunks_exact_mut(qkv.padded_section())) {
            let (queries, rest) = row.split_at_mut(group * k);
            let (key, rest) = rest.split_at_mut(k);
            if let Some([qw, qb, kw, kb]) = qk_norm {
                for query in queries.chunks_exact_mut(k) {
                    layer_norm(self.decoder.isa, query, qw, qb, 1e-5);
                }
                layer_norm(self.decoder.isa, key, kw, kb, 1e-5);
            }
            if let Some(table) = &self.decoder.rotary {
                let turn = &table[token.position * k..(token.position + 1) * k];
                queries.chunks_exact_mut(k).for_each(|query| rotate(query, turn));
                rotate(key, turn);
            }
            scratch.value[..k].copy_from_slice(&rest[..k]);
            self.store(layer, head, *token, key, &scratch.value);
        }
    }

    /// Where a head's keys and values of a sequence lie: start and length of each.
    fn place(&self, head: usize, sequence: usize) -> [(usize, usize); 2] {
        let k = self.decoder.shape.head_width();
        let at = head * self.sequences + sequence;
        [k, k.next_multiple_of(16)].map(|w| w * self.positions).map(|len| (at * len, len))
    }

    fn store(&self, layer: usize, head: usize, token: Token, key: &[f32], value: &[f32]) {
        let [(k, k_len), (v, v_len)] = self.place(head, token.sequence);
        // SAFETY: a head belongs to one member during a call, which holds no other view of its cache here.
        unsafe {
            match &self.layers[layer] {
                SharedLayer::F32(keys, values) => {
                    write_key(keys.write(k, k_len), token.position, key);
                    write_value(values.write(v, v_len), token.position, value);
                }
                SharedLayer::Bf16(keys, values) => {
                    write_key(keys.write(k, k_len), token.position, key);
                    write_value(values.write(v, v_len), token.position, value);
                }
            }
        }
    }

    /// Attention of all tokens in one head of keys and values, into the columns of `attended` of the heads that share it.
    fn attend(&self, layer: usize, head: usize, scratch: &mut Scratch) {
        let Decoder { shape, isa, .. } = self.decoder;
        let (k, group) = (shape.head_width(), shape.group());
        let stride = self.decoder.layers[layer].qkv.padded_section();
        let queries = self.tokens.iter().enumerate().flat_map(|row| (0..group).map(move |q| (row, q)));
        for ((i, token), q) in queries {
            let query = &scratch.product[i * stride + q * k..][..k];
            let [(keys_at, keys_len), (values_at, values_len)] = self.place(head, token.sequence);
            let hidden =
                self.hidden.get(token.sequence).map_or(&[][..], |h| &h[..h.len().min(token.position)]);
            let (length, scores, out) = (token.position + 1, &mut scratch.scores, &mut scratch.value);
            // SAFETY: this member wrote this head's cache, and nobody else touches it during this call.
            unsafe {
                match &self.layers[layer] {
                    SharedLayer::F32(keys, values) => {
                        let (keys, values) =
                            (keys.read(keys_at, keys_len), values.read(values_at, values_len));
                        attend_f32(*isa, query, keys, values, length, hidden, scores, out);
                    }
                    SharedLayer::Bf16(keys, values) => {
                        let (keys, values) =
                            (keys.read(keys_at, keys_len), values.read(values_at, values_len));
                        attend_bf16(*isa, query, keys, values, length, hidden, scores, out);
                    }
                }
            }
            // SAFETY: these columns belong to this head, so to this member, until the barrier.
            let mine = unsafe { self.attended.write(i * shape.width + (head * group + q) * k, k) };
            mine.copy_from_slice(&out[..k]);
        }
        // The padding of values is zero again, whatever attention left there.
        scratch.value[k..].fill(0.0);
    }

    /// Adds a section's columns to `x`, through the gate of the modulation.
    fn add(&self, matrix: &Matrix, section: usize, product: &[f32], layer: usize, gate: usize) {
        let d = self.decoder.shape.width;
        let first = section * matrix.section();
        let columns = matrix.section().min(d - first);
        for (token, row) in product.chunks_exact(matrix.padded_section()).take(self.tokens.len()).enumerate()
        {
            // SAFETY: these columns are this member's, and nobody reads `x` between the barriers around this.
            let x = unsafe { self.x.write(token * d + first, columns) };
            match self.modulation(layer, token, gate) {
                None => x.iter_mut().zip(row).for_each(|(x, y)| *x += y),
                Some(gate) => x.iter_mut().zip(row).zip(&gate[first..]).for_each(|((x, y), g)| *x += y * g),
            }
        }
    }

    /// `silu(gate) · up` of a section's hidden channels, into `gated`.
    fn gate(&self, matrix: &Matrix, section: usize, product: &[f32]) {
        let Decoder { shape: Shape { hidden, .. }, isa, .. } = *self.decoder;
        let share = matrix.section() / 2;
        for (token, row) in product.chunks_exact(matrix.padded_section()).take(self.tokens.len()).enumerate()
        {
            // SAFETY: these channels are this member's until the barrier.
            let out = unsafe { self.gated.write(token * hidden + section * share, share) };
            swiglu(isa, &row[..share], &row[share..2 * share], out);
        }
    }

    /// Final norm and logits of the wanted tokens.
    fn head(&self, member: &Member, scratch: &mut Scratch) {
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
        for section in member.share(output.sections()) {
            output.product(section, &scratch.last, &mut scratch.product);
            let first = section * output.section();
            let columns = output.section().min(vocabulary - first);
            let rows = scratch.product.chunks_exact(output.padded_section());
            for (i, row) in rows.take(self.wanted.len()).enumerate() {
                // SAFETY: these columns are this member's.
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
