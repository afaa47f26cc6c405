//! `y = x Wᵀ` for a few rows, with W packed once so that a product reads it as one stream.
//!
//! W (outputs, inputs) is split into panels of consecutive outputs, which threads divide among
//! themselves. A panel is split into tiles of outputs, as many as a kernel computes at a time. A
//! tile is stored input by input, all its outputs side by side (bf16: two inputs, int8: four inputs
//! of an output side by side, as the processor's dot products take them). Outputs are padded to 16,
//! inputs to 4, with zeros.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plain;

use std::ops::Range;

use rayon::prelude::*;

use crate::isa::{Format, Isa, Level, for_each_isa};
use crate::math::{from_bf16, to_bf16};
use crate::memory::Aligned;

/// Outputs in a vector.
const LANES: usize = 16;

/// Vectors of outputs in a tile: as many as fit the registers with the sums of several rows.
fn tile_vectors(isa: Isa) -> usize {
    if isa.level() == Level::Avx512 { 4 } else { 1 }
}

enum Data {
    F32(Aligned<f32>),
    Bf16(Aligned<u16>),
    Int8 {
        weights: Aligned<i8>,
        scales: Vec<f32>,
        /// Sum of each output's integers.
        sums: Vec<i32>,
    },
}

/// A packed matrix.
pub struct Matrix {
    data: Data,
    inputs: usize,
    outputs: usize,
    panel: usize, // outputs of a panel; the last may have fewer
    isa: Isa,
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix({} × {}, {:?}, {:?})", self.outputs, self.inputs, self.format(), self.isa)
    }
}

impl Matrix {
    /// Packs `weight` (outputs × inputs) in panels of `panel` outputs; the last may be shorter.
    ///
    /// # Panics
    /// Panics if `weight` is not a whole number of rows, or empty.
    pub fn pack(weight: &[f32], inputs: usize, panel: usize, format: Format) -> Self {
        Self::pack_for(weight, inputs, panel, format, Isa::best(format))
    }

    /// Like [`Matrix::pack`], for products with the instructions `isa`, one of [`Isa::available`].
    ///
    /// # Panics
    /// Panics if `weight` is not a whole number of rows, or empty, or the processor lacks `isa`.
    pub fn pack_for(weight: &[f32], inputs: usize, panel: usize, format: Format, isa: Isa) -> Self {
        assert!(inputs > 0 && panel > 0 && !weight.is_empty() && weight.len().is_multiple_of(inputs));
        assert!(Isa::available(format).contains(&isa), "this processor has no {isa:?} for {format:?}");
        let outputs = weight.len() / inputs;
        let mut matrix = Matrix { data: Data::F32(Aligned::zeros(0)), inputs, outputs, panel, isa };
        let padded = matrix.panels() * matrix.padded_panel() * padded_inputs(inputs);
        matrix.data = match format {
            Format::F32 => Data::F32(matrix.pack_with(weight, padded, 1, |w, _| w)),
            Format::Bf16 => Data::Bf16(matrix.pack_with(weight, padded, 2, |w, _| to_bf16(w))),
            Format::Int8 => matrix.quantize(weight, padded),
        };
        matrix
    }

    /// Converts each weight by `convert(weight, output)` and stores it in the kernels' layout, with
    /// `side` inputs of an output side by side. Uses all cores.
    fn pack_with<T: crate::memory::Number>(
        &self,
        weight: &[f32],
        padded: usize,
        side: usize,
        convert: impl Fn(f32, usize) -> T + Sync,
    ) -> Aligned<T> {
        let mut packed = Aligned::zeros(padded);
        let depth = padded_inputs(self.inputs);
        let panels = packed.as_mut_slice().par_chunks_mut(self.padded_panel() * depth);
        let rows = weight.par_chunks(self.panel * self.inputs);
        panels.zip(rows).enumerate().for_each(|(panel, (panel_data, rows))| {
            let most = tile_vectors(self.isa) * LANES;
            let tiles = panel_data.chunks_mut(most * depth).zip(rows.chunks(most * self.inputs));
            for (tile, (data, rows)) in tiles.enumerate() {
                let first = panel * self.panel + tile * most; // output
                let width = data.len() / depth;
                // A few inputs at a time, so that writes hit the first-level cache.
                for inputs in (0..self.inputs).step_by(64) {
                    let inputs = inputs..self.inputs.min(inputs + 64);
                    for (lane, row) in rows.chunks_exact(self.inputs).enumerate() {
                        for input in inputs.clone() {
                            let at = (input / side * width + lane) * side + input % side;
                            data[at] = convert(row[input], first + lane);
                        }
                    }
                }
            }
        });
        packed
    }

