//! Work in parts.

/// Consecutive spans (start, length) of at most `size`, at least 1, that cover `0..len`.
pub fn spans(len: i64, size: i64) -> impl Iterator<Item = (i64, i64)> {
    let size = size.max(1);
    (0..len)
        .step_by(usize::try_from(size).unwrap_or(usize::MAX))
        .map(move |from| (from, size.min(len - from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_all_and_the_last_is_the_rest() {
        assert_eq!(spans(7, 3).collect::<Vec<_>>(), [(0, 3), (3, 3), (6, 1)]);
        assert_eq!(spans(6, 3).count(), 2);
        assert_eq!((spans(0, 3).count(), spans(2, 0).count()), (0, 2));
    }
}
