//! Path from stored images to a network's input: the largest source of differences between
//! published numbers.

use std::str::FromStr;

use crate::{Error, Result};

/// A way from 8-bit images of any size to a network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputPath {
    /// TensorFlow 1's bilinear resize in fp32: ADM's evaluator, torch-fidelity.
    Tf,
    /// Half-pixel bilinear resize without antialias: pytorch-fid.
    Pf,
    /// Pillow's antialiased bicubic resize of floating channels, not rounded: clean-fid.
    Clean,
    /// Pillow's antialiased bicubic resize of the 8-bit image, the sides stretched independently:
    /// dgm-eval.
    Pil,
    /// Pillow's bicubic resize of the short side, then the centre square: CLIP's own.
    Clip,
    /// The centre square, then Pillow's bicubic resize: CMMD.
    Cmmd,
    /// The stored pixels at their own size.
    Stored,
}

impl InputPath {
    /// All variants.
    pub const ALL: [InputPath; 7] = [
        InputPath::Tf,
        InputPath::Pf,
        InputPath::Clean,
        InputPath::Pil,
        InputPath::Clip,
        InputPath::Cmmd,
        InputPath::Stored,
    ];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            InputPath::Tf => "tf",
            InputPath::Pf => "pf",
            InputPath::Clean => "clean",
            InputPath::Pil => "pil",
            InputPath::Clip => "clip",
            InputPath::Cmmd => "cmmd",
            InputPath::Stored => "stored",
        }
    }

    /// The path itself if it is one of `allowed`, else what may be chosen.
    ///
    /// # Errors
    /// Returns an error if the network has no such input path.
    pub fn among(self, allowed: &[InputPath]) -> Result<InputPath> {
        if allowed.contains(&self) { Ok(self) } else { Err(unknown(self.name(), allowed)) }
    }
}

impl std::fmt::Display for InputPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for InputPath {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        InputPath::ALL.into_iter().find(|p| p.name() == s).ok_or_else(|| unknown(s, &InputPath::ALL))
    }
}

fn unknown(found: &str, choices: &[InputPath]) -> Error {
    let names: Vec<&str> = choices.iter().map(|p| p.name()).collect();
    Error::Unknown { what: "input path", found: found.into(), choices: names.join(", ") }
}
