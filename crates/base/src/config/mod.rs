//! YAML ⇄ typed configurations, with overrides and errors that point at the place.

mod place;

use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use serde_yaml::Value;

use crate::hint::{Hint, nearest};

/// Error of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// The text is not YAML, or not what the type expects.
    #[error("`{origin}` is not a valid configuration: {message}")]
    Invalid {
        /// File, or what else the text came from.
        origin: String,
        /// serde's message, with key and line where known.
        message: String,
    },
    /// A `key=value` override is malformed or names no existing key.
    #[error("override `{given}`: {message}")]
    Override {
        /// Text as typed.
        given: String,
        /// Reason.
        message: String,
        /// Similar keys.
        similar: Vec<String>,
    },
}

impl Hint for ConfigError {
    fn hints(&self) -> Vec<String> {
        match self {
            ConfigError::Override { similar, .. } if !similar.is_empty() => {
                vec![format!(
                    "did you mean {}?",
                    similar.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" or ")
                )]
            }
            ConfigError::Invalid { message, .. } => unknown_field_hint(message).into_iter().collect(),
            _ => vec![],
        }
    }
}

/// Turns serde's "unknown field `x`, expected one of `a`, `b`" into a suggestion.
fn unknown_field_hint(message: &str) -> Option<String> {
    let (head, tail) = message.split_once(", expected ")?;
    let word = head.rsplit('`').nth(1)?; // the key and its line come before it
    let known: Vec<&str> = tail.split('`').skip(1).step_by(2).collect();
    let best = nearest(word, known, 1);
    best.first().map(|b| format!("did you mean `{b}`?"))
}

/// A parsed but untyped configuration.
#[derive(Debug, Clone)]
pub struct Document {
    /// Origin, for messages.
    pub origin: String,
    value: Value,
    /// Text read; `None` for a configuration that was completed or assembled.
    text: Option<String>,
    /// Changes made by [`Document::set`].
    changed: Vec<String>,
}

impl Document {
    /// Reads a YAML (or JSON) file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Parses YAML (or JSON) text; merge keys (`<<: *anchor`) are applied.
    pub fn parse(origin: &str, text: &str) -> Result<Self, ConfigError> {
        if nests_too_deeply(text) {
            let message = format!("its brackets nest more than {DEEPEST} deep");
            return Err(ConfigError::Invalid { origin: origin.to_owned(), message });
        }
        let mut value: Value = serde_yaml::from_str(text).map_err(|e| invalid(origin, &e))?;
        value.apply_merge().map_err(|e| invalid(origin, &e))?;
        Ok(Document { origin: origin.to_owned(), value, text: Some(text.to_owned()), changed: vec![] })
    }

    /// A configuration with all that its file left at defaults. Its lines are nobody's, and no
    /// error names them.
    pub fn complete<T: Serialize>(origin: &str, config: &T) -> Result<Self, ConfigError> {
        let value = serde_yaml::to_value(config).map_err(|e| invalid(origin, &e))?;
        Ok(Document { origin: origin.to_owned(), value, text: None, changed: vec![] })
    }

    /// The value as JSON, for code that inspects foreign files (the official YAMLs).
    pub fn to_json(&self) -> Result<serde_json::Value, ConfigError> {
        serde_json::to_value(&self.value)
            .map_err(|e| ConfigError::Invalid { origin: self.origin.clone(), message: e.to_string() })
    }

    /// Applies `a.b.c=value` overrides. Every key must exist already; `value` is read as YAML.
    pub fn set(&mut self, overrides: &[String]) -> Result<(), ConfigError> {
        overrides.iter().try_for_each(|o| self.set_one(o))
    }

    fn set_one(&mut self, given: &str) -> Result<(), ConfigError> {
        let fail = |message: String, similar: Vec<String>| ConfigError::Override {
            given: given.into(),
            message,
            similar,
        };
        let (path, text) = given.split_once('=').ok_or_else(|| fail("expected key=value".into(), vec![]))?;
        let new: Value = serde_yaml::from_str(text).map_err(|e| fail(e.to_string(), vec![]))?;
        let mut at = &mut self.value;
        let mut walked = String::new();
        for key in path.split('.') {
            let known: Vec<String> = match &*at {
                Value::Mapping(m) => m.keys().filter_map(|k| k.as_str().map(str::to_owned)).collect(),
                _ => vec![],
            };
            let next = at.as_mapping_mut().and_then(|m| m.get_mut(key));
            at = next.ok_or_else(|| {
                let near = nearest(key, known.iter().map(String::as_str), 3);
                let similar = near.into_iter().map(|k| format!("{walked}{k}")).collect();
                fail(
                    format!("no key `{walked}{key}` in {}; here are: {}", self.origin, known.join(", ")),
                    similar,
                )
            })?;
            walked = format!("{walked}{key}.");
        }
        *at = new;
        self.changed.push(given.to_owned());
        Ok(())
    }

    /// The typed configuration.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        // Through text, whose reader has more to say of what it expected than that of values.
        let text = serde_yaml::to_string(&self.value).map_err(|e| invalid(&self.origin, &e))?;
        let reader = serde_yaml::Deserializer::from_str(&text);
        serde_path_to_error::deserialize(reader).map_err(|e| ConfigError::Invalid {
            origin: self.origin.clone(),
            message: place::message(&e, &self.value, self.text.as_deref(), &self.changed),
        })
    }
}