    fn quantize(&self, weight: &[f32], padded: usize) -> Data {
        let rows = weight.par_chunks_exact(self.inputs);
        let (scales, sums): (Vec<f32>, Vec<i32>) = rows
            .map(|row| {
                let scale = scale_to(127.0, row);
                (scale, row.iter().map(|w| i32::from(nearest(w / scale) as i8)).sum::<i32>())
            })
            .unzip();
        let weights = self.pack_with(weight, padded, 4, |w, output| nearest(w / scales[output]) as i8);
        Data::Int8 { weights, scales, sums }
    }

    /// Storage format of the weights.
    pub fn format(&self) -> Format {
        match self.data {
            Data::F32(_) => Format::F32,
            Data::Bf16(_) => Format::Bf16,
            Data::Int8 { .. } => Format::Int8,
        }
    }

    /// Instruction set of the products.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Columns of x.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Columns of y.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of panels.
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(self.panel)
    }

    /// Columns of y in a panel.
    pub fn panel(&self) -> usize {
        self.panel
    }

    /// Columns that [`Matrix::matmul`] writes: those of a panel, padded.
    pub fn padded_panel(&self) -> usize {
        self.panel.next_multiple_of(LANES)
    }

    /// Bytes that a product reads.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::F32(d) => size_of_val(d.as_slice()),
            Data::Bf16(d) => size_of_val(d.as_slice()),
            Data::Int8 { weights, .. } => size_of_val(weights.as_slice()),
        }
    }

    /// Tiles of a panel: first column in the panel, and range of the weights.
    fn tiles(&self, panel: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (vectors, most) = (self.padded_panel() / LANES, tile_vectors(self.isa));
        let vector = LANES * padded_inputs(self.inputs); // its weights
        (0..vectors).step_by(most).map(move |first| {
            let from = panel * vectors + first;
            (first * LANES, from * vector..(from + most.min(vectors - first)) * vector)
        })
    }

    /// All columns for `rows` contiguous rows of `x`, into `out` (rows × outputs). For fp32
    /// matrices whose inputs and panels need no padding.
    pub(crate) fn matmul_f32(&self, x: &[f32], rows: usize, out: &mut [f32]) {
        let (depth, width) = (padded_inputs(self.inputs), self.panels() * self.padded_panel());
        assert!(depth == self.inputs && width == self.outputs);
        let Data::F32(weights) = &self.data else { panic!("the weights are {:?}", self.format()) };
        for panel in 0..self.panels() {
            for (first, at) in self.tiles(panel) {
                let tile = Tile { vectors: at.len() / depth / LANES, rows, depth, width };
                tile.f32(self.isa, &weights.as_slice()[at], x, &mut out[panel * self.panel + first..]);
            }
        }
    }

    /// Columns of `panel` for all rows of `x`, into `out` (rows × [`Matrix::padded_panel`]).
    ///
    /// # Panics
    /// Panics if `x` has another format, instruction set or width, or `out` is too short.
    pub fn matmul(&self, panel: usize, x: &PackedActivations, out: &mut [f32]) {
        let (depth, width) = (padded_inputs(self.inputs), self.padded_panel());
        assert!(panel < self.panels() && out.len() >= x.rows * width);
        assert!(
            (x.format, x.isa, x.inputs) == (self.format(), self.isa, self.inputs),
            "{x:?} do not match {self:?}"
        );
        for (first, at) in self.tiles(panel) {
            let tile = Tile { vectors: at.len() / depth / LANES, rows: x.rows, depth, width };
            let out = &mut out[first..];
            match (&self.data, &x.data) {
                (Data::F32(w), ActivationData::F32(x)) => {
                    tile.f32(self.isa, &w.as_slice()[at], x.as_slice(), out)
                }
                (Data::Bf16(w), x) => tile.bf16(self.isa, &w.as_slice()[at], x, out),
                (Data::Int8 { weights, scales, sums }, x) => {
                    let first = panel * self.panel + first;
                    let end = self.outputs.min((panel + 1) * self.panel).min(first + tile.vectors * LANES);
                    let outputs = first.min(end)..end;
                    let scaling = Scaling { outputs: &scales[outputs.clone()], sums: &sums[outputs] };
                    tile.int8(self.isa, &weights.as_slice()[at], x, &scaling, out);
                }
                _ => unreachable!("rows of {:?}", self.format()),
            }
        }
    }
}

