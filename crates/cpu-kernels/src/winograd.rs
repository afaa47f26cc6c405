//! 3×3 convolutions of channels-last maps, by Winograd's minimal filtering F(4×4, 3×3) (Lavin
//! and Gray, arXiv 1509.09308): 36 products instead of 144 for sixteen pixels.
//!
//! The points are 0, ±3/4, ±3/2 and infinity. With them the single-precision error is about 1.6
//! times that of the sum of nine products, instead of 3.3 times with the usual 0, ±1, ±2 (128
//! channels, measured). Arithmetic is fp32 whatever the map's dtype.
//!
//! C inputs, K outputs, T tiles of 4×4 pixels

use std::cell::RefCell;

use crate::element::Element;
use crate::isa::{Format, Isa, for_each_isa};
use crate::math::fma;
use crate::matmul::Matrix;
use crate::memory::{Aligned, DisjointSlice};
use crate::thread_pool::ThreadPool;

const A: f32 = 0.75;
const B: f32 = 1.5;
/// Pixels along a tile's output, and along its input.
const OUT: usize = 4;
const IN: usize = 6;
const PLACES: usize = IN * IN;
const LANES: usize = 16;
/// Tiles in one batch of products: a multiple of the products' rows, small enough that both
/// transforms stay in the second-level cache.
const TOGETHER: usize = 48;

/// The weights of one convolution with stride 1 and same padding.
#[derive(Debug)]
pub struct Winograd {
    weights: Vec<Matrix>, // PLACES of (K, C)
    bias: Vec<f32>,
    inputs: usize,
    isa: Isa,
}

/// Element of a map that can be convolved: `f32`, or `u16` holding bf16.
#[allow(private_bounds)] // sealed
pub trait ConvElement: ConvKernels {}
impl ConvElement for f32 {}
impl ConvElement for u16 {}

/// The kernels of a [`ConvElement`].
pub(crate) trait ConvKernels: Element {
    fn gather(isa: Isa, x: &[Self], channels: usize, place: &Place, out: &mut [f32], at: usize);
    fn store(isa: Isa, row: &[f32], residual: Option<&[Self]>, out: &mut [Self]);
}

impl ConvKernels for f32 {
    fn gather(isa: Isa, x: &[f32], channels: usize, place: &Place, out: &mut [f32], at: usize) {
        gather_f32(isa, x, channels, place, out, at);
    }
    fn store(isa: Isa, row: &[f32], residual: Option<&[f32]>, out: &mut [f32]) {
        store_f32(isa, row, residual, out);
    }
}

impl ConvKernels for u16 {
    fn gather(isa: Isa, x: &[u16], channels: usize, place: &Place, out: &mut [f32], at: usize) {
        gather_bf16(isa, x, channels, place, out, at);
    }
    fn store(isa: Isa, row: &[f32], residual: Option<&[u16]>, out: &mut [u16]) {
        store_bf16(isa, row, residual, out);
    }
}

/// Input map of a convolution, and the residual added to its result.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a, T> {
    /// (H, W, C)
    pub x: &'a [T],
    /// W
    pub width: usize,
    /// (H, W, K)
    pub residual: Option<&'a [T]>,
}

impl Winograd {
    /// Whether the kernel supports these numbers of channels.
    pub fn fits(inputs: usize, outputs: usize) -> bool {
        inputs.is_multiple_of(LANES) && outputs.is_multiple_of(LANES)
    }

    /// Transforms weights (K, C, 3, 3), with bias (K).
    ///
    /// # Panics
    /// Panics if the sizes do not match, or [`Winograd::fits`] is false.
    pub fn new(weight: &[f32], bias: &[f32], isa: Isa) -> Self {
        let inputs = weight.len() / (9 * bias.len());
        assert!(Winograd::fits(inputs, bias.len()) && weight.len() == 9 * bias.len() * inputs);
        let mut places = vec![vec![0.0f32; bias.len() * inputs]; PLACES];
        let rows = filter_rows();
        for (i, filter) in weight.as_chunks::<9>().0.iter().enumerate() {
            for (place, value) in places.iter_mut().zip(of_filter(&rows, filter)) {
                place[i] = value;
            }
        }
        let pack = |place: Vec<f32>| Matrix::pack_for(&place, inputs, bias.len(), Format::F32, isa);
        Winograd { weights: places.into_iter().map(pack).collect(), bias: bias.to_vec(), inputs, isa }
    }

