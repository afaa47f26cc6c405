//! NumPy's `.npz`: a zip archive of `.npy` arrays, stored or deflated, of any size.
//!
//! Heads are read when a file is opened, arrays when they are asked for. Little-endian arrays of numbers are known,
//! in C and Fortran order and in every version of the format.

mod write;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use libtorch_ext::bytes::{tensor_from_bytes, with_bytes};
use npyz::{DType, NpyHeader, Order};
use tch::{Kind, Tensor};
use zip::CompressionMethod;
use zip::read::ZipArchive;

pub use self::write::{npy_header, npy_texts, write};
use crate::hint::{Hint, nearest};

/// An archive that cannot be read or written as asked.
#[derive(Debug, thiserror::Error)]
#[error("`{path}`: {message}")]
pub struct NpzError {
    path: PathBuf,
    message: String,
    hints: Vec<String>,
}

impl Hint for NpzError {
    fn hints(&self) -> Vec<String> {
        self.hints.clone()
    }
}

/// What an array's head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayInfo {
    /// Its name, without `.npy`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// The kind of its numbers; `None` for texts and whatever else is no number.
    pub kind: Option<Kind>,
    /// NumPy's name of the type.
    pub descr: String,
    fortran: bool,
}

impl ArrayInfo {
    fn bytes(&self) -> u64 {
        let each = self.kind.map_or(0, Kind::elt_size_in_bytes) as u64;
        self.shape.iter().map(|&d| d as u64).product::<u64>() * each
    }
}

/// An open archive.
#[derive(Debug)]
pub struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    arrays: Vec<ArrayInfo>,
}

/// An array whose rows are read as they are needed, from any thread.
#[derive(Debug)]
pub struct Rows {
    path: PathBuf,
    file: File,
    start: u64,
    info: ArrayInfo,
}