/// The work of one kernel call: all rows, one tile of outputs.
#[derive(Clone, Copy)]
struct Tile {
    /// Vectors of outputs; 1 except with AVX-512.
    vectors: usize,
    rows: usize,
    /// Padded inputs.
    depth: usize,
    /// Distance of rows in `out`.
    width: usize,
}

/// Scales that turn exact integer sums into results.
struct Scaling<'a> {
    outputs: &'a [f32],
    sums: &'a [i32],
}

impl Scaling<'_> {
    /// Sum of an output, `256 (Σ high·w − 128 Σ w) + Σ low·w`: split inputs have 32768 = 256
    /// · 128 added.
    #[inline(always)]
    fn total(&self, output: usize, high: i32, low: i32) -> f32 {
        let offset = self.sums.get(output).map_or(0, |sum| 128 * i64::from(*sum));
        (256 * (i64::from(high) - offset) + i64::from(low)) as f32
    }

    /// Writes the outputs from `first` on for a row with this scale. Padding becomes zero.
    #[inline(always)]
    fn apply(&self, first: usize, row_scale: f32, totals: &[f32; LANES], out: &mut [f32]) {
        out.fill(0.0);
        let outputs = self.outputs.get(first..).unwrap_or_default();
        for ((out, total), scale) in out.iter_mut().zip(totals).zip(outputs) {
            *out = total * (row_scale * scale);
        }
    }
}

impl Tile {
    /// Panics if a slice is too short. The kernels read and write without further checks.
    fn check(&self, weights: usize, x: usize, out: usize) {
        assert!(weights >= self.vectors * LANES * self.depth, "weights are too short");
        assert!(x >= self.rows * self.depth, "inputs are too short");
        assert!(out + self.width >= self.rows * self.width + self.vectors * LANES, "outputs are too short");
        assert!(self.depth.is_multiple_of(4) && self.vectors <= 4);
    }

    fn f32(&self, isa: Isa, w: &[f32], x: &[f32], out: &mut [f32]) {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::f32(self, w, x, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::f32(self, w, x, out),
            _ => plain::f32(self, w, x, out),
        }
    }

    fn bf16(&self, isa: Isa, w: &[u16], x: &ActivationData, out: &mut [f32]) {
        match (isa.level(), x) {
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, ActivationData::Bf16(x)) => avx512::bf16(self, w, x.as_slice(), out),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, ActivationData::F32(x)) => avx2::bf16(self, w, x.as_slice(), out),
            (_, ActivationData::F32(x)) => plain::bf16(self, w, x.as_slice(), out),
            _ => unreachable!("`PackedActivations::new` selects by the same instruction set"),
        }
    }

    fn int8(&self, isa: Isa, w: &[i8], x: &ActivationData, scaling: &Scaling, out: &mut [f32]) {
        match (isa.level(), x) {
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, ActivationData::Bytes { high, low, scales }) => {
                avx512::int8(self, w, [high.as_slice(), low.as_slice()], scales, scaling, out);
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, ActivationData::Int16 { values, scales }) => {
                avx2::int8(self, w, values.as_slice(), scales, scaling, out);
            }
            (_, ActivationData::Int16 { values, scales }) => {
                plain::int8(self, w, values.as_slice(), scales, scaling, out);
            }
            _ => unreachable!("`PackedActivations::new` selects by the same instruction set"),
        }
    }
}

