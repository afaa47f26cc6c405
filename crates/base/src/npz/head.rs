//! The head of a `.npy` array: its kind of numbers, order and shape.

use std::io::{self, Cursor, Read};

use npyz::{DType, NpyHeader, Order};
use tch::Kind;

use super::ArrayInfo;

/// The longest head that is read, bytes. NumPy's own limit is 10,000.
const LONGEST: u32 = 1 << 20;
/// The deepest nesting of brackets in a head; that of a table with a table in a cell is 5. The parser calls itself.
const DEEPEST: usize = 32;

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
    let text = plain(&text).ok_or_else(|| io::Error::other("its head is nested too deeply"))?;
    let whole = [b"\x93NUMPY\x03\x00".as_slice(), &(text.len() as u32).to_le_bytes(), &text].concat();
    let header = NpyHeader::from_reader(Cursor::new(whole))?;
    let (shape, kind) = (header.shape(), kind_of(&header.dtype()));
    let descr = header.dtype().descr().trim_matches('\'').to_owned();
    let fortran = header.order() == Order::Fortran;
    let bytes = bytes_of(shape, kind).ok_or_else(|| {
        io::Error::other(format!("damaged: its shape {shape:?} claims more than a file can hold"))
    })?;
    let shape = shape.iter().map(|&d| d as i64).collect();
    let info = ArrayInfo { name: name.to_owned(), shape, kind, descr, fortran, bytes };
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

/// The text of a head without the `L` that Python 2 wrote behind long integers; `None` if it is nested too deeply.
fn plain(text: &[u8]) -> Option<Vec<u8>> {
    let (mut depth, mut quote, mut out) = (0usize, None, Vec::with_capacity(text.len()));
    for &c in text {
        match (c, quote) {
            (b'\'' | b'"', None) => quote = Some(c),
            (_, Some(q)) if q == c => quote = None,
            (b'(' | b'[' | b'{', None) => depth += 1,
            (b')' | b']' | b'}', None) => depth = depth.saturating_sub(1),
            (b'L', None) if out.last().is_some_and(u8::is_ascii_digit) => continue,
            _ => {}
        }
        if depth > DEEPEST {
            return None;
        }
        out.push(c);
    }
    Some(out)
}

fn kind_of(dtype: &DType) -> Option<Kind> {
    let DType::Plain(_) = dtype else { return None };
    let text = dtype.descr();
    Some(match text.trim_matches('\'') {
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
