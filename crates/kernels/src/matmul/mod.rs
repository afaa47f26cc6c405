//! `y = x Wᵀ` for a few rows, with W packed once so that a product reads it as one stream.
//!
//! W (outputs, inputs) is cut into sections of consecutive outputs, so that threads can share them out. A section is
//! cut into groups of outputs, as many as a kernel takes at a time; a group is stored input after input, all its outputs
//! side by side (bf16: two inputs, int8: four inputs of an output side by side, as the processor's dot products take
//! them). Outputs are padded to 16, inputs to 4, with zeros.

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

/// Vectors in a group: what the registers of a kernel hold beside several rows' sums.
fn group(isa: Isa) -> usize {
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
    section: usize, // outputs of a section, a divisor of `outputs` but for the last section
    isa: Isa,
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix({} × {}, {:?}, {:?})", self.outputs, self.inputs, self.format(), self.isa)
    }
}

impl Matrix {
    /// Packs `weight` (outputs × inputs, row after row) in sections of `section` outputs; the last may be shorter.
    ///
    /// # Panics
    /// If `weight` is not a whole number of rows, or empty.
    pub fn pack(weight: &[f32], inputs: usize, section: usize, format: Format) -> Self {
        Self::pack_for(weight, inputs, section, format, Isa::best(format))
    }

    /// As [`Matrix::pack`], to be computed with `isa`, which must be of [`Isa::available`].
    ///
    /// # Panics
    /// If `weight` is not a whole number of rows, or empty, or the processor lacks `isa`.
    pub fn pack_for(weight: &[f32], inputs: usize, section: usize, format: Format, isa: Isa) -> Self {
        assert!(inputs > 0 && section > 0 && !weight.is_empty() && weight.len().is_multiple_of(inputs));
        assert!(Isa::available(format).contains(&isa), "this processor has no {isa:?} for {format:?}");
        let outputs = weight.len() / inputs;
        let mut matrix = Matrix { data: Data::F32(Aligned::zeros(0)), inputs, outputs, section, isa };
        let padded = matrix.sections() * matrix.padded_section() * padded_inputs(inputs);
        matrix.data = match format {
            Format::F32 => Data::F32(matrix.place(weight, padded, 1, |w, _| w)),
            Format::Bf16 => Data::Bf16(matrix.place(weight, padded, 2, |w, _| to_bf16(w))),
            Format::Int8 => matrix.quantize(weight, padded),
        };
        matrix
    }

