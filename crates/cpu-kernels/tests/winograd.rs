//! Convolutions by minimal filtering, compared with the nine products.

use cpu_kernels::{Format, Isa, Map, ThreadPool, Winograd};

fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Sizes in pixels and channels, and inputs.
struct Case {
    size: [usize; 4], // H, W, C, K
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Case {
    fn new(size: [usize; 4]) -> Self {
        let [h, w, c, k] = size;
        let bound = (9.0 * c as f32).sqrt().recip();
        let weight = numbers(2, k * c * 9).into_iter().map(|v| v * bound).collect();
        let (x, bias, residual) = (numbers(1, h * w * c), numbers(3, k), numbers(4, h * w * k));
        Case { size, x, weight, bias, residual }
    }

    fn naive(&self) -> Vec<f64> {
        let [h, w, c, k] = self.size;
        let at = |y: usize, x: usize, o: usize| {
            let mut sum = f64::from(self.bias[o]) + f64::from(self.residual[(y * w + x) * k + o]);
            for (i, j) in (0..9).map(|n| (n / 3, n % 3)) {
                let (y, x) = ((y + i).wrapping_sub(1), (x + j).wrapping_sub(1));
                if y < h && x < w {
                    let weight = |n: usize| f64::from(self.weight[(o * c + n) * 9 + i * 3 + j]);
                    sum += (0..c).map(|n| f64::from(self.x[(y * w + x) * c + n]) * weight(n)).sum::<f64>();
                }
            }
            sum
        };
        (0..h * w * k).map(|n| at(n / k / w, n / k % w, n % k)).collect()
    }

    fn run(&self, threads: usize, isa: Isa) -> Vec<f32> {
        let packed = Winograd::new(&self.weight, &self.bias, isa);
        let mut out = vec![f32::NAN; self.residual.len()];
        let map = Map { x: &self.x, width: self.size[1], residual: Some(&self.residual) };
        packed.run(&ThreadPool::new(threads), &map, &mut out);
        out
    }
}

/// Sizes that are not whole tiles, more tiles than a batch, outputs in more than one tile.
#[test]
fn it_agrees_with_nine_products_on_every_instruction_set() {
    for size in [[1, 1, 16, 16], [5, 7, 16, 96], [4, 3, 48, 32], [30, 29, 32, 16], [8, 8, 128, 80]] {
        let case = Case::new(size);
        let expected = case.naive();
        for isa in Isa::available(Format::F32) {
            for (y, e) in case.run(2, isa).iter().zip(&expected) {
                assert!((f64::from(*y) - e).abs() < 5e-6, "{isa:?} {size:?}: {y} {e}");
            }
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let case = Case::new([33, 41, 32, 48]);
    let isa = Isa::best(Format::F32);
    let alone = case.run(1, isa);
    assert!((2..5).all(|threads| case.run(threads, isa) == alone));
}

#[test]
fn bf16_maps_are_rounded_once() {
    let mut case = Case::new([9, 10, 32, 32]);
    let bits = |v: &f32| (v.to_bits() >> 16) as u16;
    let wide = |v: u16| f32::from_bits(u32::from(v) << 16);
    let (x, residual): (Vec<u16>, Vec<u16>) =
        (case.x.iter().map(bits).collect(), case.residual.iter().map(bits).collect());
    case.x = x.iter().map(|v| wide(*v)).collect();
    case.residual = residual.iter().map(|v| wide(*v)).collect();
    let expected = case.naive();
    for isa in Isa::available(Format::F32) {
        let mut out = vec![0u16; residual.len()];
        let map = Map { x: &x, width: 10, residual: Some(&residual) };
        Winograd::new(&case.weight, &case.bias, isa).run(&ThreadPool::new(2), &map, &mut out);
        for (y, e) in out.iter().zip(&expected) {
            let off = (f64::from(wide(*y)) - e).abs();
            assert!(off <= e.abs() / 255.0 + 1e-5, "{isa:?}: {off} from {e}");
        }
    }
}
