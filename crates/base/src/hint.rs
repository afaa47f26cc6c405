//! Errors that suggest a next step.

/// Hints for the user, printed as `hint:` lines under the error.
pub trait Hint {
    /// Zero or more suggestions, most useful first.
    fn hints(&self) -> Vec<String>;
}

/// The candidates nearest to `word`, best first, for "did you mean": at most `most`, none too far
/// off.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let lower = word.to_lowercase();
    let mut scored: Vec<(f64, &str)> = candidates
        .into_iter()
        .map(|c| {
            let lc = c.to_lowercase();
            let inside = if !lower.is_empty() && lc.contains(&lower) { 0.3 } else { 0.0 };
            (strsim::jaro_winkler(&lower, &lc) + inside, c)
        })
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(most).map(|(_, c)| c).collect()
}