    /// Puts each weight, through `convert` (which also gets its output), where the kernels look for it; `side` inputs
    /// of an output lie side by side. On all cores.
    fn place<T: crate::memory::Number>(
        &self,
        weight: &[f32],
        padded: usize,
        side: usize,
        convert: impl Fn(f32, usize) -> T + Sync,
    ) -> Aligned<T> {
        let mut packed = Aligned::zeros(padded);
        let depth = padded_inputs(self.inputs);
        let sections = packed.as_mut_slice().par_chunks_mut(self.padded_section() * depth);
        let rows = weight.par_chunks(self.section * self.inputs);
        sections.zip(rows).enumerate().for_each(|(section, (section_data, rows))| {
            let most = group(self.isa) * LANES;
            let groups = section_data.chunks_mut(most * depth).zip(rows.chunks(most * self.inputs));
            for (group, (data, rows)) in groups.enumerate() {
                let first = section * self.section + group * most; // output
                let width = data.len() / depth;
                // A few inputs at a time, so that what is written lies in a first cache.
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
        let weights = self.place(weight, padded, 4, |w, output| nearest(w / scales[output]) as i8);
        Data::Int8 { weights, scales, sums }
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        match self.data {
            Data::F32(_) => Format::F32,
            Data::Bf16(_) => Format::Bf16,
            Data::Int8 { .. } => Format::Int8,
        }
    }

    /// Which instructions compute it.
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

    /// Number of sections.
    pub fn sections(&self) -> usize {
        self.outputs.div_ceil(self.section)
    }

    /// Columns of y in a section.
    pub fn section(&self) -> usize {
        self.section
    }

    /// Columns that [`Matrix::product`] writes: a section's, padded.
    pub fn padded_section(&self) -> usize {
        self.section.next_multiple_of(LANES)
    }

    /// Bytes that a product reads.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::F32(d) => size_of_val(d.as_slice()),
            Data::Bf16(d) => size_of_val(d.as_slice()),
            Data::Int8 { weights, .. } => size_of_val(weights.as_slice()),
        }
    }

    /// The groups of a section: for each its first column there and where its weights lie.
    fn groups(&self, section: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (vectors, most) = (self.padded_section() / LANES, group(self.isa));
        let vector = LANES * padded_inputs(self.inputs); // its weights
        (0..vectors).step_by(most).map(move |first| {
            let from = section * vectors + first;
            (first * LANES, from * vector..(from + most.min(vectors - first)) * vector)
        })
    }

    /// All columns for `rows` rows of `x`, which lie side by side, into `out` (rows × outputs): for fp32 whose inputs and
    /// sections need no padding.
    pub(crate) fn product_f32(&self, x: &[f32], rows: usize, out: &mut [f32]) {
        let (depth, width) = (padded_inputs(self.inputs), self.sections() * self.padded_section());
        assert!(depth == self.inputs && width == self.outputs);
        let Data::F32(weights) = &self.data else { panic!("the weights are {:?}", self.format()) };
        for section in 0..self.sections() {
            for (first, at) in self.groups(section) {
                let tile = Tile { vectors: at.len() / depth / LANES, rows, depth, width };
                tile.f32(self.isa, &weights.as_slice()[at], x, &mut out[section * self.section + first..]);
            }
        }
    }

    /// Columns of `section` for all rows of `x`, into `out` (rows × [`Matrix::padded_section`]).
    ///
    /// # Panics
    /// If `x` was made for another format, other instructions or another width, or `out` is too short.
    pub fn product(&self, section: usize, x: &Rows, out: &mut [f32]) {
        let (depth, width) = (padded_inputs(self.inputs), self.padded_section());
        assert!(section < self.sections() && out.len() >= x.rows * width);
        assert!(
            (x.format, x.isa, x.inputs) == (self.format(), self.isa, self.inputs),
            "{x:?} were made for another matrix than {self:?}"
        );
        for (first, at) in self.groups(section) {
            let tile = Tile { vectors: at.len() / depth / LANES, rows: x.rows, depth, width };
            let out = &mut out[first..];
            match (&self.data, &x.data) {
                (Data::F32(w), RowData::F32(x)) => tile.f32(self.isa, &w.as_slice()[at], x.as_slice(), out),
                (Data::Bf16(w), x) => tile.bf16(self.isa, &w.as_slice()[at], x, out),
                (Data::Int8 { weights, scales, sums }, x) => {
                    let first = section * self.section + first;
                    let end =
                        self.outputs.min((section + 1) * self.section).min(first + tile.vectors * LANES);
                    let outputs = first.min(end)..end;
                    let scaling = Scaling { outputs: &scales[outputs.clone()], sums: &sums[outputs] };
                    tile.int8(self.isa, &weights.as_slice()[at], x, &scaling, out);
                }
                _ => unreachable!("rows of {:?}", self.format()),
            }
        }
    }
}

/// What one call of a kernel computes: all rows, one group.
#[derive(Clone, Copy)]
struct Tile {
    /// Vectors of outputs in the group; 1 but with AVX-512.
    vectors: usize,
    rows: usize,
    /// Padded inputs.
    depth: usize,
    /// Distance of rows in `out`.
    width: usize,
}

/// What turns exact integer sums into results.
struct Scaling<'a> {
    outputs: &'a [f32],
    sums: &'a [i32],
}

impl Scaling<'_> {
    /// `256 (Σ high·w − 128 Σ w) + Σ low·w` of an output: split inputs have 32768 = 256 · 128 added.
    #[inline(always)]
    fn total(&self, output: usize, high: i32, low: i32) -> f32 {
        let offset = self.sums.get(output).map_or(0, |sum| 128 * i64::from(*sum));
        (256 * (i64::from(high) - offset) + i64::from(low)) as f32
    }

    /// The outputs from `first` on of a row with this scale. Padding is zero.
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
    /// The kernels read and write without further checks.
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

    fn bf16(&self, isa: Isa, w: &[u16], x: &RowData, out: &mut [f32]) {
        match (isa.level(), x) {
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, RowData::Bf16(x)) => avx512::bf16(self, w, x.as_slice(), out),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, RowData::F32(x)) => avx2::bf16(self, w, x.as_slice(), out),
            (_, RowData::F32(x)) => plain::bf16(self, w, x.as_slice(), out),
            _ => unreachable!("`Rows::of` chose by the same instructions"),
        }
    }

    fn int8(&self, isa: Isa, w: &[i8], x: &RowData, scaling: &Scaling, out: &mut [f32]) {
        match (isa.level(), x) {
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, RowData::Bytes { high, low, scales }) => {
                avx512::int8(self, w, [high.as_slice(), low.as_slice()], scales, scaling, out);
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, RowData::Int16 { values, scales }) => {
                avx2::int8(self, w, values.as_slice(), scales, scaling, out);
            }
            (_, RowData::Int16 { values, scales }) => {
                plain::int8(self, w, values.as_slice(), scales, scaling, out);
            }
            _ => unreachable!("`Rows::of` chose by the same instructions"),
        }
    }
}

fn padded_inputs(inputs: usize) -> usize {
    inputs.next_multiple_of(4)
}

