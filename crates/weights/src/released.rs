//! Released configurations, for advice about a file that does not fit one of them.

use base::config::Document;
use base::{Build, Scope, Vars};
use tch::{Device, Kind};

use crate::Signature;

/// Name and text of configurations in a folder, which is relative to the calling file.
#[macro_export]
macro_rules! released {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!($folder, $name, ".yaml")))),*]
    };
}

/// Names and shapes of released models, without allocating them. `build` makes a configuration's
/// variables; `option` is the beginning of the advice, up to a configuration's name: `--model
/// configs/ar`.
pub fn signatures(
    released: &[(&str, &str)],
    option: &str,
    build: impl Fn(&Document, &Scope) -> Option<()>,
) -> Vec<Signature> {
    let signature = |(name, text): &(&str, &str)| {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
        build(&Document::parse(name, text).ok()?, &vars.root())?;
        Some(Signature {
            name: (*name).to_owned(),
            advice: format!("try `{option}/{name}.yaml`"),
            tensors: vars.all().into_iter().map(|v| (v.name, v.tensor.size())).collect(),
        })
    };
    released.iter().filter_map(signature).collect()
}
