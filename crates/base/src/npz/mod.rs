//! NumPy's `.npz`: a zip archive of `.npy` arrays, stored or deflated, of any size.
//!
//! Heads are read when a file is opened, arrays when they are asked for. Little-endian arrays of
//! numbers are known, in C and Fortran order and in every version of the format. A member that
//! cannot be read is an error when it is asked for, and no sooner.

mod head;
mod write;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use libtorch_ext::bytes::{tensor_from_bytes, with_bytes};
use tch::{Kind, Tensor};
use zip::CompressionMethod;
use zip::read::ZipArchive;

pub use self::head::ArrayInfo;
use self::head::read_head;
pub use self::write::{npy_header, npy_texts, write};
use crate::files;
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

/// An open archive.
#[derive(Debug)]
pub struct Npz {
    path: PathBuf,
    /// Bytes of the file.
    length: u64,
    archive: ZipArchive<BufReader<File>>,
    arrays: Vec<ArrayInfo>,
    members: Vec<Member>, // of each array
    /// Arrays that cannot be read, and why.
    unreadable: Vec<(String, String)>,
}

/// Place of an array in the archive.
#[derive(Debug, Clone, Copy)]
struct Member {
    index: usize,
    /// Bytes of the head.
    head: u64,
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
    /// Returns an error if the file is not a zip archive or holds no readable arrays.
    pub fn open(path: &Path) -> Result<Self, NpzError> {
        let fail = |message: String| NpzError { path: path.to_owned(), message, hints: vec![] };
        let file = files::open_regular(path).map_err(|e| fail(e.to_string()))?;
        let length = file.metadata().map_err(|e| fail(e.to_string()))?.len();
        let archive =
            ZipArchive::new(BufReader::new(file)).map_err(|e| fail(format!("not an .npz archive: {e}")))?;
        let (arrays, members, unreadable) = (vec![], vec![], vec![]);
        let mut npz = Npz { path: path.to_owned(), length, archive, arrays, members, unreadable };
        let mut other = None;
        for index in 0..npz.archive.len() {
            let name = npz.archive.name_for_index(index).unwrap_or_default().to_owned();
            let Some(array) = name.strip_suffix(".npy").filter(|n| !of_macos(n)) else {
                other = other.or(Some(format!("the member `{name}` is not a .npy array")));
                continue;
            };
            match npz.head(index, array) {
                Ok((info, head)) => {
                    npz.arrays.push(info);
                    npz.members.push(Member { index, head });
                }
                Err(e) => npz.unreadable.push((array.to_owned(), format!("array `{array}`: {e}"))),
            }
        }
        if npz.arrays.is_empty() {
            let why = npz.unreadable.first().map(|(_, why)| why.clone()).or(other);
            return Err(fail(why.unwrap_or_else(|| "it holds no arrays".into())));
        }
        Ok(npz)
    }

