//! `.npz` files of generated images, written a batch at a time and resumed after an interruption.
//!
//! During a run, `x.npz.partial` holds the pixels so far and `x.npz.partial.json` what they
//! were made with. At the end both become `x.npz` (key `arr_0`, uint8, N × H × W × 3,
//! uncompressed), the form that the ADM evaluation suite reads.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base::npz::npy_header;
use base::resume::{Claim, ClaimError};
use serde_json::Value;
use tempfile::NamedTempFile;
use zip::CompressionMethod;
use zip::result::ZipResult;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::error::{Error, Result};
use crate::files;

/// An unfinished `.npz`.
#[derive(Debug)]
pub struct NpzRun {
    target: PathBuf,
    pixels: File,
    shape: [u64; 3], // H, W, 3
    done: u64,
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl NpzRun {
    /// Starts `target`, or resumes it where the same run (`description`) was interrupted. Images
    /// are `size` × `size` pixels.
    ///
    /// # Errors
    /// Returns an error if the parts belong to another run, another process writes them, or they
    /// cannot be written.
    pub fn open(target: &Path, description: &Value, size: u64) -> Result<Self> {
        let (raw, note) = (with_suffix(target, ".partial"), with_suffix(target, ".partial.json"));
        let mut pixels = locked(target, &raw)?;
        let claim = Claim::new(note.clone(), description);
        if !claim.resumes().map_err(|refusal| other_run(target, [&raw, &note], refusal))? {
            pixels.set_len(0).map_err(Error::write(&raw))?;
            claim.write()?;
        }
        let shape = [size, size, 3];
        let bytes: u64 = shape.iter().product();
        let done = pixels.metadata().map_err(Error::read(&raw))?.len() / bytes;
        // An image cut off by the interruption is drawn again.
        let truncated = pixels.set_len(done * bytes).and_then(|()| pixels.seek(SeekFrom::End(0)));
        truncated.map_err(Error::write(&raw))?;
        Ok(NpzRun { target: target.to_owned(), pixels, shape, done })
    }

    /// Number of images written so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Appends whole images, H × W × 3 bytes each.
    ///
    /// # Errors
    /// Returns an error if they cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let each: u64 = self.shape.iter().product();
        debug_assert_eq!(bytes.len() as u64 % each, 0);
        let what = || format!("cannot write `{}` (what is there is kept)", self.target.display());
        self.pixels.write_all(bytes).and_then(|()| self.pixels.sync_data()).map_err(Error::io(what))?;
        self.done += bytes.len() as u64 / each;
        Ok(())
    }

    /// Makes the `.npz` of the images written and removes the parts. Returns its path.
    ///
    /// # Errors
    /// Returns an error if it cannot be written; the parts are kept then.
    pub fn finish(mut self) -> Result<PathBuf> {
        let file = files::temporary_for(&self.target)?;
        let file = self.zip(file).map_err(|source| Error::Zip { target: self.target.clone(), source })?;
        files::publish(file, &self.target)?;
        for suffix in [".partial", ".partial.json"] {
            let part = with_suffix(&self.target, suffix);
            let what = || format!("cannot remove `{}`", part.display());
            std::fs::remove_file(&part).map_err(Error::io(what))?;
        }
        Ok(self.target)
    }

    fn zip(&mut self, file: NamedTempFile) -> ZipResult<NamedTempFile> {
        self.pixels.seek(SeekFrom::Start(0))?;
        let mut zip = ZipWriter::new(BufWriter::new(file));
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
        zip.start_file("arr_0.npy", options)?;
        let [h, w, c] = self.shape;
        zip.write_all(&npy_header("|u1", &[self.done, h, w, c]))?;
        std::io::copy(&mut BufReader::with_capacity(1 << 20, &self.pixels), &mut zip)?;
        Ok(zip.finish()?.into_inner().map_err(|e| e.into_error())?)
    }
}