fn padded_inputs(inputs: usize) -> usize {
    inputs.next_multiple_of(4)
}

enum ActivationData {
    /// For fp32; for bf16 without a dot product instruction: rounded to bfloat16.
    F32(Aligned<f32>),
    Bf16(Aligned<u16>),
    /// 16-bit integers, for int8.
    Int16 {
        values: Aligned<i16>,
        scales: Vec<f32>,
    },
    /// The same with 32768 added, split into high and low bytes, for dot products of bytes.
    Bytes {
        high: Aligned<u8>,
        low: Aligned<u8>,
        scales: Vec<f32>,
    },
}

/// Rows of x in the layout that products of a format and an instruction set take. Allocated once,
/// refilled for each product.
pub struct PackedActivations {
    data: ActivationData,
    format: Format,
    isa: Isa,
    inputs: usize,
    rows: usize,
}

impl std::fmt::Debug for PackedActivations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedActivations({} × {}, {:?}, {:?})", self.rows, self.inputs, self.format, self.isa)
    }
}

impl PackedActivations {
    /// Memory for `rows` inputs of `matrix`, and of any other with its format, instruction set and
    /// width.
    pub fn new(matrix: &Matrix, rows: usize) -> Self {
        let (format, isa, inputs) = (matrix.format(), matrix.isa, matrix.inputs);
        let n = rows * padded_inputs(inputs);
        let scales = || vec![0.0; rows];
        let data = match (format, isa.level()) {
            (Format::Bf16, Level::Avx512) => ActivationData::Bf16(Aligned::zeros(n)),
            (Format::F32 | Format::Bf16, _) => ActivationData::F32(Aligned::zeros(n)),
            (Format::Int8, Level::Avx512) => {
                ActivationData::Bytes { high: Aligned::zeros(n), low: Aligned::zeros(n), scales: scales() }
            }
            (Format::Int8, _) => ActivationData::Int16 { values: Aligned::zeros(n), scales: scales() },
        };
        PackedActivations { data, format, isa, inputs, rows }
    }

    /// Packs the values of `x` (rows × inputs).
    ///
    /// # Panics
    /// Panics if `x` has another size.
    pub fn set(&mut self, x: &[f32]) {
        assert_eq!(x.len(), self.rows * self.inputs);
        let (depth, isa) = (padded_inputs(self.inputs), self.isa);
        let rows = x.chunks_exact(self.inputs);
        match &mut self.data {
            ActivationData::F32(data) => {
                for (x, out) in rows.zip(data.as_mut_slice().chunks_exact_mut(depth)) {
                    match self.format {
                        Format::F32 => out[..x.len()].copy_from_slice(x),
                        _ => round_to_bf16_row(isa, x, &mut out[..x.len()]),
                    }
                }
            }
            ActivationData::Bf16(data) => {
                for (x, out) in rows.zip(data.as_mut_slice().chunks_exact_mut(depth)) {
                    row_to_bf16(isa, x, &mut out[..x.len()]);
                }
            }
            ActivationData::Int16 { values, scales } => {
                let values = values.as_mut_slice().chunks_exact_mut(depth);
                for ((x, values), scale) in rows.zip(values).zip(scales) {
                    *scale = quantize_row(isa, x, &mut values[..x.len()]);
                }
            }
            ActivationData::Bytes { high, low, scales } => {
                let high = high.as_mut_slice().chunks_exact_mut(depth);
                let low = low.as_mut_slice().chunks_exact_mut(depth);
                for (((x, high), low), scale) in rows.zip(high).zip(low).zip(scales) {
                    *scale = split_row(isa, x, &mut high[..x.len()], &mut low[..x.len()]);
                }
            }
        }
    }
}