    /// Bytes of the transformed weights.
    pub fn bytes(&self) -> usize {
        self.weights.iter().map(Matrix::bytes).sum()
    }

    /// Convolves one image into `out` (H, W, K). The result does not depend on the number of
    /// threads.
    ///
    /// # Panics
    /// Panics if lengths do not match.
    pub fn run<T: ConvElement>(&self, pool: &ThreadPool, map: &Map<T>, out: &mut [T]) {
        let outputs = self.bias.len();
        let pixels = map.x.len() / self.inputs;
        assert!(map.x.len() == pixels * self.inputs && out.len() == pixels * outputs, "sizes do not fit");
        assert!(pixels.is_multiple_of(map.width) && map.residual.is_none_or(|r| r.len() == out.len()));
        let across = map.width.div_ceil(OUT);
        let tiles = (pixels / map.width).div_ceil(OUT) * across;
        let out = DisjointSlice::new(out);
        pool.run(|m| {
            SCRATCH.with_borrow_mut(|scratch| {
                let own = m.chunk(tiles);
                for first in own.clone().step_by(TOGETHER) {
                    let tiles = first..own.end.min(first + TOGETHER);
                    let strides = [tiles.len() * self.inputs + LANES, tiles.len() * outputs + LANES];
                    let (before, after, tile_out) = scratch.of(strides, outputs);
                    for (i, tile) in tiles.clone().enumerate() {
                        let place = Place::new(tile, across, map.width, pixels);
                        T::gather(self.isa, map.x, self.inputs, &place, before, i * self.inputs);
                    }
                    self.products(before, after, tiles.len());
                    for (i, tile) in tiles.enumerate() {
                        let place = Place::new(tile, across, map.width, pixels);
                        scatter(self.isa, after, i * outputs, &self.bias, tile_out);
                        self.store(tile_out, &place, map.residual, &out);
                    }
                }
            });
        });
    }

    fn products(&self, before: &[f32], after: &mut [f32], tiles: usize) {
        let before = before.chunks_exact(before.len() / PLACES);
        let after = after.chunks_exact_mut(after.len() / PLACES);
        for ((matrix, x), y) in self.weights.iter().zip(before).zip(after) {
            matrix.matmul_f32(&x[..tiles * self.inputs], tiles, y);
        }
    }

    /// Writes the part of a tile (OUT, OUT, K) that is inside the map, plus the residual.
    fn store<T: ConvElement>(
        &self,
        tile: &[f32],
        place: &Place,
        residual: Option<&[T]>,
        out: &DisjointSlice<T>,
    ) {
        let outputs = self.bias.len();
        let length = OUT.min(place.width - place.x) * outputs;
        for (y, row) in (place.y..place.height).zip(tile.chunks_exact(OUT * outputs)) {
            let from = (y * place.width + place.x) * outputs;
            // SAFETY: tiles do not overlap, and this is the only view of the tile's pixels.
            let out = unsafe { out.write(from, length) };
            T::store(self.isa, row, residual.map(|r| &r[from..from + length]), out);
        }
    }
}

/// First output pixel of a tile, and size of the map.
pub(crate) struct Place {
    y: usize,
    x: usize,
    height: usize,
    width: usize,
}

impl Place {
    fn new(tile: usize, across: usize, width: usize, pixels: usize) -> Self {
        Place { y: tile / across * OUT, x: tile % across * OUT, height: pixels / width, width }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch(None)) };
}

/// Tiles before and after the products and one tile of the result, kept from one convolution to the
/// next.
struct Scratch(Option<Aligned<f32>>);

impl Scratch {
    /// Slices (PLACES, stride) twice, and (OUT, OUT, K). Strides are odd numbers of cache lines:
    /// with powers of two all places of a tile would map to the same few cache sets.
    fn of(&mut self, strides: [usize; 2], outputs: usize) -> (&mut [f32], &mut [f32], &mut [f32]) {
        let [before, after] = strides.map(|stride| PLACES * stride);
        let needed = before + after + OUT * OUT * outputs;
        if self.0.as_ref().is_none_or(|s| s.as_slice().len() < needed) {
            self.0 = Some(Aligned::zeros(needed));
        }
        let all = self.0.as_mut().expect("allocated above").as_mut_slice();
        let (x, rest) = all.split_at_mut(before);
        let (y, rest) = rest.split_at_mut(after);
        (x, y, &mut rest[..OUT * OUT * outputs])
    }
}

