//! Fused layers, forward and backward, for training on a CPU: one pass over memory where libtorch
//! makes five to ten, which cost as much as an eighth of the products of a step. Also libtorch's
//! fused AdamW, which tch does not bind.
//!
//! Every layer can be differentiated any number of times: a gradient that needs a graph itself
//! (`create_graph`, as for gradient penalties) is computed by libtorch's operations.

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::error::check_message;

unsafe extern "C" {
    fn ext_rms_norm(
        out: *mut *mut C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        eps: f64,
    ) -> *mut c_char;
    fn ext_swiglu(out: *mut *mut C_tensor, gate: *const C_tensor, up: *const C_tensor) -> *mut c_char;
    fn ext_add_dropped(
        out: *mut *mut C_tensor,
        x: *const C_tensor,
        a: *const C_tensor,
        p: f64,
        seed: i64,
    ) -> *mut c_char;
    fn ext_once(out: *mut *mut C_tensor, x: *const C_tensor) -> *mut c_char;
    fn ext_cross_entropies(
        out: *mut *mut C_tensor,
        logits: *const C_tensor,
        codes: *const C_tensor,
        weights: *const C_tensor,
    ) -> *mut c_char;
    fn ext_adamw(
        lists: *const *const C_tensor,
        n: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
    fn ext_has_linear() -> bool;
    fn ext_linear(
        out: *mut *mut C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
    ) -> *mut c_char;
    fn ext_linear_of_input(
        out: *mut *mut C_tensor,
        g: *const C_tensor,
        weight: *const C_tensor,
    ) -> *mut c_char;
    fn ext_linear_of_weight(out: *mut *mut C_tensor, g: *const C_tensor, x: *const C_tensor) -> *mut c_char;
    fn ext_attention(
        out: *mut *mut C_tensor,
        qkv: *const C_tensor,
        rotary: *const C_tensor,
        heads: i64,
        causal: bool,
    ) -> *mut c_char;
    fn ext_attention_of(
        out: *mut *mut C_tensor,
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        heads: i64,
    ) -> *mut c_char;
    fn ext_choice(
        chosen: *mut *mut C_tensor,
        loss: *mut *mut C_tensor,
        z: *const C_tensor,
        codes: *const C_tensor,
        temperature: f64,
    ) -> *mut c_char;
}

/// Whether these functions support a tensor: fp32 or bf16 on a CPU.
pub fn takes(x: &Tensor) -> bool {
    x.device() == Device::Cpu && matches!(x.kind(), Kind::Float | Kind::BFloat16)
}

/// `x · rsqrt(mean(x²) + eps) · weight` over the last axis: (…, D), (D) → (…, D).
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    check(&[x], weight.size() == x.size()[x.dim() - 1..]);
    // SAFETY: live tensors, on a CPU and of the expected dtypes and shapes.
    made(|out| unsafe { ext_rms_norm(out, x.as_ptr(), weight.as_ptr(), eps) })
}

/// `silu(gate) · up`, of equal shapes.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Tensor {
    check(&[gate, up], gate.size() == up.size());
    // SAFETY: live tensors, on a CPU and of the expected dtypes and shapes.
    made(|out| unsafe { ext_swiglu(out, gate.as_ptr(), up.as_ptr()) })
}

/// `x + dropout(a)` with probability `p` < 1, of equal shapes. The mask is a function of `seed`, so
/// that it need not be stored.
pub fn add_dropped(x: &Tensor, a: &Tensor, p: f64, seed: i64) -> Tensor {
    check(&[x, a], x.size() == a.size() && (0.0..1.0).contains(&p));
    // SAFETY: live tensors, on a CPU and of the expected dtypes and shapes.
    made(|out| unsafe { ext_add_dropped(out, x.as_ptr(), a.as_ptr(), p, seed) })
}

/// Whether [`linear`] supports a tensor: fp32 on a CPU, if libtorch has oneDNN. (In bf16 libtorch
/// itself uses oneDNN.)
pub fn takes_linear(x: &Tensor) -> bool {
    // SAFETY: looks up an operation by name.
    takes(x) && x.kind() == Kind::Float && unsafe { ext_has_linear() }
}

