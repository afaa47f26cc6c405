//! Multi-level query initialisation (paper, supplement A): the first queries are averages of the
//! whole grid, later ones of ever smaller blocks.

use tch::Tensor;

use crate::error::{Error, Result};

/// Pooling kernels (height, width) of the groups of queries, whose sizes are 1, 1, 2, 4, … and
/// add up to `num_tokens`. Group i has level l = max(i − 1, 0), 2^⌈l/2⌉ columns and
/// 2^⌊l/2⌋ rows of blocks.
///
/// # Errors
/// Returns an error if `num_tokens` is not a power of two, or the blocks do not divide the grid.
pub fn kernels(grid: i64, num_tokens: i64) -> Result<Vec<(i64, i64)>> {
    if num_tokens < 1 || num_tokens & (num_tokens - 1) != 0 {
        return Err(Error::Settings(format!(
            "multi_level queries need a power of two for num_tokens, found {num_tokens}"
        )));
    }
    let groups = num_tokens.ilog2() + 1;
    (0..groups)
        .map(|i| {
            let level = i.saturating_sub(1);
            let (rows, columns) = (1i64 << (level / 2), 1i64 << level.div_ceil(2));
            if grid % rows != 0 || grid % columns != 0 {
                return Err(Error::Settings(format!(
                    "multi_level queries: {rows}×{columns} blocks do not divide the {grid}×{grid} grid; lower num_tokens (now {num_tokens})"
                )));
            }
            Ok((grid / rows, grid / columns))
        })
        .collect()
}

/// (B, P, W) on a square grid → (B, num_tokens, W).
pub fn pool(x: &Tensor, grid: i64, kernels: &[(i64, i64)]) -> Tensor {
    let (b, _, w) = x.size3().expect("grid tokens are (B, P, W)");
    let map = x.transpose(1, 2).reshape([b, w, grid, grid]);
    let groups: Vec<Tensor> = kernels
        .iter()
        .map(|&(kh, kw)| map.avg_pool2d([kh, kw], [kh, kw], [0, 0], false, true, None).flatten(2, 3))
        .collect();
    Tensor::cat(&groups, 2).transpose(1, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_the_released_models_are_those_of_the_paper() {
        let expected = [(16, 16), (16, 16), (16, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1)];
        assert_eq!(kernels(16, 256).unwrap(), expected);
    }

    #[test]
    fn impossible_token_counts_are_refused() {
        assert!(kernels(16, 100).is_err());
        assert!(kernels(6, 64).is_err());
    }
}
