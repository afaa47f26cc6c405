//! Event files as TensorBoard reads them: TFRecords of protocol buffers.
//!
//! A record is its length (u64), a checksum of the length, the message, and a checksum of the
//! message; a checksum is CRC-32C, rotated and shifted by a constant (TensorFlow
//! `lib/io/record_writer.cc`, `lib/hash/crc32c.h`). The messages are the part of TensorFlow's
//! `event.proto` and `summary.proto` that scalars need.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::{Error, Result};

/// `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// The training step.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// In the first event of a file: `brain.Event:2`.
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    /// Scalars.
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// One entry a scalar.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// The scalar's name; a prefix before `/` is its group.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// Its value.
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
}

const PREFIX: &str = "events.out.tfevents.";

/// Appends scalars to a new event file, beside those of earlier starts of the same run.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Creates a file in `run` for a run after `step`. Records that a killed process wrote after
    /// that step or left incomplete are first cut off the older files.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, cut or created.
    pub fn open(run: &Path, step: u64) -> Result<Self> {
        for old in event_files(run)? {
            cut(&old, step)?;
        }
        let now = wall_time();
        let (path, file) = (0..)
            .map(|n| run.join(format!("{PREFIX}{:010}.{}.{n}", now as u64, std::process::id())))
            .find_map(|path| match OpenOptions::new().create_new(true).append(true).open(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => None,
                other => Some((path, other)),
            })
            .expect("one of endlessly many names is free");
        let file = file.map_err(Error::file("create", &path))?;
        let mut writer = EventWriter { path, file };
        let version = Some("brain.Event:2".to_owned());
        writer.append(&Event { wall_time: now, step: 0, file_version: version, summary: None })?;
        Ok(writer)
    }

    /// Appends the scalars of one step.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        let value = |(tag, v): &(String, f64)| Value { tag: tag.clone(), simple_value: Some(*v as f32) };
        let summary = Some(Summary { value: scalars.iter().map(value).collect() });
        self.append(&Event { wall_time: wall_time(), step: step as i64, file_version: None, summary })
    }

    /// Writes in one call, so that a killed process leaves at most one incomplete record.
    fn append(&mut self, event: &Event) -> Result<()> {
        self.file.write_all(&record(&event.encode_to_vec())).map_err(Error::file("write", &self.path))
    }
}

/// The event files of a run, oldest first.
///
/// # Errors
/// Returns an error if the folder cannot be read.
pub fn event_files(run: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in std::fs::read_dir(run).map_err(Error::file("read", run))? {
        let entry = entry.map_err(Error::file("read", run))?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The complete records of an event file, each with its end offset. Reading stops at the first
/// record that is incomplete or has a wrong checksum.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<(Event, u64)>> {
    let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    let (mut events, mut at) = (vec![], 0);
    while let Some((message, end)) = next_record(&bytes, at) {
        let Ok(event) = Event::decode(message) else { break };
        events.push((event, end as u64));
        at = end;
    }
    Ok(events)
}

/// Truncates a file after its last record of a step up to `step`; steps only grow within a file.
fn cut(path: &Path, step: u64) -> Result<()> {
    let kept = read(path)?.into_iter().take_while(|(event, _)| event.step <= step as i64);
    let end = kept.last().map_or(0, |(_, end)| end);
    let file = OpenOptions::new().write(true).open(path).map_err(Error::file("write", path))?;
    if file.metadata().map_err(Error::file("read", path))?.len() != end {
        file.set_len(end).map_err(Error::file("write", path))?;
    }
    Ok(())
}

fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), message, &masked(message)].concat()
}

fn next_record(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = bytes.get(at..at + 8)?;
    let size = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let start = at + 12;
    let end = start.checked_add(size)?.checked_add(4)?;
    let message = bytes.get(start..end - 4)?;
    let whole = bytes[at + 8..start] == masked(length) && *bytes.get(end - 4..end)? == masked(message);
    whole.then_some((message, end))
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first record of every file that TensorBoard's own writer makes, but for the time.
    #[test]
    fn a_record_is_laid_out_as_tensorflow_does() {
        let version = Some("brain.Event:2".to_owned());
        let event = Event { wall_time: 0.0, step: 0, file_version: version, summary: None };
        let bytes = record(&event.encode_to_vec());
        assert_eq!(bytes[..8], 15u64.to_le_bytes());
        assert_eq!(&bytes[12..27], b"\x1a\x0dbrain.Event:2");
        // RFC 3720's example: CRC-32C of 32 zero bytes.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(
            masked(&[0; 32]),
            (0x8a91_36aau32.rotate_right(15).wrapping_add(0xa282_ead8)).to_le_bytes()
        );
    }

    #[test]
    fn a_restart_cuts_what_came_after_its_step_and_what_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::open(dir.path(), 0).unwrap();
        for step in 1..=5 {
            writer.write(step, &[("loss".into(), step as f64), ("lr".into(), 0.5)]).unwrap();
        }
        drop(writer);
        let first = event_files(dir.path()).unwrap().remove(0);
        let whole = std::fs::read(&first).unwrap();
        std::fs::write(&first, &whole[..whole.len() - 3]).unwrap();
        assert_eq!(read(&first).unwrap().len(), 5, "the version and four steps");

        let mut writer = EventWriter::open(dir.path(), 3).unwrap();
        writer.write(4, &[("loss".into(), 40.0)]).unwrap();
        let files = event_files(dir.path()).unwrap();
        let steps: Vec<i64> =
            files.iter().flat_map(|f| read(f).unwrap()).map(|(e, _)| e.step).filter(|s| *s > 0).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        // A flipped bit ends what is believed.
        let mut bytes = std::fs::read(&files[0]).unwrap();
        let last = bytes.len() - 6;
        bytes[last] ^= 1;
        std::fs::write(&files[0], bytes).unwrap();
        assert_eq!(read(&files[0]).unwrap().len(), 3);
    }
}