/// G, (IN, 3).
fn filter_rows() -> [[f64; 3]; IN] {
    let points = [0.0, A, -A, B, -B].map(f64::from);
    std::array::from_fn(|i| match points.get(i) {
        Some(p) => {
            let others = points.iter().enumerate().filter(|(j, _)| *j != i);
            let divisor: f64 = others.map(|(_, q)| p - q).product();
            [1.0 / divisor, p / divisor, p * p / divisor]
        }
        None => [0.0, 0.0, 1.0], // infinity
    })
}

/// `G g Gᵀ` in double precision.
fn of_filter(rows: &[[f64; 3]; IN], filter: &[f32; 9]) -> [f32; PLACES] {
    let g = filter.map(f64::from);
    let half = rows.map(|r| [0, 1, 2].map(|j| r[0] * g[j] + r[1] * g[3 + j] + r[2] * g[6 + j])); // G g
    std::array::from_fn(|at| {
        let (h, r) = (half[at / IN], rows[at % IN]);
        (h[0] * r[0] + h[1] * r[1] + h[2] * r[2]) as f32
    })
}

type Lanes = [f32; LANES];

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> Lanes {
    let mut out = [0.0; LANES];
    for (l, o) in out.iter_mut().enumerate() {
        *o = f(l);
    }
    out
}

/// `a · x + y`.
#[inline(always)]
fn plus<const FUSED: bool>(a: f32, x: &Lanes, y: &Lanes) -> Lanes {
    lanes(|l| fma::<FUSED>(a, x[l], y[l]))
}

/// `Bᵀ d`.
#[inline(always)]
fn before<const FUSED: bool>(d: &[Lanes; IN]) -> [Lanes; IN] {
    const AA: f32 = A * A;
    const BB: f32 = B * B;
    let ends = |x: &Lanes, y: &Lanes, z: &Lanes| {
        plus::<FUSED>(AA * BB, x, &plus::<FUSED>(-(AA + BB), y, z)) // a²b² x − (a² + b²) y + z
    };
    let (even_a, odd_a) = (plus::<FUSED>(-BB, &d[2], &d[4]), plus::<FUSED>(-BB, &d[1], &d[3]));
    let (even_b, odd_b) = (plus::<FUSED>(-AA, &d[2], &d[4]), plus::<FUSED>(-AA, &d[1], &d[3]));
    [
        ends(&d[0], &d[2], &d[4]),
        plus::<FUSED>(A, &odd_a, &even_a),
        plus::<FUSED>(-A, &odd_a, &even_a),
        plus::<FUSED>(B, &odd_b, &even_b),
        plus::<FUSED>(-B, &odd_b, &even_b),
        ends(&d[1], &d[3], &d[5]),
    ]
}

/// Writes `Bᵀ d B` of a tile's input, all channels, to `at` of each place in `out` (PLACES, T,
/// C).
#[inline(always)]
fn gather_of<const FUSED: bool, T: Element>(x: &[T], channels: usize, p: &Place, out: &mut [f32], at: usize) {
    let stride = out.len() / PLACES;
    let pixel = |i: usize, j: usize| {
        let (y, x) = ((p.y + i).wrapping_sub(1), (p.x + j).wrapping_sub(1));
        (y < p.height && x < p.width).then(|| (y * p.width + x) * channels)
    };
    for first in (0..channels).step_by(LANES) {
        let mut half = [[[0.0; LANES]; IN]; IN]; // by column
        for (j, half) in half.iter_mut().enumerate() {
            let mut column = [[0.0; LANES]; IN];
            for (i, value) in column.iter_mut().enumerate() {
                if let Some(pixel) = pixel(i, j) {
                    let values = &x[pixel + first..pixel + first + LANES];
                    *value = lanes(|l| values[l].read());
                }
            }
            *half = before::<FUSED>(&column);
        }
        for i in 0..IN {
            let row = std::array::from_fn(|j| half[j][i]);
            for (j, value) in before::<FUSED>(&row).iter().enumerate() {
                out[(i * IN + j) * stride + at + first..][..LANES].copy_from_slice(value);
            }
        }
    }
}

