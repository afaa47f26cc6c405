//! The released configurations, for advice about a file that does not fit one of them.

use weights::Signature;

use crate::any::Model;
use crate::config::TokenizerConfig;

/// Name and text of each configuration in `configs/tokenizer/`.
pub const RELEASED: &[(&str, &str)] = weights::released![
    "../../configs/tokenizer/":
    "gigatok-ss256",
    "gigatok-sb256",
    "gigatok-bl256",
    "gigatok-bl256-dino-disc",
    "gigatok-xlxxl256",
    "gigatok-ss256-2d",
    "gigatok-sb256-2d",
    "gigatok-bl256-2d",
    "llamagen-vq16",
    "llamagen-vq8",
];

/// Names and shapes of every released tokenizer, without allocating it.
pub fn signatures() -> Vec<Signature> {
    weights::signatures(RELEASED, "--tokenizer configs/tokenizer", |document, scope| {
        let config = TokenizerConfig::from_document(document).ok()?;
        Model::new(scope, &config).ok().map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_released_configuration_has_a_signature() {
        assert_eq!(signatures().len(), RELEASED.len());
    }
}
