//! `y = x Wᵀ` for a few rows, with W packed once so that a product reads it as one stream.
//!
//! W (outputs, inputs) is cut into sections of consecutive outputs, so that threads can share them out. A section is
//! cut into groups of up to 64 outputs; a group is stored input after input, all its outputs side by side (bf16: two
//! inputs, int8: four inputs of an output side by side, as the processor's dot products take them). Outputs are padded
//! to 16, inputs to 4, with zeros.

mod plain;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::isa::{Isa, for_each_isa};
use crate::math::{from_bf16, to_bf16};
use crate::memory::Aligned;

/// Outputs in a vector.
const LANES: usize = 16;
/// Vectors in a group.
const GROUP: usize = 4;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Single precision, inputs too.
    F32,
    /// bfloat16, inputs too; sums in single precision.
    Bf16,
    /// 8-bit integers and a scale for each output. Inputs are 16-bit integers with a scale for each row, and the sums
    /// are exact, so that only the weights lose precision that shows.
    Int8,
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
    /// of an output lie side by side.
    fn place<T: crate::memory::Number>(
        &self,
        weight: &[f32],
        padded: usize,
        side: usize,
        convert: impl Fn(f32, usize) -> T,
    ) -> Aligned<T> {
        let mut packed = Aligned::zeros(padded);
        let data = packed.as_mut_slice();
        for (output, row) in weight.chunks_exact(self.inputs).enumerate() {
            let (section, within) = (output / self.section, output % self.section);
            let (group, lane) = (within / (GROUP * LANES), within % (GROUP * LANES));
            let start = self.group_at(section, group);
            let width = self.group_vectors(group) * LANES;
            for (input, &w) in row.iter().enumerate() {
                let at = (input / side * width + lane) * side + input % side;
                data[start + at] = convert(w, output);
            }
        }
        packed
    }

    fn quantize(&self, weight: &[f32], padded: usize) -> Data {
        let most = |row: &[f32]| row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        let scales: Vec<f32> = weight.chunks_exact(self.inputs).map(|row| most(row) / 127.0).collect();
        let integer = |w: f32, output: usize| match scales[output] {
            0.0 => 0,
            scale => (w / scale).round().clamp(-127.0, 127.0) as i8,
        };
        let sums = weight.chunks_exact(self.inputs).enumerate();
        let sums = sums.map(|(o, row)| row.iter().map(|&w| i32::from(integer(w, o))).sum()).collect();
        Data::Int8 { weights: self.place(weight, padded, 4, integer), scales, sums }
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

    fn group_vectors(&self, group: usize) -> usize {
        (self.padded_section() / LANES - group * GROUP).min(GROUP)
    }

    fn group_at(&self, section: usize, group: usize) -> usize {
        (section * self.padded_section() + group * GROUP * LANES) * padded_inputs(self.inputs)
    }

    /// All columns for `rows` rows of `x`, which lie side by side, into `out` (rows × outputs): for fp32 whose inputs and
    /// sections need no padding.
    pub(crate) fn product_f32(&self, x: &[f32], rows: usize, out: &mut [f32]) {
        let (depth, width) = (padded_inputs(self.inputs), self.sections() * self.padded_section());
        assert!(depth == self.inputs && width == self.outputs);
        let Data::F32(weights) = &self.data else { panic!("the weights are {:?}", self.format()) };
        for section in 0..self.sections() {
            for group in 0..(self.section / LANES).div_ceil(GROUP) {
                let vectors = self.group_vectors(group);
                let w = &weights.as_slice()[self.group_at(section, group)..][..vectors * LANES * depth];
                let tile = Tile { vectors, rows, depth, width };
                tile.f32(self.isa, w, x, &mut out[section * self.section + group * GROUP * LANES..]);
            }
        }
    }

    /// Columns of `section` for all rows of `x`, into `out` (rows × [`Matrix::padded_section`]).
    ///
    /// # Panics
    /// If `x` was prepared for another format or width, or `out` is too short.
    pub fn product(&self, section: usize, x: &Rows, out: &mut [f32]) {
        let width = self.padded_section();
        assert!(section < self.sections() && out.len() >= x.rows * width && x.inputs == self.inputs);
        for group in 0..(width / LANES).div_ceil(GROUP) {
            let vectors = self.group_vectors(group);
            let from = self.group_at(section, group);
            let to = from + vectors * LANES * padded_inputs(self.inputs);
            let first = section * self.section + group * GROUP * LANES; // its first output
            let out = &mut out[group * GROUP * LANES..];
            let depth = padded_inputs(self.inputs);
            let tile = Tile { vectors, rows: x.rows, depth, width };
            match (&self.data, &x.data) {
                (Data::F32(w), RowData::F32(x)) => {
                    tile.f32(self.isa, &w.as_slice()[from..to], x.as_slice(), out);
                }
                (Data::Bf16(w), RowData::Bf16(x)) => tile.bf16(self.isa, &w.as_slice()[from..to], x, out),
                (Data::Int8 { weights, scales, sums }, RowData::Int8 { high, low, scales: row_scales }) => {
                    let real = self.section.min(self.outputs - section * self.section);
                    let last = section * self.section + real;
                    let outputs = first.min(last)..last.min(first + vectors * LANES);
                    let scaling =
                        Scaling { outputs: &scales[outputs.clone()], sums: &sums[outputs], rows: row_scales };
                    tile.int8(self.isa, &weights.as_slice()[from..to], high, low, &scaling, out);
                }
                _ => panic!("rows were prepared for another format than {:?}", self.format()),
            }
        }
    }
}

