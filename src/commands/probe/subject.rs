//! The network that is probed.

use cli::probe::{FeatureArgs, FeatureNormArg, ProbeArgs, Switch};
use generate::locate;
use tch::Device;
use train::probe::{FeatureNorm, Subject, TokenizerPlace};

use crate::context::Context;
use crate::error::UserError;

/// The tokenizer, if one is named without a transformer; else the transformer.
pub fn subject(args: &ProbeArgs, device: Device, context: &Context) -> anyhow::Result<Subject> {
    let FeatureArgs { layer, probe_dropout, fix_dim, from_decoder, .. } = args.features;
    let (precision, mut progress) = (args.compute.precision, context.printer.clone());
    let norm = match args.features.feature_norm {
        FeatureNormArg::None => FeatureNorm::None,
        FeatureNormArg::Ln => FeatureNorm::Ln,
    };
    let alone = args.tokenizer.tokenizer.is_some() && args.model.model.is_none();
    if alone {
        if layer.is_some() || probe_dropout.is_some() {
            return Err(UserError::new(
                "`--layer` and `--probe-dropout` are for transformers, but a tokenizer is probed",
            )
            .hint("to probe a transformer, name it with `--model`")
            .into());
        }
        let place = match (fix_dim, from_decoder) {
            (true, _) => TokenizerPlace::Projection,
            (_, true) => TokenizerPlace::Decoder,
            _ => TokenizerPlace::Encoder,
        };
        let location = locate::tokenizer(&args.tokenizer.choice())?;
        let tokenizer = location.open_tokenizer(device, precision, &mut progress)?;
        return Ok(Subject::tokenizer(tokenizer, place, norm)?);
    }
    if fix_dim || from_decoder {
        return Err(UserError::new(
            "`--fix-dim` and `--from-decoder` are for tokenizers, but a transformer is probed",
        )
        .hint("to probe a tokenizer, name it with `--tokenizer`, without `--model`")
        .into());
    }
    let location = locate::transformer(&args.model.choice())?;
    let tokenizer = locate::tokenizer_of(&location, &args.tokenizer.choice())?;
    let model = location.open_transformer(device, precision, &mut progress)?;
    let tokenizer = tokenizer.open_tokenizer(device, precision, &mut progress)?;
    let dropout = probe_dropout != Some(Switch::Off);
    Ok(Subject::transformer(model, tokenizer, layer, dropout, norm)?)
}