/// `x · weightᵀ + bias`, (…, I), (O, I), (O) → (…, O), forward and backward by oneDNN,
/// where libtorch uses MKL.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let inputs = x.size().last().copied();
    let fits = weight.dim() == 2 && weight.size().get(1).copied() == inputs;
    let bias_fits = bias.is_none_or(|b| b.size() == weight.size()[..1]);
    assert!(fits && bias_fits && [x, weight].into_iter().all(takes_linear), "tensors of a linear layer");
    let bias = bias.map_or(std::ptr::null(), Tensor::as_ptr);
    // SAFETY: live tensors, on a CPU and of the expected dtypes and shapes; the bias may be
    // missing.
    made(|out| unsafe { ext_linear(out, x.as_ptr(), weight.as_ptr(), bias) })
}

/// Backward pass of [`linear`] without autograd: the gradient by the result of `x · weightᵀ`,
/// (M, O), → the gradients by `x` (M, I) and by `weight` (O, I).
pub fn linear_gradients(g: &Tensor, x: &Tensor, weight: &Tensor) -> (Tensor, Tensor) {
    let (rows, outputs) = g.size2().expect("gradients are (M, O)");
    let inputs = x.size().last().copied().unwrap_or(0);
    let fits = x.size() == [rows, inputs] && weight.size() == [outputs, inputs];
    assert!(fits && [g, x, weight].into_iter().all(takes_linear), "tensors of a linear layer");
    let (g, x, weight) = (g.contiguous(), x.contiguous(), weight.contiguous());
    // SAFETY: live tensors, contiguous, on a CPU and of the expected dtypes and shapes.
    let of_input = made(|out| unsafe { ext_linear_of_input(out, g.as_ptr(), weight.as_ptr()) });
    // SAFETY: likewise.
    let of_weight = made(|out| unsafe { ext_linear_of_weight(out, g.as_ptr(), x.as_ptr()) });
    (of_input, of_weight)
}

/// Self-attention: concatenated queries, keys and values (B, S, 3·H·K) → concatenated heads
/// (B, S, H·K); causal or bidirectional. `rotary`, (S, K/2, 2), is the cosine and sine that rotate
/// each pair of channels of queries and keys.
pub fn attention(qkv: &Tensor, heads: i64, rotary: Option<&Tensor>, causal: bool) -> Tensor {
    let (_, s, width) = qkv.size3().expect("queries, keys and values are (B, S, 3·H·K)");
    let rotary = rotary.map(|r| r.to_kind(Kind::Float).contiguous());
    let table_fits = rotary.as_ref().is_none_or(|r| r.size() == [s, width / 3 / heads / 2, 2]);
    check(&[qkv], s > 0 && width % (3 * heads) == 0 && table_fits);
    let rotary = rotary.as_ref().map_or(std::ptr::null(), Tensor::as_ptr);
    // SAFETY: live tensors, on a CPU and of the expected dtypes and shapes; the table may be
    // missing.
    made(|out| unsafe { ext_attention(out, qkv.as_ptr(), rotary, heads, causal) })
}

/// Cross-attention of queries (B, L, H·K) over keys and values (B, S, H·K) each, heads
/// concatenated → (B, L, H·K), without a mask.
pub fn attention_of(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64) -> Tensor {
    let (b, _, width) = q.size3().expect("queries are (B, L, H·K)");
    let seen = k.size();
    let fits = seen.len() == 3 && seen[0] == b && seen[1] > 0 && seen[2] == width && v.size() == seen;
    check(&[q, k, v], fits && width % heads == 0);
    // SAFETY: live tensors, on a CPU and of the expected dtypes and shapes.
    made(|out| unsafe { ext_attention_of(out, q.as_ptr(), k.as_ptr(), v.as_ptr(), heads) })
}

/// Whether [`choice`] supports vectors (M, D): fp32 on a CPU, and narrow enough for it to be
/// faster.
pub fn takes_choice(vectors: &Tensor) -> bool {
    const WIDEST: i64 = 63;
    let fits = vectors.dim() == 2 && vectors.size()[0] > 0 && vectors.size()[1] <= WIDEST;
    fits && takes(vectors) && vectors.kind() == Kind::Float
}

