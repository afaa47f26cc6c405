//! Head of a `.npy` array: dtype, order and shape.

use std::io::{self, Read};

use tch::Kind;

/// Head of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayInfo {
    /// Its name, without `.npy`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// The dtype of its numbers; `None` for texts and other values.
    pub kind: Option<Kind>,
    /// NumPy's name of the type.
    pub descr: String,
    pub(super) fortran: bool,
    /// Size of all values; 0 unless they are numbers.
    pub(super) bytes: u64,
}

/// The longest head that is read, bytes. NumPy's own limit is 10,000.
const LONGEST: u32 = 1 << 20;

/// Reads a head and how many bytes it takes.
pub(super) fn read_head(reader: &mut impl Read, name: &str) -> io::Result<(ArrayInfo, u64)> {
    let mut fixed = [0; 8];
    reader.read_exact(&mut fixed)?;
    if !fixed.starts_with(b"\x93NUMPY") || !(1..=3).contains(&fixed[6]) {
        return Err(io::Error::other("not a .npy array of version 1 to 3"));
    }
    let (length, width) = match fixed[6] {
        1 => (u32::from(u16::from_le_bytes(array(reader)?)), 2),
        _ => (u32::from_le_bytes(array(reader)?), 4),
    };
    if length > LONGEST {
        return Err(io::Error::other(format!("its head claims {length} bytes")));
    }
    let mut text = vec![0; length as usize];
    reader.read_exact(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let Head { descr, fortran, shape } = Head::parse(&text)
        .map_err(|what| io::Error::other(format!("its head is not that of an array: {what}")))?;
    let kind = kind_of(descr);
    let bytes = bytes_of(&shape, kind).ok_or_else(|| {
        io::Error::other(format!("damaged: its shape {shape:?} claims more than a file can hold"))
    })?;
    let shape = shape.iter().map(|&d| d as i64).collect();
    let info = ArrayInfo { name: name.to_owned(), shape, kind, descr: descr.to_owned(), fortran, bytes };
    Ok((info, 8 + width + u64::from(length)))
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The bytes of all values; `None` where a dimension or the product is beyond 63 bits.
fn bytes_of(shape: &[u64], kind: Option<Kind>) -> Option<u64> {
    let each = kind.map_or(1, Kind::elt_size_in_bytes) as u64;
    let product = shape.iter().try_fold(each, |n, &d| n.checked_mul(d.max(1)))?;
    i64::try_from(product).ok()?;
    Some(if shape.contains(&0) || kind.is_none() { 0 } else { product })
}

/// A head's text, a Python dictionary of three keys. Time goes with its length alone, whatever it
/// nests: parsers of Python's literals that try one form after the other take hours for a few dozen
/// brackets.
struct Head<'a> {
    /// NumPy's name of the type, or the text of a table's fields.
    descr: &'a str,
    fortran: bool,
    shape: Vec<u64>,
}

type Result<T> = std::result::Result<T, String>;

impl<'a> Head<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let inside = within(text, '{', '}').ok_or("no dictionary")?;
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        for entry in items(inside)? {
            let (key, value) = entry.split_once(':').ok_or_else(|| unexpected("key: value", entry))?;
            match unquoted(key) {
                Some("descr") => descr = Some(unquoted(value).unwrap_or(value.trim())),
                Some("fortran_order") => fortran = Some(truth(value)?),
                Some("shape") => shape = Some(numbers(value)?),
                _ => return Err(unexpected("descr, fortran_order or shape", key)),
            }
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok(Head { descr, fortran, shape }),
            _ => Err("expected descr, fortran_order and shape".into()),
        }
    }
}

fn unexpected(expected: &str, found: &str) -> String {
    let start: String = found.trim().chars().take(40).collect();
    format!("expected {expected}, found {start:?}")
}

fn within(text: &str, open: char, close: char) -> Option<&str> {
    text.trim().strip_prefix(open)?.strip_suffix(close)
}

