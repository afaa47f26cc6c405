//! The named transformer sizes of the paper (table 2; official `blocks.py`).

use serde::de::value::MapAccessDeserializer;
use serde::de::{IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Width, depth and heads of one transformer. The MLP is four times as wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerSize {
    /// Channels of a token.
    pub width: i64,
    /// Number of layers.
    pub layers: i64,
    /// Attention heads; the width is a multiple of it.
    pub heads: i64,
}

/// A size by name or in full: `base`, or `{ width: 192, layers: 4, heads: 3 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Size {
    /// One of the paper's.
    Named(Named),
    /// Any other.
    Custom(TransformerSize),
}

/// Written by hand for errors that name the key or list the names.
impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("the name of a size, or { width, layers, heads }")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Size, E> {
                Named::deserialize(name.into_deserializer()).map(Size::Named)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Size, A::Error> {
                TransformerSize::deserialize(MapAccessDeserializer::new(map)).map(Size::Custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// The paper's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Named {
    Tiny,
    Small,
    Base,
    Large,
    Xl,
    Xxl,
    Xxxl,
}

impl Size {
    /// The numbers behind the name.
    pub fn resolve(self) -> TransformerSize {
        let (width, layers, heads) = match self {
            Size::Custom(size) => return size,
            Size::Named(Named::Tiny) => (256, 4, 4),
            Size::Named(Named::Small) => (512, 6, 8),
            Size::Named(Named::Base) => (768, 12, 12),
            Size::Named(Named::Large) => (1024, 24, 16),
            Size::Named(Named::Xl) => (1280, 36, 20),
            Size::Named(Named::Xxl) => (1536, 48, 24),
            Size::Named(Named::Xxxl) => (2560, 48, 40),
        };
        TransformerSize { width, layers, heads }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_name_or_numbers_and_errors_say_what_is_wrong_with_it() {
        let read = |text: &str| serde_json::from_str::<Size>(text).map_err(|e| e.to_string());
        assert_eq!(read("\"base\""), Ok(Size::Named(Named::Base)));
        let custom = TransformerSize { width: 192, layers: 2, heads: 3 };
        assert_eq!(read("{\"width\": 192, \"layers\": 2, \"heads\": 3}"), Ok(Size::Custom(custom)));
        for (text, expected) in [
            (
                "{\"widht\": 192, \"layers\": 2, \"heads\": 3}",
                "unknown field `widht`, expected one of `width`",
            ),
            ("{\"width\": 192, \"layers\": 2}", "missing field `heads`"),
            ("\"huge\"", "unknown variant `huge`, expected one of `tiny`"),
            ("3", "expected the name of a size, or { width, layers, heads }"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(expected), "{found}");
        }
    }
}