impl Npz {
    /// Opens an archive and reads the heads of its arrays.
    ///
    /// # Errors
    /// No zip archive, or a member that is no array.
    pub fn open(path: &Path) -> Result<Self, NpzError> {
        let fail = |message: String| NpzError { path: path.to_owned(), message, hints: vec![] };
        let file = File::open(path).map_err(|e| fail(e.to_string()))?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|e| fail(format!("no .npz: {e}")))?;
        let mut npz = Npz { path: path.to_owned(), archive, arrays: vec![] };
        for index in 0..npz.archive.len() {
            let info = npz.head(index).map_err(|e| fail(e.to_string()))?;
            npz.arrays.push(info);
        }
        Ok(npz)
    }

    fn head(&mut self, index: usize) -> io::Result<ArrayInfo> {
        let mut member = self.archive.by_index(index)?;
        let name = member.name().to_owned();
        let Some(array) = name.strip_suffix(".npy") else {
            return Err(io::Error::other(format!("the member `{name}` is no .npy array")));
        };
        read_head(&mut member, array).map_err(|e| io::Error::other(format!("array `{array}`: {e}")))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    pub fn arrays(&self) -> &[ArrayInfo] {
        &self.arrays
    }

    /// What is known of an array, if it is there.
    pub fn info(&self, name: &str) -> Option<&ArrayInfo> {
        self.arrays.iter().find(|a| a.name == name)
    }

    fn fail(&self, message: impl Into<String>) -> NpzError {
        NpzError { path: self.path.clone(), message: message.into(), hints: vec![] }
    }

    fn index(&self, name: &str) -> Result<usize, NpzError> {
        self.arrays.iter().position(|a| a.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.arrays.iter().map(|a| a.name.as_str()).collect();
            let mut error = self.fail(format!("there is no array `{name}`; it holds {}", names.join(", ")));
            error.hints.extend(nearest(name, names, 1).iter().map(|n| format!("did you mean `{n}`?")));
            error
        })
    }

    /// Reads a whole array.
    ///
    /// # Errors
    /// There is none of that name, or it is cut off or damaged.
    pub fn read(&mut self, name: &str) -> Result<Tensor, NpzError> {
        let index = self.index(name)?;
        let info = self.arrays[index].clone();
        let mut bytes = vec![];
        let read = self.archive.by_index(index).map_err(io::Error::from).and_then(|mut member| {
            NpyHeader::from_reader(&mut member)?;
            member.read_to_end(&mut bytes)
        });
        read.map_err(|e| self.fail(format!("array `{name}` is damaged: {e}")))?;
        let mut shape = info.shape.clone();
        if info.fortran {
            shape.reverse();
        }
        let tensor = tensor_from_bytes(&bytes, &shape, self.numbers(&info)?)
            .map_err(|e| self.fail(format!("array `{name}` is cut off: {e}")))?;
        let axes: Vec<i64> = (0..shape.len() as i64).rev().collect();
        Ok(if info.fortran { tensor.permute(&axes).contiguous() } else { tensor })
    }

    /// Reads a single text, as NumPy stores `numpy.array("text")`.
    ///
    /// # Errors
    /// There is no array of that name, or it is no text.
    pub fn text(&mut self, name: &str) -> Result<String, NpzError> {
        let index = self.index(name)?;
        let fail = |e: io::Error| NpzError {
            path: self.path.clone(),
            message: format!("array `{name}`: {e}"),
            hints: vec![],
        };
        if !self.arrays[index].descr.starts_with("<U") {
            return Err(fail(io::Error::other(format!(
                "expected a text, found {}",
                self.arrays[index].descr
            ))));
        }
        let mut bytes = vec![];
        let read = self.archive.by_index(index).map_err(io::Error::from).and_then(|mut member| {
            NpyHeader::from_reader(&mut member)?;
            member.read_to_end(&mut bytes)
        });
        read.map_err(fail)?;
        let letters = bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
        Ok(letters.take_while(|&c| c != 0).filter_map(char::from_u32).collect())
    }

    fn numbers(&self, info: &ArrayInfo) -> Result<Kind, NpzError> {
        let message = || format!("array `{}`: values of type {} are not known here", info.name, info.descr);
        info.kind.ok_or_else(|| self.fail(message()))
    }

    /// Opens an array to read its rows one at a time. A stored array is read where it lies; another is first written
    /// to an unnamed temporary file.
    ///
    /// # Errors
    /// There is none of that name, it has no rows, or it cannot be read.
    pub fn rows(&mut self, name: &str) -> Result<Rows, NpzError> {
        let index = self.index(name)?;
        let info = self.arrays[index].clone();
        self.numbers(&info)?;
        if info.shape.is_empty() {
            return Err(self.fail(format!("array `{name}` is a single number")));
        }
        let (file, start) =
            self.place(index, &info).map_err(|e| self.fail(format!("array `{name}`: {e}")))?;
        Ok(Rows { path: self.path.clone(), file, start, info })
    }

    /// Where an array's C-ordered bytes begin, and in which file.
    fn place(&mut self, index: usize, info: &ArrayInfo) -> io::Result<(File, u64)> {
        if info.fortran {
            let whole = self.read(&info.name).map_err(io::Error::other)?;
            let mut file = tempfile::tempfile()?;
            with_bytes(&whole, |bytes| file.write_all(bytes)).map_err(io::Error::other)??;
            return Ok((file, 0));
        }
        let mut member = self.archive.by_index(index)?;
        let head = head_length(&mut member)?;
        if member.size() < head + info.bytes() {
            return Err(io::Error::other("cut off"));
        }
        if member.compression() == CompressionMethod::Stored {
            return Ok((File::open(&self.path)?, member.data_start() + head));
        }
        let mut file = tempfile::tempfile()?;
        // All but the bytes that were read to know the head's length.
        io::copy(&mut member, &mut BufWriter::with_capacity(1 << 20, &mut file))?;
        Ok((file, head - PEEKED))
    }
}

