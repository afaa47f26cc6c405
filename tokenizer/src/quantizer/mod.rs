//! Quantizers: each in a file, chosen by the tagged [`QuantizerConfig`].

mod fsq;
mod interface;
mod vector;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

pub use fsq::{Fsq, FsqConfig};
pub use interface::{Quantized, Quantizer, QuantizerLosses, QuantizerSettings};
pub use vector::{Gradient, VectorQuantizer, VectorQuantizerConfig, entropy_loss};

/// Settings of a quantizer, tagged by the key `type`. Without it they are a vector quantizer's, as
/// in files from before there was a choice; a vector quantizer is written without it, so that older
/// versions read it.
#[derive(Debug, Clone, PartialEq)]
pub enum QuantizerConfig {
    /// `vector`.
    Vector(VectorQuantizerConfig),
    /// `fsq`.
    Fsq(FsqConfig),
}

impl QuantizerConfig {
    /// Sizes, costs and the quantizer itself.
    pub fn settings(&self) -> &dyn QuantizerSettings {
        match self {
            QuantizerConfig::Vector(c) => c,
            QuantizerConfig::Fsq(c) => c,
        }
    }
}

impl<'de> Deserialize<'de> for QuantizerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let kind = fields.remove("type").unwrap_or("vector".into());
        let fields = Value::Object(fields);
        let config = match kind.as_str() {
            Some("vector") => serde_json::from_value(fields).map(QuantizerConfig::Vector),
            Some("fsq") => serde_json::from_value(fields).map(QuantizerConfig::Fsq),
            _ => {
                let message = format!("unknown quantizer type {kind}, expected `vector` or `fsq`");
                return Err(D::Error::custom(message));
            }
        };
        config.map_err(D::Error::custom)
    }
}

impl Serialize for QuantizerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            QuantizerConfig::Vector(c) => c.serialize(serializer),
            QuantizerConfig::Fsq(c) => Tagged { kind: "fsq", fields: c }.serialize(serializer),
        }
    }
}

/// Settings with their key `type`.
#[derive(Serialize)]
struct Tagged<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    fields: &'a T,
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

    #[test]
    fn other_quantizers_are_written_with_their_type() {
        let fsq = json!({"type": "fsq", "levels": [8, 5, 5, 5]});
        let config: QuantizerConfig = serde_json::from_value(fsq.clone()).unwrap();
        assert_eq!((config.settings().codebook_size(), config.settings().code_dim()), (1000, 4));
        assert_eq!(serde_json::to_value(&config).unwrap(), fsq);
        let other = json!({"type": "fsq", "levels": [8, 5], "code_dim": 2});
        let error = serde_json::from_value::<QuantizerConfig>(other).unwrap_err().to_string();
        assert!(error.contains("unknown field `code_dim`"), "{error}");
    }
}
