//! Report of `gen extract`.

use data::codes::TokenizerId;
use serde::Serialize;

use crate::context;

/// Stored codes.
#[derive(Debug, Serialize)]
pub struct Report {
    pub output: String,
    pub tokenizer: TokenizerId,
    pub views: Vec<String>,
    /// Records in the folder.
    pub records: usize,
    /// Images that could not be decoded.
    pub skipped: usize,
    /// Files beside the images that are none.
    pub left_out: usize,
    /// Images encoded by this run; the others were there already.
    pub encoded: usize,
}

impl context::Report for Report {
    fn text(&self) -> String {
        let Report { output, records, views, tokenizer, encoded, .. } = self;
        let (a, n) = (views.len(), tokenizer.num_tokens);
        let views = if a == 1 { "1 view".to_owned() } else { format!("{a} views") };
        let already = match records.saturating_sub(*encoded) {
            0 => String::new(),
            there => format!("; {there} were there already"),
        };
        format!(
            "{output}: {records} images x {views} x {n} codes, tokenizer {}{already}",
            tokenizer.fingerprint
        )
    }
}
