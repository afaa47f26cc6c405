//! 2-D rotary positions (LlamaGen `precompute_freqs_cis_2d`).

use tch::{Device, Kind, Tensor};

/// Positions of new inputs in the sequence.
#[derive(Clone, Copy)]
pub(crate) enum Positions<'a> {
    /// Consecutive positions from this one on.
    Range(i64),
    /// One position in a tensor, (1) int64 on the device, below `length`. `length` entries of the
    /// cache are read at every position, so that the operations are the same.
    Dynamic { position: &'a Tensor, length: i64 },
    /// Positions of each input, (B, S) int64 on the device.
    Each(&'a Tensor),
}

impl Positions<'_> {
    /// Rows for `count` inputs of a table whose first row is that of position `first`: (S, …), or
    /// (B, S, …) where each has its own.
    pub fn rows(self, table: &Tensor, first: i64, count: i64) -> Tensor {
        match self {
            Positions::Range(from) => table.narrow(0, from - first, count),
            Positions::Dynamic { position, .. } => table.index_select(0, &(position - first)),
            Positions::Each(positions) => {
                let size: Vec<i64> = positions.size().into_iter().chain(table.size().split_off(1)).collect();
                table.index_select(0, &(positions - first).view(-1)).view(&size[..])
            }
        }
    }

    /// Rows of the rotary table for `count` inputs, which broadcast over heads.
    pub fn angles(self, table: &Tensor, count: i64) -> Tensor {
        let rows = self.rows(table, 0, count);
        match self {
            Positions::Range(_) | Positions::Dynamic { .. } => rows,
            Positions::Each(_) => rows.unsqueeze(1),
        }
    }
}

/// Rotary table (prefix + side², K/2, 2): cosine and sine for each pair of head channels. Half of
/// the pairs encode the row, half the column, with frequencies that are powers of `base`. **Prefix
/// rows are zero, not the identity**: queries and keys of condition tokens vanish, so that every
/// attention logit from or to them is 0. Released weights depend on it.
pub fn rope_2d(prefix: i64, num_tokens: i64, head_width: i64, base: f64) -> Tensor {
    let side = (num_tokens as f64).sqrt().round() as i64;
    let options = (Kind::Float, Device::Cpu);
    let half = head_width / 2;
    let exponents = Tensor::arange_start_step(0, half, 2, options) / half as f64; // (K/4)
    let theta = Tensor::full([1], base, options).pow(&exponents).reciprocal();
    let angles = Tensor::arange(side, options).outer(&theta); // (side, K/4)
    let grid = |t: Tensor| t.expand([side, side, half / 2], false);
    let both = Tensor::cat(&[grid(angles.unsqueeze(1)), grid(angles.unsqueeze(0))], -1); // (side, side, K/2)
    let table = Tensor::stack(&[both.cos(), both.sin()], -1).view([num_tokens, half, 2]);
    Tensor::cat(&[Tensor::zeros([prefix, half, 2], options), table], 0)
}

/// Rotates adjacent channel pairs of (B, H, S, K) by rows of the table, (S, K/2, 2) or
/// (B, 1, S, K/2, 2), in fp32, as products of complex numbers in one pass over memory.
pub(crate) fn rotate(x: &Tensor, rows: &Tensor) -> Tensor {
    let (b, h, s, k) = x.size4().expect("heads are (B, H, S, K)");
    let pairs = x.to_kind(Kind::Float).reshape([b, h, s, k / 2, 2]).view_as_complex();
    (pairs * rows.view_as_complex()).view_as_real().view([b, h, s, k]).to_kind(x.kind())
}
