//! Values whose range is part of the type.

use tch::{Kind, Tensor};

/// Error about a tensor whose shape or dtype is not that of its type.
#[derive(Debug, thiserror::Error)]
#[error("{what}: expected {expected}, found shape {shape:?} of {kind:?}")]
pub struct TypeError {
    what: &'static str,
    expected: &'static str,
    shape: Vec<i64>,
    kind: Kind,
}

fn check(what: &'static str, expected: &'static str, t: &Tensor, ok: bool) -> Result<(), TypeError> {
    if ok { Ok(()) } else { Err(TypeError { what, expected, shape: t.size(), kind: t.kind() }) }
}

/// RGB images as models see them: (B, 3, H, W), floating, nominally in [-1, 1] (decoders do not
/// clamp).
#[derive(Debug)]
pub struct Images(Tensor);

/// RGB images as files and metrics see them: (B, 3, H, W), uint8.
#[derive(Debug)]
pub struct ImagesU8(Tensor);

/// Discrete codes: (B, N), int64, each in `0..codebook_size` of the tokenizer that made them.
#[derive(Debug)]
pub struct Codes(Tensor);

impl Images {
    /// Wraps a floating (B, 3, H, W) tensor in [-1, 1].
    pub fn new(t: Tensor) -> Result<Self, TypeError> {
        let s = t.size();
        let ok = s.len() == 4 && s[1] == 3 && matches!(t.kind(), Kind::Float | Kind::BFloat16 | Kind::Half);
        check("images", "floating (B, 3, H, W)", &t, ok)?;
        Ok(Images(t))
    }

    /// The one rounding rule in the project: `clamp(127.5 x + 128, 0, 255)`, truncated (GigaTok
    /// `sample_c2i_ddp.py`). It maps an 8-bit image read with [`ImagesU8::to_float`] back to
    /// itself.
    pub fn to_u8(&self) -> ImagesU8 {
        let scaled = self.0.to_kind(Kind::Float) * 127.5 + 128.0;
        ImagesU8(scaled.clamp(0.0, 255.0).to_kind(Kind::Uint8))
    }

    /// The tensor inside.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// Gives the tensor up.
    pub fn into_tensor(self) -> Tensor {
        self.0
    }
}

impl ImagesU8 {
    /// Wraps a uint8 (B, 3, H, W) tensor.
    pub fn new(t: Tensor) -> Result<Self, TypeError> {
        let s = t.size();
        check("images", "uint8 (B, 3, H, W)", &t, s.len() == 4 && s[1] == 3 && t.kind() == Kind::Uint8)?;
        Ok(ImagesU8(t))
    }

    /// `(x / 255 - 0.5) / 0.5` in fp32: torchvision's `ToTensor` and `Normalize(0.5, 0.5)`.
    pub fn to_float(&self) -> Images {
        Images((self.0.to_kind(Kind::Float) / 255.0 - 0.5) / 0.5)
    }

    /// The tensor inside.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// Gives the tensor up.
    pub fn into_tensor(self) -> Tensor {
        self.0
    }
}

impl Codes {
    /// Wraps an int64 (B, N) tensor.
    pub fn new(t: Tensor) -> Result<Self, TypeError> {
        check("codes", "int64 (B, N)", &t, t.dim() == 2 && t.kind() == Kind::Int64)?;
        Ok(Codes(t))
    }

    /// The tensor inside.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// Gives the tensor up.
    pub fn into_tensor(self) -> Tensor {
        self.0
    }

    /// The smallest and largest code, for range checks at public edges. Empty codes give `None`.
    pub fn range(&self) -> Option<(i64, i64)> {
        (self.0.numel() > 0).then(|| (self.0.min().int64_value(&[]), self.0.max().int64_value(&[])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_8_bit_value_survives_the_round_trip() {
        let all = Tensor::arange(256, (Kind::Uint8, tch::Device::Cpu))
            .view([1, 1, 16, 16])
            .expand([1, 3, 16, 16], false);
        let back = ImagesU8::new(all.copy()).unwrap().to_float().to_u8();
        assert_eq!(back.tensor(), &all);
    }

    #[test]
    fn wrong_shapes_are_refused_with_what_was_found() {
        let e =
            Images::new(Tensor::zeros([3, 8, 8], (Kind::Float, tch::Device::Cpu))).unwrap_err().to_string();
        assert!(e.contains("[3, 8, 8]"), "{e}");
    }
}