/// `Aᵀ m`: sums of pⁱ m over the points p.
#[inline(always)]
fn after<const FUSED: bool>(m: &[Lanes; IN]) -> [Lanes; OUT] {
    let sum = |x: &Lanes, y: &Lanes| lanes(|l| x[l] + y[l]);
    let difference = |x: &Lanes, y: &Lanes| lanes(|l| x[l] - y[l]);
    let (even_a, odd_a) = (sum(&m[1], &m[2]), difference(&m[1], &m[2]));
    let (even_b, odd_b) = (sum(&m[3], &m[4]), difference(&m[3], &m[4]));
    let times = |b: f32, x: &Lanes| lanes(|l| b * x[l]);
    [
        sum(&m[0], &sum(&even_a, &even_b)),
        plus::<FUSED>(A, &odd_a, &times(B, &odd_b)),
        plus::<FUSED>(A * A, &even_a, &times(B * B, &even_b)),
        plus::<FUSED>(A * A * A, &odd_a, &plus::<FUSED>(B * B * B, &odd_b, &m[5])),
    ]
}

for_each_isa! {
    /// Writes `Aᵀ m A` of the tile at `at` of each place in `m` (PLACES, T, K), plus the bias, to
    /// `out` (OUT, OUT, K).
    pub fn scatter(m: &[f32], at: usize, bias: &[f32], out: &mut [f32]) = scatter_body
}

#[inline(always)]
fn scatter_body<const FUSED: bool>(m: &[f32], at: usize, bias: &[f32], out: &mut [f32]) {
    let (stride, channels) = (m.len() / PLACES, bias.len());
    for first in (0..channels).step_by(LANES) {
        let value = |i: usize, j: usize| -> Lanes {
            let values = &m[(i * IN + j) * stride + at + first..][..LANES];
            lanes(|l| values[l])
        };
        let mut half = [[[0.0; LANES]; OUT]; IN]; // by column
        for (j, half) in half.iter_mut().enumerate() {
            *half = after::<FUSED>(&std::array::from_fn(|i| value(i, j)));
        }
        let bias = &bias[first..first + LANES];
        for i in 0..OUT {
            let row = std::array::from_fn(|j| half[j][i]);
            for (j, value) in after::<FUSED>(&row).iter().enumerate() {
                let out = &mut out[(i * OUT + j) * channels + first..][..LANES];
                for ((o, v), b) in out.iter_mut().zip(value).zip(bias) {
                    *o = v + b;
                }
            }
        }
    }
}

#[inline(always)]
fn store_of<T: Element>(row: &[f32], residual: Option<&[T]>, out: &mut [T]) {
    match residual {
        Some(residual) => {
            for ((o, v), r) in out.iter_mut().zip(row).zip(residual) {
                *o = T::write(v + r.read());
            }
        }
        None => {
            for (o, v) in out.iter_mut().zip(row) {
                *o = T::write(*v);
            }
        }
    }
}

macro_rules! kernels_of {
    ($T:ty, $gather:ident, $gather_body:ident, $store:ident, $store_body:ident) => {
        for_each_isa! {
            pub fn $gather(x: &[$T], channels: usize, p: &Place, out: &mut [f32], at: usize) = $gather_body
        }
        for_each_isa! {
            pub fn $store(row: &[f32], residual: Option<&[$T]>, out: &mut [$T]) = $store_body
        }

        #[inline(always)]
        fn $gather_body<const FUSED: bool>(x: &[$T], channels: usize, p: &Place, out: &mut [f32], at: usize) {
            gather_of::<FUSED, $T>(x, channels, p, out, at);
        }

        #[inline(always)]
        fn $store_body<const FUSED: bool>(row: &[f32], residual: Option<&[$T]>, out: &mut [$T]) {
            store_of::<$T>(row, residual, out);
        }
    };
}
kernels_of!(f32, gather_f32, gather_f32_body, store_f32, store_f32_body);
kernels_of!(u16, gather_bf16, gather_bf16_body, store_bf16, store_bf16_body);
