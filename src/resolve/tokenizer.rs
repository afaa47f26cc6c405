//! The tokenizer of a verb that needs no transformer.

use cli::TokenizerJobArgs;
use tch::Device;
use tokenizer::Loaded;

use crate::context::Context;

/// Locates and opens the tokenizer that the arguments name.
pub fn open_tokenizer(args: &TokenizerJobArgs, device: Device, context: &Context) -> anyhow::Result<Loaded> {
    let location = generate::locate::tokenizer(&args.tokenizer.choice())?;
    Ok(location.open_tokenizer(device, args.compute.precision, &mut context.printer.clone())?)
}
