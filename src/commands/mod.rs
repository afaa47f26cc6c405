//! One file or folder a verb: arguments → job → report.

mod bench;
mod convert;
mod decode;
mod doctor;
mod encode;
mod eval;
mod extract;
mod features;
mod fetch;
mod inspect;
mod launch;
mod logits;
mod plot;
mod probe;
mod reconstruct;
pub mod sample;
mod serve;
mod train;

use cli::Command;

use crate::context::{Context, ExitStatus};

/// Runs the verb.
pub fn run(command: &Command, context: &Context) -> anyhow::Result<ExitStatus> {
    match command {
        Command::Sample(args) => sample::run(args, context),
        Command::Serve(args) => serve::run(args, context),
        Command::Bench(args) => bench::run(args, context),
        Command::Convert(args) => convert::run(args, context),
        Command::Inspect(args) => inspect::run(args, context),
        Command::Decode(args) => decode::run(args, context),
        Command::Doctor(args) => doctor::run(args, context),
        Command::TrainAr(args) => train::ar::run(args, context),
        Command::TrainFeatures(args) => train::features::run(args, context),
        Command::TrainTokenizer(args) => train::tokenizer::run(args, context),
        Command::Eval(args) => eval::run(args, context),
        Command::Encode(args) => encode::run(args, context),
        Command::Extract(args) => extract::run(args, context),
        Command::Launch(args) => launch::run(args, context),
        Command::Logits(args) => logits::run(args, context),
        Command::Features(args) => features::run(args, context),
        Command::Fetch(args) => fetch::run(args, context),
        Command::Reconstruct(args) => reconstruct::run(args, context),
        Command::Plot(args) => plot::run(args, context),
        Command::Probe(args) => probe::run(args, context),
    }
}
