//! A file that holds tensors itself, read by the format that its first bytes show.

use std::io::Read;
use std::path::Path;

use crate::parsed::{Format, Parsed};
use crate::{Error, Result, recognise, safetensors, torch_file};

/// First bytes of a file.
pub(crate) fn head_of(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let file = base::files::open_regular(path).map_err(Error::read(path))?;
    file.take(512).read_to_end(&mut head).map_err(Error::read(path))?;
    Ok(head)
}

/// Reads a file's table of contents.
pub(crate) fn parse_file(path: &Path) -> Result<Parsed> {
    let head = head_of(path)?;
    let map = || libtorch_ext::mmap::open(path).map_err(Error::read(path));
    if head.starts_with(b"PK\x03\x04") {
        return torch_file::open_zip(path, map()?);
    }
    if torch_file::recognise_legacy(&head) {
        return torch_file::open_legacy(path, map()?);
    }
    if safetensors::recognise(&head) {
        return Ok(bare(Format::Safetensors, safetensors::open(path, map()?)?));
    }
    let (found, advice) = recognise::describe(&head);
    Err(Error::NotACheckpoint { path: path.to_owned(), found, advice })
}

fn bare(format: Format, contents: safetensors::Contents) -> Parsed {
    let safetensors::Contents { blobs, entries, metadata } = contents;
    Parsed { format, blobs, sections: vec![(None, entries)], metadata, not_shown: vec![] }
}