/// What one call of a kernel computes: all rows, one group.
#[derive(Clone, Copy)]
struct Tile {
    /// Vectors of outputs in the group, 1 to [`GROUP`].
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
    rows: &'a [f32],
}

impl Scaling<'_> {
    /// `256 (Σ high·w − 128 Σ w) + Σ low·w`, scaled: inputs are stored with 32768 = 256 · 128 added.
    #[inline(always)]
    fn apply(&self, row: usize, output: usize, high: i32, low: i32) -> f32 {
        let Some(scale) = self.outputs.get(output) else { return 0.0 };
        let whole = (high - 128 * self.sums[output]) as f32 * 256.0 + low as f32;
        whole * (self.rows[row] * scale)
    }
}

impl Tile {
    fn f32(&self, isa: Isa, w: &[f32], x: &[f32], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 {
            return x86::f32(self, w, x, out);
        }
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx2 {
            return x86::f32_avx2(self, w, x, out);
        }
        plain::f32(isa, self, w, x, out);
    }

    fn bf16(&self, isa: Isa, w: &[u16], x: &Aligned<u16>, out: &mut [f32]) {
        let x = x.as_slice();
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 {
            return x86::bf16(self, w, x, out);
        }
        plain::bf16(isa, self, w, x, out);
    }

    fn int8(
        &self,
        isa: Isa,
        w: &[i8],
        high: &Aligned<u8>,
        low: &Aligned<u8>,
        scaling: &Scaling,
        out: &mut [f32],
    ) {
        let (high, low) = (high.as_slice(), low.as_slice());
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 {
            return x86::int8(self, w, high, low, scaling, out);
        }
        plain::int8(isa, self, w, high, low, scaling, out);
    }
}

fn padded_inputs(inputs: usize) -> usize {
    inputs.next_multiple_of(4)
}

enum RowData {
    F32(Aligned<f32>),
    Bf16(Aligned<u16>),
    Int8 { high: Aligned<u8>, low: Aligned<u8>, scales: Vec<f32> },
}

/// Rows of x in the form that products with a format take. Made once, filled again and again.
pub struct Rows {
    data: RowData,
    inputs: usize,
    rows: usize,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rows({} × {})", self.rows, self.inputs)
    }
}

impl Rows {
    /// Room for `rows` of `inputs` numbers.
    pub fn new(format: Format, rows: usize, inputs: usize) -> Self {
        let n = rows * padded_inputs(inputs);
        let data = match format {
            Format::F32 => RowData::F32(Aligned::zeros(n)),
            Format::Bf16 => RowData::Bf16(Aligned::zeros(n)),
            Format::Int8 => {
                RowData::Int8 { high: Aligned::zeros(n), low: Aligned::zeros(n), scales: vec![0.0; rows] }
            }
        };
        Rows { data, inputs, rows }
    }

    /// Takes the values of `x` (rows × inputs).
    ///
    /// # Panics
    /// If `x` has another size.
    pub fn set(&mut self, isa: Isa, x: &[f32]) {
        assert_eq!(x.len(), self.rows * self.inputs);
        let depth = padded_inputs(self.inputs);
        let rows = x.chunks_exact(self.inputs);
        match &mut self.data {
            RowData::F32(data) => {
                for (x, out) in rows.zip(data.as_mut_slice().chunks_exact_mut(depth)) {
                    out[..x.len()].copy_from_slice(x);
                }
            }
            RowData::Bf16(data) => {
                for (x, out) in rows.zip(data.as_mut_slice().chunks_exact_mut(depth)) {
                    round_row(isa, x, &mut out[..x.len()]);
                }
            }
            RowData::Int8 { high, low, scales } => {
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
    /// A row to 16-bit integers with 32768 added, the high and the low bytes apart; returns their scale.
    pub fn split_row(x: &[f32], high: &mut [u8], low: &mut [u8]) -> f32 = split_row_body
}

#[inline(always)]
fn split_row_body<const FUSED: bool>(x: &[f32], high: &mut [u8], low: &mut [u8]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks.iter().map(|c| c.as_slice()).chain([rest]) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(v.abs());
        }
    }
    let most = lanes.iter().fold(0.0f32, |m, &v| m.max(v));
    let scale = if most > 0.0 { most / 32767.0 } else { 1.0 };
    let inverse = 1.0 / scale;
    // Adding 1.5 · 2²³ leaves the nearest whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    for ((v, high), low) in x.iter().zip(high).zip(low) {
        let n = (v * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(32768);
        *high = (n >> 8) as u8;
        *low = n as u8;
    }
    scale
}

/// What `format` makes of a weight matrix, as numbers again: for tests and for measuring what is lost.
pub fn as_stored(weight: &[f32], inputs: usize, format: Format) -> Vec<f32> {
    match format {
        Format::F32 => weight.to_vec(),
        Format::Bf16 => weight.iter().map(|&w| from_bf16(to_bf16(w))).collect(),
        Format::Int8 => weight
            .chunks_exact(inputs)
            .flat_map(|row| {
                let scale = row.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 127.0;
                let stored = move |w: &f32| if scale == 0.0 { 0.0 } else { (w / scale).round() * scale };
                row.iter().map(stored).collect::<Vec<_>>()
            })
            .collect(),
    }
}
