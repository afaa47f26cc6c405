//! A tokenizer that reconstructs.

use anyhow::Result;
use base::{Codes, Images, Precision};
use cli::eval::RunArgs;
use generate::{Location, locate};
use settings::ModelChoice;
use tch::Device;
use tokenizer::Tokenizer as _;

use crate::context::Context;
use crate::resolve::device;

/// A tokenizer that encodes and decodes.
pub struct Reconstructor {
    tokenizer: tokenizer::Loaded,
    device: Device,
}

impl Reconstructor {
    /// Opens the tokenizer.
    pub fn open(args: &RunArgs, context: &Context) -> Result<Self> {
        let given = ModelChoice {
            name: args.tokenizer.tokenizer.clone().or(args.model.model.clone()),
            weights: args.tokenizer.tokenizer_weights.clone(),
        };
        let device = device::resolve(&args.compute.device)?;
        Self::load(&locate::tokenizer(&given)?, device, args.compute.precision, context)
    }

    /// Opens the tokenizer at a place.
    pub fn load(at: &Location, device: Device, precision: Precision, context: &Context) -> Result<Self> {
        let tokenizer = at.open_tokenizer(device, precision, &mut context.printer.clone())?;
        Ok(Reconstructor { tokenizer, device })
    }

    /// The side of its images.
    pub fn side(&self) -> u32 {
        u32::try_from(self.tokenizer.model.spec().image_size).unwrap_or(u32::MAX)
    }

    /// Entries of its codebook.
    pub fn codebook_size(&self) -> i64 {
        self.tokenizer.model.spec().codebook_size
    }

    /// Fingerprint of the weights.
    pub fn fingerprint(&self) -> Result<String> {
        Ok(self.tokenizer.fingerprint()?)
    }

    /// The codes of images, on the tokenizer's device.
    pub fn encode(&self, images: &Images) -> Result<Codes> {
        Ok(self.tokenizer.model.encode(&Images::new(images.tensor().to_device(self.device))?)?)
    }

    /// Reconstructions of images (on the CPU, not clamped), and their codes.
    pub fn run(&self, images: &Images) -> Result<(Images, Codes)> {
        let codes = self.encode(images)?;
        let decoded = self.tokenizer.model.decode(&codes)?.into_tensor().to_kind(tch::Kind::Float);
        let codes = Codes::new(codes.tensor().to_device(Device::Cpu))?;
        Ok((Images::new(decoded.to_device(Device::Cpu))?, codes))
    }
}
