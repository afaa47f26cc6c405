//! The released configurations, so that a file that does not fit one of them can be told from the others.

use base::config::Document;
use base::{Build, Vars};
use tch::{Device, Kind};
use weights::Signature;

use crate::any::Model;
use crate::config::TokenizerConfig;

macro_rules! configs {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../configs/tokenizer/", $name, ".yaml")))),*]
    };
}

/// Name and text of each configuration in `configs/tokenizer/`.
pub const RELEASED: &[(&str, &str)] = configs![
    "gigatok-ss256",
    "gigatok-sb256",
    "gigatok-bl256",
    "gigatok-bl256-dino-disc",
    "gigatok-xlxxl256",
    "gigatok-ss256-2d",
    "gigatok-sb256-2d",
    "gigatok-bl256-2d",
    "llamagen-vq16",
    "llamagen-vq8",
];

/// Names and shapes of every released tokenizer, described without memory.
pub fn signatures() -> Vec<Signature> {
    RELEASED.iter().filter_map(|(name, text)| signature(name, text)).collect()
}

fn signature(name: &str, text: &str) -> Option<Signature> {
    let config = TokenizerConfig::from_document(&Document::parse(name, text).ok()?).ok()?;
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Describe);
    Model::new(&vars.root(), &config).ok()?;
    Some(Signature {
        name: name.to_string(),
        advice: format!("try `--tokenizer configs/tokenizer/{name}.yaml`"),
        tensors: vars.all().into_iter().map(|v| (v.name, v.tensor.size())).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_released_configuration_has_a_signature() {
        assert_eq!(signatures().len(), RELEASED.len());
    }
}
