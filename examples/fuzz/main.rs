//! Runs readers on mutated files of their corpus, with a plain mutator and without nightly Rust:
//! `cargo run --release --example fuzz -- READER INPUTS [SEED]`. Prints one line: inputs, accepted
//! ones, seconds, the slowest input and the process's peak memory. An input that panics or takes
//! over a second is kept. `fuzz/` has the same readers for `cargo fuzz`.
#![allow(clippy::print_stdout)]

mod readers;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::readers::{READERS, Reader};

/// Larger pictures would take all the time.
const MAX_PIXELS: u64 = 1 << 20;
/// An input that takes longer is worth a look.
const SLOW: Duration = Duration::from_secs(1);

fn main() {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let inputs: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let seed: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let reader = READERS.iter().find(|r| r.name == name).unwrap_or_else(|| {
        let names: Vec<&str> = READERS.iter().map(|r| r.name).collect();
        panic!("no reader `{name}`; there are {}", names.join(", "))
    });
    data::set_max_pixels(MAX_PIXELS);
    std::panic::set_hook(Box::new(|_| ())); // decoders' panics are caught by the readers; others end the run below
    println!("{}", run(reader, inputs, seed));
}

fn run(reader: &Reader, inputs: u64, seed: u64) -> String {
    let corpus = corpus(reader.name);
    let dir = tempfile::tempdir_in(in_memory()).expect("a folder for the inputs");
    let path = dir.path().join(reader.file);
    let mut random = Random(seed);
    let (mut accepted, mut slowest, mut slow) = (0u64, Duration::ZERO, String::new());
    let keep = |input: u64, bytes: &[u8]| {
        let kept = std::env::temp_dir().join(format!("fuzz-{}-{seed}-{input}", reader.name));
        std::fs::write(&kept, bytes).expect("the input can be kept");
        format!("input {input}, kept as {}", kept.display())
    };
    let start = Instant::now();
    for input in 0..inputs {
        let bytes = mutated(reader.name, &corpus, &mut random);
        std::fs::write(&path, &bytes).expect("the input can be written");
        let begun = Instant::now();
        match std::panic::catch_unwind(|| (reader.read)(&path)) {
            Ok(good) => accepted += u64::from(good),
            Err(_) => return format!("{}: PANIC at {}", reader.name, keep(input, &bytes)),
        }
        let taken = begun.elapsed();
        if taken > slowest && taken > SLOW {
            slow = format!(" ({})", keep(input, &bytes));
        }
        slowest = slowest.max(taken);
    }
    let seconds = start.elapsed().as_secs_f64();
    format!(
        "{}: {inputs} inputs, {accepted} accepted, {seconds:.0} s, slowest {:.0} ms{slow}, peak {} MB",
        reader.name,
        slowest.as_secs_f64() * 1e3,
        peak_kilobytes() / 1024
    )
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|path| std::fs::read(path).expect("a file of the corpus")).collect()
}

/// Files that exist for microseconds need no disk.
fn in_memory() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() { shared } else { std::env::temp_dir() }
}

fn peak_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Numbers at which arithmetic goes wrong.
const EDGES: [u64; 10] =
    [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x7FFF_FFFF_FFFF_FFFF, u64::MAX];

/// A file of the corpus after a few changes.
fn mutated(reader: &str, corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len() + 1);
        match random.below(9) {
            0..=2 => {
                let new = random.next() as u8;
                bytes.iter_mut().skip(at).take(1).for_each(|b| *b = new);
            }
            3 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << random.below(8)),
            4 => {
                let (edge, width) = (EDGES[random.below(EDGES.len())], 1 << random.below(4));
                let number = if random.below(2) == 0 { edge.to_le_bytes() } else { edge.to_be_bytes() };
                bytes.iter_mut().skip(at).zip(&number[..width]).for_each(|(b, n)| *b = *n);
            }
            5 => {
                let end = (at + random.below(32)).min(bytes.len());
                bytes.drain(at..end);
            }
            6 => {
                let end = (at + random.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            7 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            _ => bytes.truncate(at),
        }
    }
    match reader {
        // Half of them with sums that are right, or a change would seldom come past them.
        "tar" if random.below(2) == 0 => right_tar(&mut bytes),
        "png" if random.below(2) == 0 => right_png(&mut bytes),
        _ => {}
    }
    bytes
}

fn right_tar(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fn right_png(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().expect("4 bytes")) as usize;
        let end = at.saturating_add(8).saturating_add(length);
        let Some(chunk) = bytes.get(at + 4..end).filter(|_| end + 4 <= bytes.len()) else { return };
        let mut crc = !0u32;
        for &byte in chunk {
            crc ^= u32::from(byte);
            (0..8).for_each(|_| crc = (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1)));
        }
        bytes[end..end + 4].copy_from_slice(&(!crc).to_be_bytes());
        at = end + 4;
    }
}