impl Rows {
    /// The array.
    pub fn info(&self) -> &ArrayInfo {
        &self.info
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.info.shape[0] as usize
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of row `index`, C order. `index` must be below [`Rows::len`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn bytes(&self, index: usize) -> Result<Vec<u8>, NpzError> {
        let size = self.info.bytes() / self.info.shape[0].max(1) as u64;
        let mut row = vec![0; size as usize];
        let read = self.file.read_exact_at(&mut row, self.start + index as u64 * size);
        read.map_err(|e| {
            let message = format!("row {index} of array `{}`: {e}", self.info.name);
            NpzError { path: self.path.clone(), message, hints: vec![] }
        })?;
        Ok(row)
    }
}

/// Bytes of a `.npy` that tell how long its head is.
const PEEKED: u64 = 12;

/// Reads [`PEEKED`] bytes: magic, version, and the length of the text that follows.
fn head_length(reader: &mut impl Read) -> io::Result<u64> {
    let mut b = [0; PEEKED as usize];
    reader.read_exact(&mut b)?;
    Ok(match b[6] {
        1 => 10 + u64::from(u16::from_le_bytes([b[8], b[9]])),
        _ => 12 + u64::from(u32::from_le_bytes([b[8], b[9], b[10], b[11]])),
    })
}

fn read_head(reader: &mut impl Read, name: &str) -> io::Result<ArrayInfo> {
    let header = NpyHeader::from_reader(reader)?;
    let shape = header.shape().iter().map(|&d| d as i64).collect();
    let descr = header.dtype().descr().trim_matches('\'').to_owned();
    let kind = kind_of(&header.dtype());
    Ok(ArrayInfo { name: name.to_owned(), shape, kind, descr, fortran: header.order() == Order::Fortran })
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

#[cfg(test)]
mod tests {
    use super::*;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn archive(dir: &Path, members: &[(&str, Vec<u8>)], method: CompressionMethod) -> PathBuf {
        let path = dir.join("x.npz");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in members {
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    fn npy(version: u8, dict: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x93, b'N', b'U', b'M', b'P', b'Y', version, 0];
        let text = format!("{dict}\n");
        match version {
            1 => bytes.extend((text.len() as u16).to_le_bytes()),
            _ => bytes.extend((text.len() as u32).to_le_bytes()),
        }
        bytes.extend(text.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn what_is_written_is_read_back_whole_and_by_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let (x, y) =
            (Tensor::from_slice(&[1f64, 2., 3., 4., 5., 6.]).view([3, 2]), Tensor::from_slice(&[7i64]));
        write(&path, &[("x", &x), ("y", &y)]).unwrap();
        let mut npz = Npz::open(&path).unwrap();
        assert_eq!((npz.read("x").unwrap(), npz.read("y").unwrap()), (x, y));
        let rows = npz.rows("x").unwrap();
        assert_eq!(
            (rows.len(), rows.bytes(1).unwrap()),
            (3, [3f64.to_le_bytes(), 4f64.to_le_bytes()].concat())
        );
        let error = npz.read("z").unwrap_err().to_string();
        assert!(error.contains("there is no array `z`; it holds x, y"), "{error}");
    }

    #[test]
    fn every_version_both_orders_and_both_compressions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let expected = Tensor::from_slice(&[1u8, 2, 3, 4, 5, 6]).view([2, 3]);
        for version in 1..=3 {
            for (order, data) in [("False", [1, 2, 3, 4, 5, 6]), ("True", [1, 4, 2, 5, 3, 6])] {
                for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
                    let dict = format!("{{'descr': '|u1', 'fortran_order': {order}, 'shape': (2, 3), }}");
                    let path = archive(dir.path(), &[("a.npy", npy(version, &dict, &data))], method);
                    let mut npz = Npz::open(&path).unwrap();
                    assert_eq!(npz.read("a").unwrap(), expected);
                    assert_eq!(npz.rows("a").unwrap().bytes(1).unwrap(), [4, 5, 6]);
                }
            }
        }
    }

    #[test]
    fn damage_is_an_error_that_names_file_and_array() {
        let dir = tempfile::tempdir().unwrap();
        let dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }";
        let short = archive(dir.path(), &[("a.npy", npy(1, dict, &[0; 8]))], CompressionMethod::Stored);
        let mut npz = Npz::open(&short).unwrap();
        for error in [npz.read("a").unwrap_err().to_string(), npz.rows("a").unwrap_err().to_string()] {
            assert!(error.contains("x.npz") && error.contains("`a`") && error.contains("cut off"), "{error}");
        }
        let objects = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }";
        let path = archive(dir.path(), &[("o.npy", npy(1, objects, &[0; 8]))], CompressionMethod::Stored);
        let error = Npz::open(&path).unwrap().read("o").unwrap_err().to_string();
        assert!(error.contains("`o`") && error.contains("|O"), "{error}");
        std::fs::write(&path, b"no zip at all").unwrap();
        assert!(Npz::open(&path).is_err());
    }
}
