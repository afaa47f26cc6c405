//! A folder of a test's own, and `gen` running in it.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// The folder, and what every command line of the test begins and ends with.
pub struct Place {
    dir: TempDir,
    before: &'static str,
    after: &'static str,
}

impl Place {
    /// An empty folder; each command is `gen {before} … {after}`.
    pub fn new(before: &'static str, after: &'static str) -> Self {
        Place { dir: tempfile::tempdir().unwrap(), before, after }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes an image, and the folders above it.
    pub fn picture(&self, name: &str, (width, height): (u32, u32), pixel: impl Fn(u32, u32) -> [u8; 3]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb(pixel(x, y))).save(path).unwrap();
    }

    /// The command of a line; nothing of the machine's own models plays a part.
    pub fn command(&self, line: &str) -> Command {
        Command::from_std(self.process(line))
    }

    /// The same, to be started and left running.
    pub fn process(&self, line: &str) -> std::process::Command {
        self.gen_with(&[self.before, line, self.after])
    }

    fn gen_with(&self, parts: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gen"));
        command
            .current_dir(self.dir())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("GEN_MODELS")
            .env_remove("GEN_WEIGHTS");
        command.env("OMP_NUM_THREADS", "1");
        command.args(parts.iter().flat_map(|part| part.split_whitespace()));
        command
    }

    /// Runs a line without the place's common arguments.
    pub fn other(&self, line: &str) -> Output {
        self.gen_with(&[line]).output().unwrap()
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs a line that must succeed; returns its stdout.
    pub fn ok(&self, line: &str) -> String {
        let out = self.run(line);
        assert!(out.status.success(), "{line}: {}", stderr(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Runs a line that must end with `code`; returns its JSON.
    pub fn json(&self, line: &str, code: i32) -> Value {
        let out = self.run(&format!("{line} --json"));
        assert_eq!(out.status.code(), Some(code), "{line}: {}", stderr(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Runs a line that must end with `code`; returns its messages and stdout.
    pub fn said(&self, line: &str, code: i32) -> String {
        let out = self.run(line);
        let said = stderr(&out) + &String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(code), "{line}: {said}");
        said
    }

    /// Runs a line that must fail and print nothing to stdout; returns its messages.
    pub fn fails(&self, line: &str) -> String {
        let out = self.run(line);
        assert_eq!(out.status.code(), Some(2), "{line}: {}", stderr(&out));
        assert!(out.stdout.is_empty(), "{line}");
        stderr(&out)
    }
}

pub fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// The bytes of an image file.
pub fn pixels(path: &Path) -> Vec<u8> {
    image::open(path).unwrap().to_rgb8().into_raw()
}