/// Nearest of `codes` (V, D) to each of `vectors` (M, D): indices (M) int64, the lowest of equal
/// ones; and the entropy loss of soft assignments `p = softmax(-|z - e|² / temperature)`: the mean
/// entropy of p minus the entropy `-Σ q log(q + 1e-5)` of their mean q.
pub fn choice(vectors: &Tensor, codes: &Tensor, temperature: f64) -> (Tensor, Tensor) {
    let fits = codes.dim() == 2 && codes.size()[0] > 0 && codes.size().last() == vectors.size().last();
    assert!(fits && takes_choice(vectors) && takes_choice(codes), "vectors and codes of one width");
    let mut loss = std::ptr::null_mut();
    // SAFETY: live tensors, on a CPU and of the expected dtypes and shapes.
    let chosen =
        made(|out| unsafe { ext_choice(out, &mut loss, vectors.as_ptr(), codes.as_ptr(), temperature) });
    // SAFETY: without an error it is a new tensor, which becomes ours.
    (chosen, unsafe { Tensor::from_ptr(loss) })
}

/// `x`, with a gradient that cannot be differentiated again (libtorch's error names it): for a
/// value with a precomputed gradient, which libtorch would otherwise treat as constant.
pub fn once(x: &Tensor) -> Tensor {
    // SAFETY: a live tensor.
    made(|out| unsafe { ext_once(out, x.as_ptr()) })
}

/// Weighted cross-entropy of each row of logits (M, V) with its code (M) and weight (M, fp32), and
/// its gradient by the logits, which replaces them in memory.
pub fn cross_entropies(logits: Tensor, codes: &Tensor, weights: &Tensor) -> (Tensor, Tensor) {
    let rows = logits.size()[0];
    let fits = logits.dim() == 2 && codes.size() == [rows] && weights.size() == [rows];
    check(&[&logits], fits && codes.kind() == Kind::Int64 && weights.kind() == Kind::Float);
    let (logits, codes, weights) = (logits.contiguous(), codes.contiguous(), weights.contiguous());
    // SAFETY: live tensors, on a CPU, contiguous and of the expected dtypes and shapes.
    let losses =
        made(|out| unsafe { ext_cross_entropies(out, logits.as_ptr(), codes.as_ptr(), weights.as_ptr()) });
    (losses, logits)
}

/// Tensors of an AdamW step, item by item: parameters, gradients, both moments, and the step number
/// (fp32).
#[derive(Debug, Default)]
pub struct AdamWLists {
    /// Parameters.
    pub params: Vec<Tensor>,
    /// Their gradients.
    pub grads: Vec<Tensor>,
    /// First moments.
    pub exp_avg: Vec<Tensor>,
    /// Second moments.
    pub exp_avg_sq: Vec<Tensor>,
    /// Number of this step for each parameter, from 1; scalars on the parameter's device.
    pub steps: Vec<Tensor>,
}

impl AdamWLists {
    /// One step of `torch.optim.AdamW(fused=True)`.
    pub fn update(&self, lr: f64, [beta1, beta2]: [f64; 2], weight_decay: f64, eps: f64) {
        let lists = [&self.params, &self.grads, &self.exp_avg, &self.exp_avg_sq, &self.steps];
        let n = self.params.len();
        assert!(lists.iter().all(|l| l.len() == n), "lists of one length");
        // The CPU's kernel does not check.
        let alike =
            |p: &Tensor, t: &Tensor| t.size() == p.size() && t.kind() == p.kind() && t.is_contiguous();
        for list in &lists[..4] {
            assert!(self.params.iter().zip(*list).all(|(p, t)| alike(p, t)), "tensors like their parameters");
        }
        let flat: Vec<*const C_tensor> = lists.into_iter().flatten().map(Tensor::as_ptr).collect();
        // SAFETY: five lists of `n` live tensors, contiguous and alike.
        checked(unsafe { ext_adamw(flat.as_ptr(), n, lr, beta1, beta2, weight_decay, eps) });
    }
}

