//! Place in a text of a value that does not fit: serde's messages give it for its own input, which
//! may be rewritten or buffered.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::Segment;
use serde_yaml::Value;

/// serde's message after the key and its line in `text`, or after its override among `changed`.
pub(super) fn message(
    error: &serde_path_to_error::Error<serde_yaml::Error>,
    value: &Value,
    text: Option<&str>,
    changed: &[String],
) -> String {
    let known = steps(error.path());
    let said = without_place(&error.inner().to_string(), &known);
    let path = culprit(value, known, &said);
    let key = path.join(".");
    if key.is_empty() {
        return said;
    }
    let is_of = |change: &&String| {
        let changed = change.split_once('=').map_or(change.as_str(), |(key, _)| key);
        let below =
            |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'));
        changed == key || below(&key, changed)
    };
    if let Some(change) = changed.iter().rev().find(is_of) {
        return format!("override `{change}`: {said}");
    }
    match text.and_then(|text| line_of(text, &path)) {
        Some(line) => format!("line {line}, `{key}`: {said}"),
        None => format!("`{key}`: {said}"),
    }
}

/// Keys, and places in lists, on the way to an error; inside an enum with a tag the way is not
/// known.
fn steps(path: &serde_path_to_error::Path) -> Vec<String> {
    let step = |segment: &Segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    path.iter().map_while(step).collect()
}

/// A message of serde_yaml without the way to the error, which it may begin with, and without the
/// place in the text that was rewritten.
fn without_place(message: &str, known: &[String]) -> String {
    let message = match message.rfind(" at line ") {
        Some(end) => &message[..end],
        None => message,
    };
    let is_way = |path: &str| {
        let path = path.replace('[', ".").replace(']', "");
        path.split('.').zip(known).all(|(a, b)| a == b) && path.split('.').count() <= known.len()
    };
    match message.split_once(": ") {
        Some((path, said)) if is_way(path) => said.to_owned(),
        _ => message.to_owned(),
    }
}

/// The key that the message speaks of, at `known` or below, where there is one alone.
fn culprit(value: &Value, known: Vec<String>, said: &str) -> Vec<String> {
    let quoted = |before: &str, quote: char| {
        said.strip_prefix(before).and_then(|rest| rest.split(quote).next()).map(str::to_owned)
    };
    let wanted = if let Some(name) = quoted("unknown field `", '`') {
        Wanted::Key(name)
    } else if let Some(name) = quoted("unknown variant `", '`') {
        Wanted::Leaf(name)
    } else if let Some(rest) = said.strip_prefix("invalid type: ").or(said.strip_prefix("invalid value: ")) {
        let (found, _) = rest.rsplit_once(", expected ").unwrap_or((rest, ""));
        // `string "x"`, "floating point `0.5`".
        let Some((_, found)) = found.split_once(['"', '`']) else { return known };
        Wanted::Leaf(found.trim_end_matches(['"', '`']).to_owned())
    } else {
        return known;
    };
    let below = known.iter().try_fold(value, |at, step| child(at, step));
    let Some(below) = below else { return known };
    let mut found = vec![];
    let mut at = known.clone();
    wanted.find(below, &mut at, &mut found);
    match found.as_slice() {
        [one] => one.clone(),
        _ => known,
    }
}

fn child<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Sequence(list) => list.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    }
}

enum Wanted {
    Key(String),
    /// A string, number or truth value that is written so.
    Leaf(String),
}

impl Wanted {
    /// All paths to what is wanted.
    fn find(&self, value: &Value, at: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        let mut enter = |step: String, inner: &Value, at: &mut Vec<String>| {
            at.push(step);
            if matches!(self, Wanted::Key(name) if at.last() == Some(name)) {
                found.push(at.clone());
            }
            self.find(inner, at, found);
            at.pop();
        };
        match value {
            Value::Mapping(map) => {
                for (key, inner) in map {
                    if let Some(key) = key.as_str() {
                        enter(key.to_owned(), inner, at);
                    }
                }
            }
            Value::Sequence(list) => {
                list.iter().enumerate().for_each(|(i, inner)| enter(i.to_string(), inner, at));
            }
            leaf => {
                let written = match leaf {
                    Value::String(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                    Value::Bool(value) => value.to_string(),
                    _ => return,
                };
                if matches!(self, Wanted::Leaf(wanted) if *wanted == written) {
                    found.push(at.clone());
                }
            }
        }
    }
}

/// Line of the last key of a path, or of the last one in the text (others come by merge keys).
fn line_of(text: &str, path: &[String]) -> Option<usize> {
    (1..=path.len()).rev().find_map(|length| {
        let way = Way { path: &path[..length] };
        let stopped = way.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
        stopped.to_string().contains(HERE).then_some(())?;
        stopped.location().map(|place| place.line())
    })
}

/// Error that ends the walk to a key, so that serde_yaml reports the place.
const HERE: &str = "the key is here";

/// A walk to a key, which ends there with an error.
struct Way<'a> {
    path: &'a [String],
}

/// A key: an error if it is the last one that is wanted, else whether it is the wanted one.
struct Key<'a> {
    wanted: &'a str,
    is_last: bool,
}

impl<'de> DeserializeSeed<'de> for Way<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Way<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a mapping or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.path.split_first() else { return Ok(()) };
        while let Some(found) = map.next_key_seed(Key { wanted, is_last: rest.is_empty() })? {
            match found {
                true => map.next_value_seed(Way { path: rest })?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.path.split_first() else { return Ok(()) };
        for _ in 0..wanted.parse().unwrap_or(0) {
            list.next_element::<IgnoredAny>()?;
        }
        list.next_element_seed(Way { path: rest })?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        match (key == self.wanted, self.is_last) {
            (true, true) => Err(E::custom(HERE)),
            (found, _) => Ok(found),
        }
    }
}
