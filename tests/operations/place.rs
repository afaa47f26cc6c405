//! A folder with a few pictures, and runs of a tiny tokenizer in it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A tokenizer of 16×16 images that takes a few milliseconds a step.
pub const TINY: &[&str] = &[
    "model.image_size=16",
    "model.latent.num_tokens=16",
    "model.cnn={channels: 8, norm_groups: 4, encoder_multipliers: [1, 1, 1], decoder_multipliers: [1, 1, 1], \
     res_blocks: 1, z_channels: 8, attention: false, adaptive_norm: true, upsample: depth_to_space}",
    "model.encoder={width: 16, layers: 1, heads: 2}",
    "model.decoder={width: 16, layers: 1, heads: 2}",
    "model.quantizer.codebook_size=32",
    "losses.adversarial=null",
    "optimization.batch_size=4",
    "optimization.warmup=2",
];

pub struct Place(pub TempDir);

impl Place {
    pub fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    /// Eight pictures in two class folders, `images/`.
    pub fn with_pictures() -> Self {
        let place = Place::new();
        for i in 0..8u32 {
            let class = place.path("images").join(["n01443537", "n02099601"][i as usize % 2]);
            std::fs::create_dir_all(&class).unwrap();
            let picture =
                image::RgbImage::from_fn(18, 20, |x, y| image::Rgb([(9 * x + 30 * i) as u8, y as u8, 70]));
            picture.save(class.join(format!("{i}.png"))).unwrap();
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, line: &str, changes: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gen"));
        command.current_dir(self.0.path()).args(line.split_whitespace()).args(changes);
        if line.starts_with("train") {
            command.args(["--device", "cpu", "--threads", "1"]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// stdout and stderr of a command that ends with this code.
    pub fn ends(&self, code: i32, line: &str, changes: &[&str]) -> (String, String) {
        let out: Output = self.command(line, changes).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "{line}: {stderr}");
        (stdout, stderr)
    }
}
