//! Quantizers: each in a file, chosen by the tagged [`QuantizerConfig`].

mod interface;
mod vector;

use base::Scope;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

pub use interface::{Quantized, Quantizer, QuantizerLosses};
pub use vector::{Gradient, VectorQuantizer, VectorQuantizerConfig, entropy_loss};

/// A quantizer by its key `type`. Without one it is a vector quantizer, as in all files from before there was
/// a choice; and a vector quantizer is written without one, so that older versions read it.
#[derive(Debug, Clone, PartialEq)]
pub enum QuantizerConfig {
    /// `vector`.
    Vector(VectorQuantizerConfig),
}

impl QuantizerConfig {
    /// Number of codes (V).
    pub fn codebook_size(&self) -> i64 {
        match self {
            QuantizerConfig::Vector(c) => c.codebook_size,
        }
    }

    /// Width of a code vector (D).
    pub fn code_dim(&self) -> i64 {
        match self {
            QuantizerConfig::Vector(c) => c.code_dim,
        }
    }

    /// Floating-point operations of choosing the code of one vector.
    pub fn encode_flops(&self) -> f64 {
        match self {
            QuantizerConfig::Vector(c) => 2.0 * c.codebook_size as f64 * c.code_dim as f64,
        }
    }

    /// Bytes that a training pass keeps for the backward pass, for each vector, beside the vectors
    /// themselves.
    pub fn activation_bytes(&self) -> f64 {
        match self {
            QuantizerConfig::Vector(c) if c.entropy != 0.0 => 3.0 * 4.0 * c.codebook_size as f64,
            QuantizerConfig::Vector(_) => 0.0,
        }
    }

    /// Returns an error if it cannot be built.
    pub(crate) fn check(&self) -> Result<()> {
        if self.codebook_size() < 1 || self.code_dim() < 1 {
            return Err(Error::Settings("codebook_size and code_dim must be at least 1".into()));
        }
        let QuantizerConfig::Vector(c) = self;
        let weights = [("commitment", c.commitment), ("entropy", c.entropy)];
        match weights.iter().find(|(_, w)| !(w.is_finite() && *w >= 0.0)) {
            Some((key, found)) => {
                Err(Error::Settings(format!("quantizer.{key} must be 0 or more, found {found}")))
            }
            None => Ok(()),
        }
    }

    /// The quantizer, with its variables under `p`.
    pub(crate) fn build(&self, p: &Scope) -> Box<dyn Quantizer> {
        match self {
            QuantizerConfig::Vector(c) => Box::new(VectorQuantizer::new(p, c)),
        }
    }
}

impl<'de> Deserialize<'de> for QuantizerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let kind = fields.remove("type").unwrap_or("vector".into());
        let fields = Value::Object(fields);
        match kind.as_str() {
            Some("vector") => {
                serde_json::from_value(fields).map(QuantizerConfig::Vector).map_err(D::Error::custom)
            }
            _ => Err(D::Error::custom(format!("unknown quantizer type {kind}, expected `vector`"))),
        }
    }
}

impl Serialize for QuantizerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            QuantizerConfig::Vector(c) => c.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_config_without_a_type_is_a_vector_quantizer_and_is_written_without_one() {
        let old = json!({
            "codebook_size": 64, "code_dim": 8, "l2_normalize": true, "gradient": "rotation", "commitment": 0.25,
            "entropy": 0.0
        });
        let config: QuantizerConfig = serde_json::from_value(old.clone()).unwrap();
        assert_eq!(serde_json::to_value(&config).unwrap(), old);
        let mut tagged = old.clone();
        tagged["type"] = "vector".into();
        assert_eq!(serde_json::from_value::<QuantizerConfig>(tagged.clone()).unwrap(), config);
        tagged["type"] = "lattice".into();
        let error = serde_json::from_value::<QuantizerConfig>(tagged).unwrap_err().to_string();
        assert!(error.contains("lattice") && error.contains("`vector`"), "{error}");
        let mut unknown = old;
        unknown["levels"] = 5.into();
        let error = serde_json::from_value::<QuantizerConfig>(unknown).unwrap_err().to_string();
        assert!(error.contains("unknown field `levels`"), "{error}");
    }
}
