//! Pillow's 8-bit resampling, bit for bit.
//!
//! Published numbers depend on these pixels: GigaTok and ADM crop with Pillow's antialiased BOX and
//! BICUBIC filters, whose 8-bit path works in fixed point (Pillow `Resample.c`). Weights are
//! normalised in f64, rounded to `32 - 8 - 2 = 22` fractional bits, and each of the two passes
//! (horizontal, then vertical) rounds to 8 bits.

use image::RgbImage;

/// A resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The mean over a box.
    Box,
    /// Keys' cubic with a = -0.5.
    Bicubic,
}

impl Filter {
    /// Half the filter's width, in input pixels, when not shrinking.
    fn support(self) -> f64 {
        match self {
            Filter::Box => 0.5,
            Filter::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Filter::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// A rectangle of the resized image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// `image.resize((width, height), filter)` of Pillow.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    resize_region(image, width, height, filter, Region { x: 0, y: 0, width, height })
}

/// `image.resize((width, height), filter).crop(region)`, computing only what the region shows.
///
/// Panics if the region reaches outside the resized image, or if any side is 0.
pub fn resize_region(image: &RgbImage, width: u32, height: u32, filter: Filter, region: Region) -> RgbImage {
    assert!(
        region.x + region.width <= width && region.y + region.height <= height,
        "{region:?} outside {width}x{height}"
    );
    assert!(
        image.width() > 0 && image.height() > 0 && region.width > 0 && region.height > 0,
        "an empty image"
    );
    let columns = Taps::new(image.width(), width, filter, region.x, region.width);
    let rows = Taps::new(image.height(), height, filter, region.y, region.height);
    let (first, last) = rows.input_range();
    let middle = horizontal(image, &columns, first, last);
    vertical(&middle, region.width as usize, first, &rows)
}

const PRECISION_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// For each output position the first input it reads and the fixed-point weights of it and its
/// followers.
struct Taps {
    starts: Vec<usize>,
    lengths: Vec<usize>,
    weights: Vec<i32>, // one row of `stride` per output
    stride: usize,
}

impl Taps {
    fn new(input: u32, output: u32, filter: Filter, offset: u32, count: u32) -> Taps {
        if input == output {
            return Taps::copy(offset, count);
        }
        let scale = f64::from(input) / f64::from(output);
        let stretch = scale.max(1.0); // shrinking widens the filter
        let support = filter.support() * stretch;
        let stride = support.ceil() as usize * 2 + 1;
        let mut taps =
            Taps { starts: vec![], lengths: vec![], weights: vec![0; stride * count as usize], stride };
        for (i, row) in taps.weights.chunks_exact_mut(stride).enumerate() {
            let center = (f64::from(offset) + i as f64 + 0.5) * scale;
            // C's (int) truncates towards zero, then the ends are clipped to the image.
            let start = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).min(i64::from(input)) as usize;
            fixed_point(row, start, end, center, stretch, filter);
            taps.starts.push(start);
            taps.lengths.push(end - start);
        }
        taps
    }

    /// An axis whose size does not change: Pillow skips its pass.
    fn copy(offset: u32, count: u32) -> Taps {
        Taps {
            starts: (offset as usize..(offset + count) as usize).collect(),
            lengths: vec![1; count as usize],
            weights: vec![1 << PRECISION_BITS; count as usize],
            stride: 1,
        }
    }

    fn get(&self, i: usize) -> (usize, &[i32]) {
        (self.starts[i], &self.weights[i * self.stride..][..self.lengths[i]])
    }

    /// The inputs any output reads, from the first to one past the last.
    fn input_range(&self) -> (usize, usize) {
        let end = self.starts.iter().zip(&self.lengths).map(|(s, n)| s + n).max().unwrap_or(0);
        (self.starts.iter().copied().min().unwrap_or(0), end)
    }
}

/// Normalised weights of inputs `start..end`, rounded half away from zero to fixed point.
fn fixed_point(row: &mut [i32], start: usize, end: usize, center: f64, stretch: f64, filter: Filter) {
    let inverse = 1.0 / stretch; // Pillow multiplies by the reciprocal
    let raw: Vec<f64> = (start..end).map(|x| filter.weight((x as f64 - center + 0.5) * inverse)).collect();
    let sum: f64 = raw.iter().sum();
    for (out, w) in row.iter_mut().zip(raw) {
        let scaled = (if sum == 0.0 { w } else { w / sum }) * f64::from(1 << PRECISION_BITS);
        *out = (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32;
    }
}

fn round_to_u8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Rows `first..last` of the image with their columns resampled, interleaved RGB.
fn horizontal(image: &RgbImage, columns: &Taps, first: usize, last: usize) -> Vec<u8> {
    let stride = image.width() as usize * 3;
    let mut out = Vec::with_capacity((last - first) * columns.starts.len() * 3);
    for row in image.as_raw()[first * stride..last * stride].chunks_exact(stride) {
        for i in 0..columns.starts.len() {
            let (start, weights) = columns.get(i);
            let mut sum = [HALF; 3];
            for (pixel, w) in row[start * 3..].chunks_exact(3).zip(weights) {
                for (s, &v) in sum.iter_mut().zip(pixel) {
                    *s += i32::from(v) * w;
                }
            }
            out.extend(sum.map(round_to_u8));
        }
    }
    out
}

/// The rows of `middle` (whose first is input row `first`) resampled.
fn vertical(middle: &[u8], width: usize, first: usize, rows: &Taps) -> RgbImage {
    let stride = width * 3;
    let height = rows.starts.len();
    let mut out = Vec::with_capacity(stride * height);
    let mut sum = vec![0i32; stride];
    for i in 0..height {
        let (start, weights) = rows.get(i);
        sum.fill(HALF);
        for (row, w) in middle[(start - first) * stride..].chunks_exact(stride).zip(weights) {
            for (s, &v) in sum.iter_mut().zip(row) {
                *s += i32::from(v) * w;
            }
        }
        out.extend(sum.iter().map(|&s| round_to_u8(s)));
    }
    RgbImage::from_raw(width as u32, height as u32, out).expect("three bytes a pixel")
}
