//! A folder with a few pictures, and runs of a tiny tokenizer in it.

use std::ops::Deref;
use std::process::{Command, Stdio};

use super::{Place, stderr};

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

/// A [`Place`] whose commands take changes to a recipe.
pub struct TrainingPlace(Place);

impl Deref for TrainingPlace {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl TrainingPlace {
    pub fn new() -> Self {
        TrainingPlace(Place::new("", ""))
    }

    /// Eight pictures in two class folders, `images/`.
    pub fn with_pictures() -> Self {
        let place = TrainingPlace::new();
        for i in 0..8u32 {
            let class = ["n01443537", "n02099601"][i as usize % 2];
            place.picture(&format!("images/{class}/{i}.png"), (18, 20), |x, y| {
                [(9 * x + 30 * i) as u8, y as u8, 70]
            });
        }
        place
    }

    pub fn command(&self, line: &str, changes: &[&str]) -> Command {
        let mut command = self.process(line);
        command.args(changes).stdout(Stdio::piped()).stderr(Stdio::piped());
        if line.starts_with("train") {
            command.args(["--device", "cpu", "--threads", "1"]);
        }
        command
    }

    /// stdout and stderr of a command that ends with this code.
    pub fn ends(&self, code: i32, line: &str, changes: &[&str]) -> (String, String) {
        let out = self.command(line, changes).output().unwrap();
        let said = stderr(&out);
        assert_eq!(out.status.code(), Some(code), "{line}: {said}");
        (String::from_utf8_lossy(&out.stdout).into_owned(), said)
    }

    /// Runs a command that must fail; returns its messages.
    pub fn refuses(&self, line: &str, changes: &[&str]) -> String {
        self.ends(2, line, changes).1
    }

    /// The bytes of a run's weights.
    pub fn weights(&self, run: &str) -> Vec<u8> {
        std::fs::read(self.path(run).join("weights.safetensors")).unwrap()
    }
}
