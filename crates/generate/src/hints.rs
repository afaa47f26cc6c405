//! Next steps after an error.

use base::Hint;
use base::hint::nearest;

use crate::error::Error;

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::UnknownModel { given, bundled, .. } => vec![of_unknown(given, bundled)],
            Error::WeightsMissing { weights_option, .. } => vec![format!("add `{weights_option} FILE`")],
            Error::NotAConfig { option, weights_option, path } => {
                let path = path.display();
                vec![format!("if it is a checkpoint: `{option} CONFIG.yaml {weights_option} {path}`")]
            }
            Error::OtherRun { parts: [pixels, note], .. } => vec![
                format!("to begin anew, remove `{}` and `{}`", pixels.display(), note.display()),
                "or give another name with `--npz`".into(),
            ],
            Error::Config(e) => e.hints(),
            Error::Tokenizer(e) => e.hints(),
            Error::Model(e) => e.hints(),
            Error::Sampler(e) => e.hints(),
            Error::Backbones(e) => e.hints(),
            Error::Dist(e) => e.hints(),
            Error::OneGenerator => vec!["leave `--rng` out: one stream for each image gives the same images in any number of processes".into()],
            Error::Weights(e) => e.hints(),
            Error::Data(e) => e.hints(),
            other => constant(other).iter().map(|hint| (*hint).to_owned()).collect(),
        }
    }
}

fn of_unknown(given: &str, bundled: &[String]) -> String {
    if let Some(name) = nearest(given, bundled.iter().map(String::as_str), 1).first() {
        return format!("did you mean `{name}`?");
    }
    match bundled.is_empty() {
        true => "none is here; `GEN_MODELS` names the folder that holds them".to_owned(),
        false => format!("shipped models: {}", bundled.join(", ")),
    }
}

/// Hints that are always the same.
fn constant(error: &Error) -> &'static [&'static str] {
    match error {
        Error::ConfigMissing { .. } => &[
            "a model's directory holds `config.yaml` and `weights.safetensors`",
            "a published checkpoint goes with its config: CONFIG.yaml and the weights as a file",
        ],
        Error::IsTokenizer { .. } => {
            &["give the transformer's directory, for example a run of `gen train-ar`"]
        }
        Error::TokenizerUnknown { .. } => {
            &["name it: `--tokenizer DIR`, or `--tokenizer CONFIG --tokenizer-weights FILE`"]
        }
        Error::TokenizerMissing { .. } => {
            &["a model's directory holds its tokenizer as `tokenizer/`; or name one with `--tokenizer`"]
        }
        Error::ForeignClass { .. } => &["the file belongs to another model"],
        Error::KernelsNeedCuda { .. } => {
            &["leave it out: on the CPU the program's own kernels decode without asking"]
        }
        Error::KernelsPrecision { .. } => &["add `--precision bf16`"],
        Error::Kernels { .. } => {
            &["`--precision bf16` without `--gpu-kernels` and `--int8-cache` decodes with libtorch alone"]
        }
        Error::GraphsNeedCuda { .. } => &["leave it out: on the CPU there are no launches to save"],
        Error::GraphsNotBuilt => &["`make libtorch` installs them; build `gen` again after it"],
        Error::NeedsPrompts => &["say what to draw: `--prompt TEXT`, or `--prompts FILE`"],
        Error::NeedsClasses => &["name classes with `--class`, or a text-to-image model with `--model`"],
        Error::HasTextEncoder { .. } => &["leave `--text-encoder` out"],
        Error::NoTextEncoder => &["name its folder: `--text-encoder DIR`; LlamaGen's models take FLAN-T5-XL"],
        Error::TextWidth { .. } => &["LlamaGen's models take FLAN-T5-XL, whose width is 2048"],
        Error::OtherTextEncoder { .. } => &["name the right one with `--text-encoder DIR`"],
        Error::OneOfABatch { .. } => &["repeat the whole run to make it again"],
        Error::OtherConditions => &["it was made with another model; leave `--model` out"],
        Error::SameFile { .. } => &["choose another folder with `--output`"],
        Error::NoProvenance { sheet: true, .. } => {
            &["it is a sheet of several images; give one of the images"]
        }
        Error::NoProvenance { sheet: false, .. } => {
            &["`--from` needs a PNG that `gen sample` wrote, with its text chunks intact"]
        }
        Error::UnknownProvenance { .. } => &["it may come from another version of gen"],
        Error::Locked { .. } => &["wait for it, or give another name with `--npz`"],
        Error::NotResumable { .. } => {
            &["remove its `.partial` and `.partial.json` to begin anew, or use `--rng image`"]
        }
        _ => &[],
    }
}