/// Brackets that may be open at a time. The parser allows fewer, but it looks at all of the text
/// first, in time that goes with the square of their depth.
const DEEPEST: usize = 1000;

/// Whether that many brackets are open somewhere, including those in comments and strings.
fn nests_too_deeply(text: &str) -> bool {
    let mut open = 0usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > DEEPEST
    })
}

fn invalid(origin: &str, e: &serde_yaml::Error) -> ConfigError {
    ConfigError::Invalid { origin: origin.to_owned(), message: e.to_string() }
}

/// Reads a typed configuration from a file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    Document::read(path)?.typed()
}

/// A configuration as YAML text; itself valid input.
pub fn to_yaml<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    serde_yaml::to_string(config).map_err(|e| invalid("configuration", &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Toy {
        size: i64,
        inner: Inner,
    }
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        rate: f64,
    }

    #[test]
    fn overrides_reach_nested_keys_and_typos_get_a_suggestion() {
        let mut d = Document::parse("toy", "size: 3\ninner: { rate: 0.5 }").unwrap();
        d.set(&["inner.rate=0.25".into(), "size=4".into()]).unwrap();
        assert_eq!(d.typed::<Toy>().unwrap(), Toy { size: 4, inner: Inner { rate: 0.25 } });
        let e = d.set(&["inner.rat=1".into()]).unwrap_err();
        assert_eq!(e.hints(), ["did you mean `inner.rate`?"]);
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
    enum Tagged {
        Deep { inner: Inner, size: i64 },
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Whole {
        rate: f64,
        model: Tagged,
    }

    #[test]
    fn errors_name_the_key_and_the_line_of_the_text_that_was_given() {
        let good = "# flow mappings become several lines when they are written again\n\
                    rate: 1.0\nmodel:\n  type: deep\n  inner: { rate: 0.5 }\n  size: 3\n";
        let say = |from: &str, to: &str, changes: &[&str]| {
            let mut document = Document::parse("toy", &good.replace(from, to)).unwrap();
            document.set(&changes.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>()).unwrap();
            document.typed::<Whole>().unwrap_err().to_string()
        };
        let cases = [
            ("rate: 1.0", "rate: 1/10", "line 2, `rate`: invalid type: string \"1/10\", expected f64"),
            (
                "{ rate: 0.5 }",
                "{ rat: 0.5 }",
                "line 5, `model.inner.rat`: unknown field `rat`, expected `rate`",
            ),
            ("size: 3", "size: many", "line 6, `model.size`: invalid type: string \"many\", expected i64"),
            (
                "size: 3",
                "size: 2.5",
                "line 6, `model.size`: invalid type: floating point `2.5`, expected i64",
            ),
            ("deep", "flat", "line 4, `model.type`: unknown variant `flat`, expected `deep`"),
            ("  size: 3\n", "", "line 3, `model`: missing field `size`"),
            // Two keys have this value.
            ("size: 3", "size: 0.5", "line 3, `model`: invalid type: floating point `0.5`, expected i64"),
            ("{ rate: 0.5 }", "7", "line 5, `model.inner`: invalid type: integer `7`, expected struct Inner"),
            ("size: 3", "size: 3\n  more:\n    a: 1", "line 7, `model.more`: unknown field `more`"),
        ];
        for (from, to, expected) in cases {
            let found = say(from, to, &[]);
            assert!(found.contains(expected), "expected {expected}: {found}");
        }
        // What was changed on the command line has no line.
        let found = say("x", "x", &["model.size=many"]);
        assert!(found.contains("override `model.size=many`: invalid type: string \"many\""), "{found}");
        let complete = Document::complete("toy", &serde_json::json!({"rate": "x"})).unwrap();
        let found = complete.typed::<Whole>().unwrap_err().to_string();
        assert!(found.ends_with("`rate`: invalid type: string \"x\", expected f64"), "{found}");
    }

    #[test]
    fn what_nests_without_end_is_refused_at_once() {
        let flow = "[".repeat(100_000);
        let map = "{a: ".repeat(100_000);
        let block: String = (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        let closed = format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000));
        let anchors: String = (0..30).map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1)).collect();
        let anchors = anchors.replacen("[*a-1, *a-1]", "[1]", 1);
        for text in [&flow, &map, &block, &closed, &anchors] {
            let start = std::time::Instant::now();
            let error = Document::parse("deep.yaml", text).unwrap_err().to_string();
            assert!(error.starts_with("`deep.yaml` is not a valid configuration: "), "{error}");
            assert!(start.elapsed().as_secs() < 10, "{:.20}… took {:?}", text, start.elapsed());
        }
    }

    #[test]
    fn merge_keys_are_applied() {
        let d = Document::parse("toy", "a: &t { rate: 0.5, size: 3 }\nb: { <<: *t, size: 4 }").unwrap();
        let json = d.to_json().unwrap();
        assert_eq!(json["b"], serde_json::json!({"size": 4, "rate": 0.5}));
        assert!(Document::parse("toy", "b: { <<: 3 }").unwrap_err().to_string().contains("merging"));
    }

    #[test]
    fn a_misspelled_key_in_a_file_gets_a_suggestion() {
        let d = Document::parse("toy", "siez: 3\ninner: { rate: 0.5 }").unwrap();
        let e = d.typed::<Toy>().unwrap_err();
        assert_eq!(e.hints(), ["did you mean `size`?"]);
    }
}