enum RowData {
    /// For fp32; and for bf16 where there is no dot product of it: rounded to bfloat16.
    F32(Aligned<f32>),
    Bf16(Aligned<u16>),
    /// 16-bit integers, for int8.
    Int16 {
        values: Aligned<i16>,
        scales: Vec<f32>,
    },
    /// The same with 32768 added, high and low bytes apart, for a dot product of bytes.
    Bytes {
        high: Aligned<u8>,
        low: Aligned<u8>,
        scales: Vec<f32>,
    },
}

/// Rows of x in the form that products with a format and some instructions take. Made once, filled again and again.
pub struct Rows {
    data: RowData,
    format: Format,
    isa: Isa,
    inputs: usize,
    rows: usize,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rows({} × {}, {:?}, {:?})", self.rows, self.inputs, self.format, self.isa)
    }
}

impl Rows {
    /// Room for `rows` inputs of `matrix`, and of any other of its format, instructions and width.
    pub fn of(matrix: &Matrix, rows: usize) -> Self {
        let (format, isa, inputs) = (matrix.format(), matrix.isa, matrix.inputs);
        let n = rows * padded_inputs(inputs);
        let scales = || vec![0.0; rows];
        let data = match (format, isa.level()) {
            (Format::Bf16, Level::Avx512) => RowData::Bf16(Aligned::zeros(n)),
            (Format::F32 | Format::Bf16, _) => RowData::F32(Aligned::zeros(n)),
            (Format::Int8, Level::Avx512) => {
                RowData::Bytes { high: Aligned::zeros(n), low: Aligned::zeros(n), scales: scales() }
            }
            (Format::Int8, _) => RowData::Int16 { values: Aligned::zeros(n), scales: scales() },
        };
        Rows { data, format, isa, inputs, rows }
    }

    /// Takes the values of `x` (rows × inputs).
    ///
    /// # Panics
    /// If `x` has another size.
    pub fn set(&mut self, x: &[f32]) {
        assert_eq!(x.len(), self.rows * self.inputs);
        let (depth, isa) = (padded_inputs(self.inputs), self.isa);
        let rows = x.chunks_exact(self.inputs);
        match &mut self.data {
            RowData::F32(data) => {
                for (x, out) in rows.zip(data.as_mut_slice().chunks_exact_mut(depth)) {
                    match self.format {
                        Format::F32 => out[..x.len()].copy_from_slice(x),
                        _ => widened_row(isa, x, &mut out[..x.len()]),
                    }
                }
            }
            RowData::Bf16(data) => {
                for (x, out) in rows.zip(data.as_mut_slice().chunks_exact_mut(depth)) {
                    round_row(isa, x, &mut out[..x.len()]);
                }
            }
            RowData::Int16 { values, scales } => {
                let values = values.as_mut_slice().chunks_exact_mut(depth);
                for ((x, values), scale) in rows.zip(values).zip(scales) {
                    *scale = quantize_row(isa, x, &mut values[..x.len()]);
                }
            }
            RowData::Bytes { high, low, scales } => {
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
    /// A row to bfloat16.
    pub fn round_row(x: &[f32], out: &mut [u16]) = round_row_body
}

#[inline(always)]
fn round_row_body<const FUSED: bool>(x: &[f32], out: &mut [u16]) {
    for (o, v) in out.iter_mut().zip(x) {
        *o = to_bf16(*v);
    }
}

for_each_isa! {
    /// A row rounded to bfloat16, in single precision.
    pub fn widened_row(x: &[f32], out: &mut [f32]) = widened_row_body
}

#[inline(always)]
fn widened_row_body<const FUSED: bool>(x: &[f32], out: &mut [f32]) {
    for (o, v) in out.iter_mut().zip(x) {
        *o = from_bf16(to_bf16(*v));
    }
}

for_each_isa! {
    /// A row to 16-bit integers; returns their scale.
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
    /// As [`quantize_row`], with 32768 added, the high and the low bytes apart.
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

/// What the numbers of a row are divided by so that the largest becomes `most`. NaN where one of them is not finite: so is
/// then everything that is multiplied with the row.
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

/// The nearest whole number, of those below 2²²; adding 1.5 · 2²³ leaves it in the low bits.
#[inline(always)]
fn nearest(x: f32) -> u32 {
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND).to_bits().wrapping_sub(ROUND.to_bits())
}

/// What `format` makes of a weight matrix, as numbers again: for tests and for measuring what is lost.
pub fn as_stored(weight: &[f32], inputs: usize, format: Format) -> Vec<f32> {
    match format {
        Format::F32 => weight.to_vec(),
        Format::Bf16 => weight.iter().map(|&w| from_bf16(to_bf16(w))).collect(),
        Format::Int8 => weight
            .chunks_exact(inputs)
            .flat_map(|row| {
                let scale = scale_to(127.0, row);
                row.iter().map(move |w| nearest(w / scale) as i32 as f32 * scale)
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a dot product of bytes sums up is what 16-bit integers do, whether or not this processor has one.
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