for_each_isa! {
    /// Converts a row to bfloat16.
    pub fn row_to_bf16(x: &[f32], out: &mut [u16]) = row_to_bf16_body
}

#[inline(always)]
fn row_to_bf16_body<const FUSED: bool>(x: &[f32], out: &mut [u16]) {
    for (o, v) in out.iter_mut().zip(x) {
        *o = to_bf16(*v);
    }
}

for_each_isa! {
    /// Rounds a row to bfloat16, kept in single precision.
    pub fn round_to_bf16_row(x: &[f32], out: &mut [f32]) = round_to_bf16_row_body
}

#[inline(always)]
fn round_to_bf16_row_body<const FUSED: bool>(x: &[f32], out: &mut [f32]) {
    for (o, v) in out.iter_mut().zip(x) {
        *o = from_bf16(to_bf16(*v));
    }
}

for_each_isa! {
    /// Quantizes a row to 16-bit integers and returns their scale.
    pub fn quantize_row(x: &[f32], out: &mut [i16]) -> f32 = quantize_row_body
}

#[inline(always)]
fn quantize_row_body<const FUSED: bool>(x: &[f32], out: &mut [i16]) -> f32 {
    let scale = scale_to(32767.0, x);
    for (v, out) in x.iter().zip(out) {
        *out = nearest(v * (1.0 / scale)) as i16;
    }
    scale
}

for_each_isa! {
    /// Like [`quantize_row`], with 32768 added, split into high and low bytes.
    pub fn split_row(x: &[f32], high: &mut [u8], low: &mut [u8]) -> f32 = split_row_body
}

#[inline(always)]
fn split_row_body<const FUSED: bool>(x: &[f32], high: &mut [u8], low: &mut [u8]) -> f32 {
    let scale = scale_to(32767.0, x);
    for ((v, high), low) in x.iter().zip(high).zip(low) {
        let n = nearest(v * (1.0 / scale)).wrapping_add(32768);
        *high = (n >> 8) as u8;
        *low = n as u8;
    }
    scale
}

/// Scale that maps the largest magnitude of a row to `most`. NaN if a number is not finite, which
/// makes every product with the row NaN.
#[inline(always)]
fn scale_to(most: f32, x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks.iter().map(|c| c.as_slice()).chain([rest]) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, v.abs());
        }
    }
    let scale = lanes.iter().fold(0.0f32, |m, &v| larger(m, v)) / most;
    match scale {
        _ if scale.is_normal() => scale,
        _ if scale.is_finite() => 1.0,
        _ => f32::NAN,
    }
}

/// Nearest integer, for magnitudes below 2²²: adding 1.5 · 2²³ leaves it in the low bits.
#[inline(always)]
fn nearest(x: f32) -> u32 {
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND).to_bits().wrapping_sub(ROUND.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dot products of split bytes equal those of 16-bit integers, whether or not this processor
    /// has the instruction.
    #[test]
    fn sums_of_split_inputs_are_those_of_whole_ones() {
        let x: Vec<f32> = (0..100).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
        let weights: Vec<i32> = (0..100).map(|i| (i * 67) % 255 - 127).collect();
        let (mut whole, mut high, mut low) = (vec![0; 100], vec![0; 100], vec![0; 100]);
        let scale = quantize_row(Isa::PLAIN, &x, &mut whole);
        assert_eq!(split_row(Isa::PLAIN, &x, &mut high, &mut low), scale);
        let dot = |x: &dyn Fn(usize) -> i32| (0..100).map(|i| weights[i] * x(i)).sum::<i32>();
        let sums = [weights.iter().sum()];
        let scaling = Scaling { outputs: &[0.5], sums: &sums };
        let total = scaling.total(0, dot(&|i| i32::from(high[i])), dot(&|i| i32::from(low[i])));
        assert_eq!(total, dot(&|i| i32::from(whole[i])) as f32);
        let mut out = [f32::NAN; LANES];
        scaling.apply(0, 2.0, &[total; LANES], &mut out);
        assert_eq!((out[0], out[1]), (total, 0.0));
    }
}