    fn head(&mut self, index: usize, array: &str) -> io::Result<(ArrayInfo, u64)> {
        let mut member = self.archive.by_index(index)?;
        let end = member.data_start().checked_add(member.compressed_size());
        if end.is_none_or(|end| end > self.length) {
            let (claimed, there) = (member.compressed_size(), self.length);
            return Err(io::Error::other(format!(
                "damaged: it claims {claimed} bytes that reach beyond the file's {there}"
            )));
        }
        // A deflated byte makes at most 1,032.
        if member.size() / 1033 > member.compressed_size() {
            return Err(io::Error::other("damaged: it claims more bytes than its compressed ones can hold"));
        }
        let (info, head) = read_head(&mut member, array)?;
        if info.kind.is_some() && member.size() < head + info.bytes {
            let (there, shape) = (member.size() - head, &info.shape);
            return Err(io::Error::other(format!(
                "cut off: its shape {shape:?} needs {} bytes, it has {there}",
                info.bytes
            )));
        }
        Ok((info, head))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its arrays.
    pub fn arrays(&self) -> &[ArrayInfo] {
        &self.arrays
    }

    /// Header of an array, if it exists.
    pub fn info(&self, name: &str) -> Option<&ArrayInfo> {
        self.arrays.iter().find(|a| a.name == name)
    }

    fn fail(&self, message: impl Into<String>) -> NpzError {
        NpzError { path: self.path.clone(), message: message.into(), hints: vec![] }
    }

    fn index(&self, name: &str) -> Result<usize, NpzError> {
        self.arrays.iter().position(|a| a.name == name).ok_or_else(|| {
            if let Some((_, why)) = self.unreadable.iter().find(|(n, _)| n == name) {
                return self.fail(why);
            }
            let names: Vec<&str> = self.arrays.iter().map(|a| a.name.as_str()).collect();
            let mut error = self.fail(format!("there is no array `{name}`; it holds {}", names.join(", ")));
            error.hints.extend(nearest(name, names, 1).iter().map(|n| format!("did you mean `{n}`?")));
            error
        })
    }

    /// Reads a whole array.
    ///
    /// # Errors
    /// Returns an error if there is no such array, or it is cut off or damaged.
    pub fn read(&mut self, name: &str) -> Result<Tensor, NpzError> {
        let index = self.index(name)?;
        let info = self.arrays[index].clone();
        let kind = self.numbers(&info)?;
        let bytes = self.data(index, info.bytes);
        let bytes = bytes.map_err(|e| self.fail(format!("array `{name}` is damaged: {e}")))?;
        let mut shape = info.shape.clone();
        if info.fortran {
            shape.reverse();
        }
        let tensor = tensor_from_bytes(&bytes, &shape, kind)
            .map_err(|e| self.fail(format!("array `{name}` is cut off: {e}")))?;
        let axes: Vec<i64> = (0..shape.len() as i64).rev().collect();
        Ok(if info.fortran { tensor.permute(&axes).contiguous() } else { tensor })
    }

    /// Reads a single text, as NumPy stores `numpy.array("text")`.
    ///
    /// # Errors
    /// Returns an error if there is no such array, or it does not hold texts.
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
        let bytes = self.data(index, LONGEST_TEXT).map_err(|e| {
            let message = format!("array `{name}`: {e}");
            NpzError { path: self.path.clone(), message, hints: vec![] }
        })?;
        let letters = bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
        Ok(letters.take_while(|&c| c != 0).filter_map(char::from_u32).collect())
    }

    /// At most this many bytes of an array's values.
    fn data(&mut self, array: usize, most: u64) -> io::Result<Vec<u8>> {
        let Member { index, head } = self.members[array];
        let mut member = self.archive.by_index(index)?;
        io::copy(&mut (&mut member).take(head), &mut io::sink())?;
        let mut bytes = vec![];
        (&mut member).take(most).read_to_end(&mut bytes)?;
        io::copy(&mut member, &mut io::sink())?; // its checksum is compared at its end
        Ok(bytes)
    }

    fn numbers(&self, info: &ArrayInfo) -> Result<Kind, NpzError> {
        let message = || format!("array `{}`: values of type {} are not known here", info.name, info.descr);
        info.kind.ok_or_else(|| self.fail(message()))
    }

    /// Opens an array to read its rows one at a time. A stored array is read in place; a compressed
    /// one is first written to an unnamed temporary file.
    ///
    /// # Errors
    /// Returns an error if there is no such array, it has no rows, or it cannot be read.
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

