//! The released configurations, by which the error for a checkpoint that does not match a
//! configuration names the one that it matches.

use weights::Signature;

use crate::config::ArConfig;
use crate::model::Gpt;

/// Name and text of each configuration in `configs/ar/`.
pub const RELEASED: &[(&str, &str)] = weights::released![
    "../../configs/ar/":
    "gigatok-gpt-1b",
    "gigatok-gpt-3b",
    "gigatok-gpt-7b",
    "gigatok-gpt-b",
    "gigatok-gpt-l",
    "gigatok-gpt-xl",
    "gigatok-gpt-xxl",
    "gigatok-gpt-xxxl",
    "llamagen-1b-256",
    "llamagen-1b-384",
    "llamagen-3b-256",
    "llamagen-3b-384",
    "llamagen-7b-256",
    "llamagen-7b-384",
    "llamagen-b-256",
    "llamagen-b-384",
    "llamagen-l-256",
    "llamagen-l-384",
    "llamagen-xl-256",
    "llamagen-xl-384",
    "llamagen-xl-t2i-256",
    "llamagen-xl-t2i-512",
    "llamagen-xxl-256",
    "llamagen-xxl-384",
    "llamagen-xxxl-256",
    "llamagen-xxxl-384",
];

/// Tensor names and shapes of every released transformer, built without memory.
pub fn signatures() -> Vec<Signature> {
    weights::signatures(RELEASED, "--model configs/ar", |document, scope| {
        let config = ArConfig::from_document(document).ok()?;
        Gpt::new(scope, &config).ok().map(drop)
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