fn check(tensors: &[&Tensor], fits: bool) {
    assert!(fits, "shapes of a fused layer");
    let same = tensors.iter().all(|t| takes(t) && t.kind() == tensors[0].kind());
    assert!(same, "a fused layer takes fp32 or bf16 on a CPU");
}

pub(crate) fn made(f: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Tensor {
    let mut out = std::ptr::null_mut();
    checked(f(&mut out));
    // SAFETY: without an error it is a new tensor, which becomes ours.
    unsafe { Tensor::from_ptr(out) }
}

/// Panics with libtorch's message, like tch's own operators.
pub(crate) fn checked(error: *mut c_char) {
    check_message(error).unwrap_or_else(|text| panic!("{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Value and gradients of a function, by an unevenly weighted sum of its result.
    fn with_gradients(f: impl Fn(&[Tensor]) -> Tensor, inputs: &[Tensor]) -> Vec<Tensor> {
        let leaves: Vec<Tensor> = inputs.iter().map(|t| t.copy().set_requires_grad(true)).collect();
        let y = f(&leaves);
        let weights = (Tensor::arange(y.numel() as i64, WIDE).sin() + 0.5).view_(y.size()).to_kind(y.kind());
        let mut all = Tensor::run_backward(&[(&y * weights).sum(Kind::Float)], &leaves, false, false);
        all.insert(0, y.detach());
        all
    }

    /// Gradients of a sum over the gradients of a function, neither of them constant.
    fn second_gradients(f: impl Fn(&[Tensor]) -> Tensor, inputs: &[Tensor]) -> Vec<Tensor> {
        let leaves: Vec<Tensor> = inputs.iter().map(|t| t.copy().set_requires_grad(true)).collect();
        let uneven = |t: &Tensor| (Tensor::arange(t.numel() as i64, WIDE).sin() + 0.5).view_(t.size());
        let weighed = |t: &Tensor| (t * uneven(t)).sum(Kind::Float);
        let first = Tensor::run_backward(&[weighed(&f(&leaves).square())], &leaves, true, true);
        let sum = first.iter().map(weighed).reduce(|a, b| a + b).unwrap();
        Tensor::run_backward(&[sum], &leaves, false, false)
    }

    fn agree_twice(
        fused: impl Fn(&[Tensor]) -> Tensor,
        plain: impl Fn(&[Tensor]) -> Tensor,
        inputs: &[Tensor],
    ) {
        let expected = second_gradients(plain, inputs);
        let size = |t: &Tensor| t.abs().max().double_value(&[]);
        let scale = expected.iter().map(size).fold(0.0, f64::max);
        for (i, (got, expected)) in second_gradients(fused, inputs).iter().zip(&expected).enumerate() {
            let error = size(&(got - expected));
            assert!(scale > 0.0 && error < 3e-5 * scale, "second gradient {i}: {error} of {scale}");
        }
    }

    /// Equal to the plain operators in fp32, up to rounding, and in bf16 up to bf16's. Second
    /// gradients in fp32.
    fn agree(fused: impl Fn(&[Tensor]) -> Tensor, plain: impl Fn(&[Tensor]) -> Tensor, inputs: &[Tensor]) {
        agree_twice(&fused, &plain, inputs);
        let expected = with_gradients(plain, inputs);
        for (kind, tolerance) in [(Kind::Float, 2e-6), (Kind::BFloat16, 2e-2)] {
            let inputs: Vec<Tensor> = inputs.iter().map(|t| t.to_kind(kind)).collect();
            for (i, (got, expected)) in with_gradients(&fused, &inputs).iter().zip(&expected).enumerate() {
                let largest = expected.abs().max().double_value(&[]);
                let scale = if largest == 0.0 { 1.0 } else { largest }; // 0: by queries and keys of a single key
                let error = (got.to_kind(Kind::Float) - expected).abs().max().double_value(&[]) / scale;
                assert!(error < tolerance && got.kind() == kind, "{kind:?}, tensor {i}: {error}");
            }
        }
    }

    #[test]
    fn an_rms_norm_equals_its_formula_and_so_do_its_gradients() {
        tch::manual_seed(1);
        let plain = |t: &[Tensor]| {
            let scale = (t[0].square().mean_dim([-1i64].as_slice(), true, Kind::Float) + 1e-5).rsqrt();
            &t[0] * scale * &t[1]
        };
        // More rows than go through at a time, not a multiple of them, and a width that no vector
        // divides.
        let inputs = [Tensor::randn([3, 67, 37], WIDE) * 0.1, Tensor::randn([37], WIDE)];
        agree(|t| rms_norm(&t[0], &t[1], 1e-5), plain, &inputs);
        let every_other = inputs[0].transpose(0, 1);
        assert!(
            rms_norm(&every_other, &inputs[1], 1e-5) == rms_norm(&every_other.contiguous(), &inputs[1], 1e-5)
        );
    }

    #[test]
    fn a_linear_layer_equals_libtorchs_and_so_do_its_gradients() {
        tch::manual_seed(1);
        let inputs =
            [Tensor::randn([3, 67, 145], WIDE), Tensor::randn([137, 145], WIDE), Tensor::randn([137], WIDE)];
        let compare = |inputs: &[Tensor]| {
            let got = with_gradients(|t| linear(&t[0], &t[1], t.get(2)), inputs);
            let expected = with_gradients(|t| t[0].linear(&t[1], t.get(2)), inputs);
            for (got, expected) in got.iter().zip(&expected) {
                let scale = expected.abs().max().double_value(&[]);
                assert!((got - expected).abs().max().double_value(&[]) < 2e-6 * scale);
            }
            agree_twice(|t| linear(&t[0], &t[1], t.get(2)), |t| t[0].linear(&t[1], t.get(2)), inputs);
        };
        compare(&inputs);
        compare(&inputs[..2]);
        compare(&[inputs[0].transpose(0, 1), inputs[1].shallow_clone()]);
        let (g, x) = (Tensor::randn([201, 137], WIDE), inputs[0].view([201, 145]));
        let (of_input, of_weight) = linear_gradients(&g, &x, &inputs[1]);
        for (got, expected) in [(of_input, g.matmul(&inputs[1])), (of_weight, g.tr().matmul(&x))] {
            assert!((got - expected).abs().max().double_value(&[]) < 1e-4);
        }
    }

    /// Channels that no vector divides, more queries than go at a time, and a table whose first row
    /// is zero.
    #[test]
    fn attention_equals_its_formula_and_so_do_its_gradients() {
        tch::manual_seed(1);
        for (heads, width, length) in [(3, 20, 101), (2, 64, 48), (1, 4, 1)] {
            let angles = Tensor::randn([length, width / 2], WIDE);
            let table = Tensor::stack(&[angles.cos(), angles.sin()], -1);
            let _ = table.get(0).zero_();
            let turn = |x: Tensor| {
                let pairs = x.reshape([2, heads, length, width / 2, 2]).view_as_complex();
                (pairs * table.view_as_complex()).view_as_real().flatten(-2, -1)
            };
            let plain = |t: &[Tensor], rotary: bool, causal: bool| {
                let parts = t[0].view([2, length, 3, heads, width]).permute([2, 0, 3, 1, 4]);
                let [q, k, v] = [0, 1, 2].map(|i| parts.get(i));
                let (q, k) = if rotary { (turn(q), turn(k)) } else { (q, k) };
                let mut scores = q.matmul(&k.transpose(-2, -1)) / (width as f64).sqrt();
                if causal {
                    let future = Tensor::ones([length, length], (Kind::Bool, Device::Cpu)).triu(1);
                    scores = scores.masked_fill(&future, f64::NEG_INFINITY);
                }
                let y = scores.softmax(-1, Kind::Float).matmul(&v);
                y.transpose(1, 2).reshape([2, length, heads * width])
            };
            let inputs = [Tensor::randn([2, length, 3 * heads * width], WIDE)];
            for (rotary, causal) in [(false, false), (true, true), (true, false), (false, true)] {
                let fused = |t: &[Tensor]| attention(&t[0], heads, rotary.then_some(&table), causal);
                agree(fused, |t| plain(t, rotary, causal), &inputs);
            }
        }
    }

    /// Fewer queries than positions, and more queries than positions.
    #[test]
    fn attention_over_another_sequence_equals_its_formula_and_so_do_its_gradients() {
        tch::manual_seed(1);
        for (heads, width, queries, length) in [(3, 20, 101, 16), (2, 32, 7, 64), (1, 64, 64, 1)] {
            let plain = |t: &[Tensor]| {
                let split = |t: &Tensor| t.view([2, -1, heads, width]).transpose(1, 2);
                let [q, k, v] = [0, 1, 2].map(|i| split(&t[i]));
                let scores = q.matmul(&k.transpose(-2, -1)) / (width as f64).sqrt();
                let y = scores.softmax(-1, Kind::Float).matmul(&v);
                y.transpose(1, 2).reshape([2, queries, heads * width])
            };
            let random = |n: i64| Tensor::randn([2, n, heads * width], WIDE);
            let inputs = [random(queries), random(length), random(length)];
            agree(|t| attention_of(&t[0], &t[1], &t[2], heads), plain, &inputs);
        }
    }

    /// More vectors than go at a time, in several parts, and codes that no vector divides.
    #[test]
    fn a_choice_equals_its_formula_and_so_do_its_gradients() {
        tch::manual_seed(1);
        for (m, v, d) in [(453, 77, 8), (5, 1, 3), (30, 64, 40)] {
            let inputs = [Tensor::randn([m, d], WIDE) * 0.3, Tensor::randn([v, d], WIDE) * 0.3];
            let distances = |t: &[Tensor]| (t[0].unsqueeze(1) - t[1].unsqueeze(0)).square();
            let plain = |t: &[Tensor]| {
                let distances = distances(t).sum_dim_intlist([2i64].as_slice(), false, Kind::Float);
                let p = (&distances / -0.1).softmax(-1, Kind::Float);
                let log_p = (distances / -0.1).log_softmax(-1, Kind::Float);
                let mean = p.mean_dim([0i64].as_slice(), false, Kind::Float);
                let spread = (&mean * (&mean + 1e-5).log()).sum(Kind::Float);
                spread - (p * log_p).sum(Kind::Float) / m as f64
            };
            let got = with_gradients(|t| choice(&t[0], &t[1], 0.1).1, &inputs);
            for (got, expected) in got.iter().zip(with_gradients(plain, &inputs)) {
                let error = (got - &expected).abs().max().double_value(&[]);
                assert!(error < 1e-5 * expected.abs().max().double_value(&[]).max(0.1), "{m}, {v}: {error}");
            }
            if v > 1 {
                agree_twice(|t| choice(&t[0], &t[1], 0.1).1, plain, &inputs);
            }
            let all = distances(&inputs).sum_dim_intlist([2i64].as_slice(), false, Kind::Float);
            assert!(choice(&inputs[0], &inputs[1], 0.1).0 == all.argmin(1, false));
        }
        let alike = Tensor::ones([3, 4], WIDE);
        assert!(choice(&alike, &alike, 0.01).0 == Tensor::zeros([3], (Kind::Int64, Device::Cpu)));
    }

    #[test]
    fn swiglu_equals_its_formula_and_so_do_its_gradients() {
        tch::manual_seed(1);
        let inputs = [Tensor::randn([131, 45], WIDE) * 6.0, Tensor::randn([131, 45], WIDE)];
        agree(|t| swiglu(&t[0], &t[1]), |t| t[0].silu() * &t[1], &inputs);
        let far = Tensor::from_slice(&[-1e30f32, -200.0, 200.0, 1e30]);
        let y = swiglu(&far, &Tensor::ones([4], WIDE));
        assert!((y - far.relu()).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn what_is_dropped_follows_from_the_seed_and_has_the_asked_for_share() {
        let (x, a) = (Tensor::randn([300, 257], WIDE), Tensor::ones([300, 257], WIDE));
        let kept = |seed: i64| (add_dropped(&x, &a, 0.1, seed) - &x).gt(0.5).to_kind(Kind::Float);
        assert!(kept(7) == kept(7));
        for (one, other) in [(kept(7), kept(8)), (kept(7), kept(7 + (1 << 40)))] {
            // Independent masks agree where both keep or both drop.
            let agree = one.eq_tensor(&other).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
            assert!((agree - 0.82).abs() < 0.01, "{agree}");
        }
        let mask = kept(7);
        for dim in [0i64, 1] {
            let share = mask.mean_dim([dim].as_slice(), false, Kind::Float);
            let (mean, worst) = (share.mean(Kind::Float), (&share - 0.9).abs().max());
            assert!((mean.double_value(&[]) - 0.9).abs() < 0.005 && worst.double_value(&[]) < 0.1);
        }
        let masked = |t: &[Tensor]| &t[0] + &t[1] * &mask / 0.9;
        agree(|t| add_dropped(&t[0], &t[1], 0.1, 7), masked, &[x.shallow_clone(), a.randn_like()]);
    }

    /// The tests above call [`agree_twice`] for all of these but `Once`, which refuses.
    #[test]
    fn no_node_takes_gradients_for_constant() {
        let tested = ["AddDropped", "Attention", "Choice", "Dropped", "Linear", "Once", "RmsNorm", "SwiGlu"];
        let mut found = vec![];
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/csrc")).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let nodes = text.split("autograd::Function<").skip(1);
            found.extend(nodes.map(|rest| rest.split('>').next().unwrap().to_owned()));
        }
        for node in &found {
            assert!(tested.contains(&node.as_str()), "{node} has no test of its second gradients");
        }
        assert_eq!(found.len(), tested.len());
        let x = Tensor::ones([2], WIDE).set_requires_grad(true);
        let gradient = |create_graph| {
            let y = once(&x.square()).sum(Kind::Float);
            Tensor::f_run_backward(&[y], &[&x], create_graph, create_graph)
        };
        assert_eq!(gradient(false).unwrap()[0], &x * 2.0);
        let error = gradient(true).unwrap_err().to_string();
        assert!(error.contains("differentiated once only"), "{error}");
    }

    #[test]
    fn cross_entropies_come_with_their_gradient() {
        tch::manual_seed(1);
        let codes = Tensor::randint(50, [70], (Kind::Int64, Device::Cpu));
        let weights = Tensor::rand([70], WIDE);
        for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 2e-2)] {
            let leaf = (Tensor::randn([70, 50], WIDE) * 20.0).to_kind(kind).set_requires_grad(true);
            let none = tch::Reduction::None;
            let wide = leaf.to_kind(Kind::Float);
            let expected = wide.cross_entropy_loss::<Tensor>(&codes, None, none, -100, 0.0) * &weights;
            let gradient = Tensor::run_backward(&[expected.sum(Kind::Float)], &[&leaf], false, false);
            let (losses, got) = cross_entropies(leaf.detach().copy(), &codes, &weights);
            let off = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            assert!(off(&losses, &expected) < 1e-4 && off(&got, &gradient[0]) < tolerance, "{kind:?}");
        }
        let outside = || cross_entropies(Tensor::zeros([70, 50], WIDE), &(codes.copy() + 50), &weights);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(outside)).is_err());
    }

    #[test]
    fn adamw_refuses_a_gradient_of_another_shape() {
        let scalar = |v: f32| Tensor::from_slice(&[v]);
        let lists = |grad: Tensor| AdamWLists {
            params: vec![scalar(1.0)],
            grads: vec![grad],
            exp_avg: vec![scalar(0.0)],
            exp_avg_sq: vec![scalar(0.0)],
            steps: vec![Tensor::from(1f32)],
        };
        let update = |grad: Tensor| {
            let lists = lists(grad);
            std::panic::catch_unwind(|| lists.update(0.1, [0.9, 0.95], 0.5, 1e-8)).map(|()| lists)
        };
        let moved = update(scalar(3.0)).unwrap().params[0].double_value(&[0]);
        assert!((moved - (0.95 - 0.1)).abs() < 1e-6, "{moved}");
        assert!(update(Tensor::from_slice(&[1f32, 2.0])).is_err());
    }
}