    /// File and offset of an array's C-ordered bytes.
    fn place(&mut self, array: usize, info: &ArrayInfo) -> io::Result<(File, u64)> {
        if info.fortran {
            let whole = self.read(&info.name).map_err(io::Error::other)?;
            let mut file = tempfile::tempfile()?;
            with_bytes(&whole, |bytes| file.write_all(bytes)).map_err(io::Error::other)??;
            return Ok((file, 0));
        }
        let Member { index, head } = self.members[array];
        let mut member = self.archive.by_index(index)?;
        // Read to its end, where its checksum is compared, also if its rows are then read in place.
        let damaged = |e: io::Error| io::Error::new(e.kind(), format!("damaged: {e}"));
        if member.compression() == CompressionMethod::Stored {
            let start = member.data_start() + head;
            io::copy(&mut BufReader::with_capacity(1 << 20, member), &mut io::sink()).map_err(damaged)?;
            return Ok((File::open(&self.path)?, start));
        }
        let mut file = tempfile::tempfile()?;
        let mut out = BufWriter::with_capacity(1 << 20, &mut file);
        io::copy(&mut (&mut member).take(head + info.bytes), &mut out)?;
        io::copy(&mut member, &mut io::sink()).map_err(damaged)?;
        out.flush()?;
        drop(out);
        Ok((file, head))
    }
}

impl Rows {
    /// The array.
    pub fn info(&self) -> &ArrayInfo {
        &self.info
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.info.shape[0] as usize
    }

    /// True if it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of row `index`, C order. `index` must be below [`Rows::len`].
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn bytes(&self, index: usize) -> Result<Vec<u8>, NpzError> {
        let size = self.info.bytes / self.info.shape[0].max(1) as u64;
        let mut row = vec![0; size as usize];
        let read = self.file.read_exact_at(&mut row, self.start + index as u64 * size);
        read.map_err(|e| {
            let message = format!("row {index} of array `{}`: {e}", self.info.name);
            NpzError { path: self.path.clone(), message, hints: vec![] }
        })?;
        Ok(row)
    }
}

/// Reads a `.npy` file of integers: int64, int32 or uint16, as int64.
///
/// # Errors
/// Returns an error if the file cannot be read, is cut off, or holds something else.
pub fn read_npy_integers(path: &Path) -> Result<Tensor, NpzError> {
    let read = || -> io::Result<Tensor> {
        let file = files::open_regular(path)?;
        let size = file.metadata()?.len();
        let mut reader = BufReader::new(file);
        let (info, head) = read_head(&mut reader, "")?;
        let width = match info.descr.as_str() {
            "<i8" => 8,
            "<i4" => 4,
            "<u2" => 2,
            other => return Err(io::Error::other(format!("expected int64, int32 or uint16, found {other}"))),
        };
        let mut bytes = vec![];
        reader.take(size - head).read_to_end(&mut bytes)?;
        let values = bytes.chunks_exact(width).map(|b| match *b {
            [a, b] => i64::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
            _ => i64::from_le_bytes(b.try_into().expect("8 bytes")),
        });
        let values: Vec<i64> = values.collect();
        let mut shape = info.shape;
        if shape.iter().product::<i64>() != values.len() as i64 {
            return Err(io::Error::other(format!(
                "its shape is {shape:?}, it holds {} values",
                values.len()
            )));
        }
        let axes: Vec<i64> = (0..shape.len() as i64).rev().collect();
        if info.fortran {
            shape.reverse();
        }
        let values = Tensor::from_slice(&values).view(shape.as_slice());
        Ok(if info.fortran { values.permute(&axes).contiguous() } else { values })
    };
    read().map_err(|e| NpzError {
        path: path.to_owned(),
        message: format!("not an array of codes: {e}"),
        hints: vec![],
    })
}

/// The longest text that is read, bytes.
const LONGEST_TEXT: u64 = 1 << 20;