fn unquoted(text: &str) -> Option<&str> {
    within(text, '\'', '\'').or(within(text, '"', '"'))
}

fn truth(text: &str) -> Result<bool> {
    match text.trim() {
        "True" => Ok(true),
        "False" => Ok(false),
        other => Err(unexpected("True or False", other)),
    }
}

/// A tuple of whole numbers, which may end in the `L` that Python 2 wrote behind long ones.
fn numbers(text: &str) -> Result<Vec<u64>> {
    let bad = || unexpected("a tuple of whole numbers as its shape", text);
    let inside = within(text, '(', ')').ok_or_else(bad)?.trim();
    let mut items: Vec<&str> = inside.split(',').collect();
    if items.last().is_some_and(|last| last.trim().is_empty()) {
        items.pop(); // what is behind the last comma, or all of ()
    } else if items.len() == 1 {
        return Err(bad()); // (3) is no tuple
    }
    let number = |item: &str| {
        let digits = item.trim();
        digits.strip_suffix('L').unwrap_or(digits).parse().map_err(|_| bad())
    };
    items.into_iter().map(number).collect()
}

/// The parts of a list between commas that are in no brackets or quotes.
fn items(text: &str) -> Result<Vec<&str>> {
    let (mut depth, mut quote, mut escaped) = (0i64, None, false);
    let (mut found, mut start) = (vec![], 0);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', Some(_)) => escaped = true,
            (_, Some(q)) if q == c => quote = None,
            (_, Some(_)) => {}
            ('\'' | '"', None) => quote = Some(c),
            ('(' | '[' | '{', None) => depth += 1,
            (')' | ']' | '}', None) => depth -= 1,
            (',', None) if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth != 0 || quote.is_some() {
        return Err("brackets or quotes that do not close".into());
    }
    found.push(&text[start..]);
    if found.last().is_some_and(|last| last.trim().is_empty()) {
        found.pop();
    }
    Ok(found)
}

fn kind_of(descr: &str) -> Option<Kind> {
    Some(match descr {
        "<f8" => Kind::Double,
        "<f4" => Kind::Float,
        "<f2" => Kind::Half,
        "<i8" => Kind::Int64,
        "<i4" => Kind::Int,
        "<i2" => Kind::Int16,
        "|i1" => Kind::Int8,
        "|u1" => Kind::Uint8,
        "|b1" => Kind::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_numpy_writes_them() {
        let parse = |text: &str| Head::parse(text).map(|h| (h.descr.to_owned(), h.fortran, h.shape));
        let plain = |descr: &str, shape: &str| {
            parse(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}   \n"))
        };
        for (shape, numbers) in
            [("()", vec![]), ("(3,)", vec![3]), ("(2L, 0L)", vec![2, 0]), ("( 1,2 , 3 ,)", vec![1, 2, 3])]
        {
            assert_eq!(plain("'<f4'", shape), Ok(("<f4".to_owned(), false, numbers)));
        }
        let table = "[('a, b', '<f8', (2, 3)), (\"it's\", [('\\'x', '|u1')])]";
        assert_eq!(plain(table, "(7,)").unwrap().0, table);
        let other = "{\"shape\":(1,),\"fortran_order\":True,\"descr\":\"|u1\"}";
        assert_eq!(parse(other), Ok(("|u1".to_owned(), true, vec![1])));
        for shape in
            ["(3)", "3", "(-1,)", "(1.5, 2)", "(,)", "(1,,2)", "[3]", "(1, 2", "(18446744073709551616,)"]
        {
            assert!(plain("'<f4'", shape).is_err(), "{shape}");
        }
        for text in
            ["", "{}", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}", "{'a': 1}"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    /// Five dozen brackets took a parser that goes back and tries again for ever.
    #[test]
    fn nesting_takes_no_time() {
        for (open, close) in [("(3, ", ")"), ("(", ")"), ("[(", ",)]"), ("(", "")] {
            let shape = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            let head = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
            assert!(Head::parse(&head).is_err());
        }
    }
}