/// The file of the pixels, held by this process alone until it is closed.
fn locked(target: &Path, raw: &Path) -> Result<File> {
    loop {
        let opened = OpenOptions::new().create(true).write(true).read(true).truncate(false).open(raw);
        let file = opened.map_err(Error::write(raw))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { target: target.to_owned() }),
            // Some network file systems do not support locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // The process that had it may just have finished and removed it.
        let there = std::fs::metadata(raw).ok().map(|m| (m.dev(), m.ino()));
        let here = file.metadata().map_err(Error::write(raw))?;
        if there == Some((here.dev(), here.ino())) {
            return Ok(file);
        }
    }
}

fn other_run(target: &Path, parts: [&Path; 2], refusal: ClaimError) -> Error {
    let difference = match refusal {
        ClaimError::Differs { keys, .. } => format!("these differ: {}", keys.join(", ")),
        ClaimError::Malformed { path, .. } => format!("`{}` cannot be read", path.display()),
        refusal => return refusal.into(),
    };
    Error::OtherRun { target: target.to_owned(), difference, parts: parts.map(Path::to_owned) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::provenance::{GpuSettings, example};

    #[test]
    fn an_interrupted_run_continues_and_ends_with_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let description = json!({"seed": 1});
        let images: Vec<u8> = (0..5 * 12).collect();
        let whole = dir.path().join("whole.npz");
        let mut run = NpzRun::open(&whole, &description, 2).unwrap();
        run.append(&images).unwrap();
        run.finish().unwrap();

        let cut = dir.path().join("cut.npz");
        let mut run = NpzRun::open(&cut, &description, 2).unwrap();
        run.append(&images[..24]).unwrap();
        run.pixels.write_all(&images[24..29]).unwrap(); // killed in the middle of an image
        drop(run);
        assert!(!cut.exists());
        let mut run = NpzRun::open(&cut, &description, 2).unwrap();
        assert_eq!(run.done(), 2);
        run.append(&images[24..]).unwrap();
        run.finish().unwrap();

        let bytes = std::fs::read(&cut).unwrap();
        assert_eq!(bytes, std::fs::read(&whole).unwrap());
        let npy = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        assert_eq!(npy.file_names().collect::<Vec<_>>(), ["arr_0.npy"]);
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "no parts are left: {left:?}");
    }

    #[test]
    fn a_second_process_is_refused_until_the_first_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x.npz");
        let mut run = NpzRun::open(&target, &json!({"seed": 1}), 2).unwrap();
        run.append(&[7; 12]).unwrap();
        for description in [json!({"seed": 1}), json!({"seed": 2})] {
            let error = NpzRun::open(&target, &description, 2).unwrap_err().to_string();
            assert!(error.contains("another process is writing"), "{error}");
        }
        drop(run);
        assert_eq!(NpzRun::open(&target, &json!({"seed": 1}), 2).unwrap().done(), 1);
    }

    #[test]
    fn another_runs_parts_are_refused_by_what_differs() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x.npz");
        drop(NpzRun::open(&target, &json!({"seed": 1, "size": 2}), 2).unwrap());
        let e = NpzRun::open(&target, &json!({"seed": 2, "size": 2}), 2).unwrap_err().to_string();
        assert!(e.ends_with("these differ: seed"), "{e}");
    }

    /// Each flag that decides how a GPU computes, set in one run alone, whichever was first.
    #[test]
    fn an_npz_is_not_continued_with_other_numerics_of_a_gpu() {
        let dir = tempfile::tempdir().unwrap();
        let run = |gpu| serde_json::to_value(example(gpu).run).unwrap();
        let plain = run(GpuSettings::default());
        for (i, gpu) in GpuSettings::each().into_iter().enumerate() {
            for (name, first, second) in [("a", &plain, &run(gpu)), ("b", &run(gpu), &plain)] {
                let target = dir.path().join(format!("{name}{i}.npz"));
                drop(NpzRun::open(&target, first, 2).unwrap());
                let e = NpzRun::open(&target, second, 2).unwrap_err().to_string();
                assert!(e.ends_with("these differ: gpu"), "{e}");
                NpzRun::open(&target, first, 2).unwrap();
            }
        }
    }
}