/// True for what macOS adds to an archive beside the files that were put into it.
fn of_macos(name: &str) -> bool {
    name.starts_with("__MACOSX/") || name.rsplit('/').next().is_some_and(|n| n.starts_with("._"))
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
        let good = "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }";
        let members = [("a.npy", npy(1, dict, &[0; 8])), ("b.npy", npy(1, good, &[7]))];
        let short = archive(dir.path(), &members, CompressionMethod::Stored);
        let mut npz = Npz::open(&short).unwrap();
        assert_eq!(npz.read("b").unwrap(), Tensor::from_slice(&[7u8]), "a bad neighbour does no harm");
        for error in [npz.read("a").unwrap_err().to_string(), npz.rows("a").unwrap_err().to_string()] {
            assert!(error.contains("x.npz") && error.contains("`a`") && error.contains("cut off"), "{error}");
        }
        let objects = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }";
        let path = archive(dir.path(), &[("o.npy", npy(1, objects, &[0; 8]))], CompressionMethod::Stored);
        let error = Npz::open(&path).unwrap().read("o").unwrap_err().to_string();
        assert!(error.contains("`o`") && error.contains("|O"), "{error}");
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let path = archive(dir.path(), &[("b.npy", npy(1, good, &[7]))], method);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap() + 16;
            bytes[at] ^= 1; // of the checksum
            std::fs::write(&path, bytes).unwrap();
            let mut npz = Npz::open(&path).unwrap();
            for error in [npz.read("b").unwrap_err().to_string(), npz.rows("b").unwrap_err().to_string()] {
                assert!(error.contains("`b`") && error.contains("damaged: Invalid checksum"), "{error}");
            }
        }
        std::fs::write(&path, b"no zip at all").unwrap();
        assert!(Npz::open(&path).is_err());
    }

    #[test]
    fn heads_of_other_makers_are_read_and_hostile_ones_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let shape = |s: &str| format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {s}, }}");
        let python2 = npy(1, &shape("(2L, 1L)"), &[5, 6]);
        let members = [("__MACOSX/._a.npy", b"\0\x05\x16\x07".to_vec()), ("a.npy", python2)];
        let path = archive(dir.path(), &members, CompressionMethod::Stored);
        let mut npz = Npz::open(&path).unwrap();
        assert_eq!(npz.rows("a").unwrap().bytes(1).unwrap(), [6]);
        assert_eq!(npz.arrays().len(), 1);

        let deep = format!("{}1{}", "(".repeat(30_000), ")".repeat(30_000));
        let hostile = [
            ("(4611686018427387904, 4, 4, 3)", "more than a file can hold"),
            ("(18446744073709551615,)", "more than a file can hold"),
            (&deep, "expected a tuple of whole numbers"),
        ];
        for (text, expected) in hostile {
            let path =
                archive(dir.path(), &[("a.npy", npy(2, &shape(text), &[0; 8]))], CompressionMethod::Stored);
            let error = Npz::open(&path).unwrap_err().to_string();
            assert!(error.contains("x.npz") && error.contains("`a`") && error.contains(expected), "{error}");
        }
        // A member that claims more than its compressed bytes can hold, in the archive's directory.
        let zeros = npy(1, &shape("(1000000,)"), &[0; 1_000_000]);
        let path = archive(dir.path(), &[("a.npy", zeros)], CompressionMethod::Deflated);
        let mut bomb = std::fs::read(&path).unwrap();
        let at = bomb.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap() + 24;
        bomb[at..at + 4].copy_from_slice(&0x7FFF_FFFFu32.to_le_bytes());
        std::fs::write(&path, bomb).unwrap();
        let error = Npz::open(&path).unwrap_err().to_string();
        assert!(error.contains("claims more bytes than its compressed ones can hold"), "{error}");
        // The same of one that is stored: both of its sizes are claimed.
        let path =
            archive(dir.path(), &[("a.npy", npy(1, &shape("(8,)"), &[0; 8]))], CompressionMethod::Stored);
        let mut liar = std::fs::read(&path).unwrap();
        let at = liar.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap() + 20;
        liar[at..at + 8].copy_from_slice(&0x7FFF_FFFF_7FFF_FFFFu64.to_le_bytes());
        std::fs::write(&path, liar).unwrap();
        let error = Npz::open(&path).unwrap_err().to_string();
        assert!(error.contains("claims 2147483647 bytes that reach beyond the file's"), "{error}");
        let mut long = npy(2, &shape("(1,)"), &[0; 8]);
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let path = archive(dir.path(), &[("a.npy", long)], CompressionMethod::Stored);
        assert!(Npz::open(&path).unwrap_err().to_string().contains("its head claims 4294967295 bytes"));
    }
}
