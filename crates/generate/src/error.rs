use std::io;
use std::path::{Path, PathBuf};

use base::Precision;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of locating and loading models, or of making and writing images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such model.
    #[error("`{option} {given}` is no directory, no config, and no shipped model")]
    UnknownModel {
        /// Option that names it.
        option: &'static str,
        /// The name given.
        given: String,
        /// The bundled models found.
        bundled: Vec<String>,
    },
    /// A directory holds no model.
    #[error("`{option} {}`: the directory holds no `config.yaml`", dir.display())]
    ConfigMissing {
        /// Option that names it.
        option: &'static str,
        /// The directory.
        dir: PathBuf,
    },
    /// A tokenizer in the place of a transformer.
    #[error("`{option} {}` is a tokenizer, not a transformer", dir.display())]
    IsTokenizer {
        /// Option that names it.
        option: &'static str,
        /// The directory.
        dir: PathBuf,
    },
    /// A configuration without its checkpoint.
    #[error("`{option} {}` is a config, and its weights are not given", path.display())]
    WeightsMissing {
        /// Option that names it.
        option: &'static str,
        /// Option that would name the checkpoint.
        weights_option: &'static str,
        /// The configuration.
        path: PathBuf,
    },
    /// A file that is no configuration.
    #[error("`{option} {}` is not a config", path.display())]
    NotAConfig {
        /// Option that names it.
        option: &'static str,
        /// Option that names checkpoints.
        weights_option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A transformer's configuration by itself names no tokenizer.
    #[error("`{}` does not say which tokenizer made its codes", config.display())]
    TokenizerUnknown {
        /// The configuration.
        config: PathBuf,
    },
    /// A transformer's directory without a tokenizer.
    #[error("there is no tokenizer in `{}`", path.display())]
    TokenizerMissing {
        /// The place of the tokenizer.
        path: PathBuf,
    },
    /// `classes.tsv` of another model.
    #[error("`{}` lists class {class}, but the model has {num_classes} classes", path.display())]
    ForeignClass {
        /// The file.
        path: PathBuf,
        /// The class.
        class: String,
        /// Number of classes of the model.
        num_classes: i64,
    },
    /// An option of a GPU on another device.
    #[error("`{option}` is for CUDA devices, and the device is {device}")]
    KernelsNeedCuda {
        /// The option.
        option: &'static str,
        /// The device.
        device: String,
    },
    /// A dtype that the kernels for a GPU do not have.
    #[error("`{option}` needs weights in bf16 or int8, not {precision}")]
    KernelsPrecision {
        /// Option that selects the kernels.
        option: &'static str,
        /// The dtype.
        precision: Precision,
    },
    /// The kernels for a GPU cannot be run.
    #[error("cannot use the kernels for a GPU: {source}")]
    Kernels {
        /// The reason.
        source: libtorch_ext::Error,
    },
    /// CUDA graphs on another device.
    #[error("`--cuda-graph` is for CUDA devices, and the device is {device}")]
    GraphsNeedCuda {
        /// The device.
        device: String,
    },
    /// A program without CUDA graphs.
    #[error("this program was built without CUDA graphs, as headers of CUDA were missing")]
    GraphsNotBuilt,
    /// Classes for a model of prompts.
    #[error("the model draws prompts, not classes")]
    NeedsPrompts,
    /// Prompts for a model of classes.
    #[error("the model draws classes, not prompts")]
    NeedsClasses,
    /// A named text encoder beside the model's own.
    #[error("the model has a text encoder of its own; `{}` has no place in it", folder.display())]
    HasTextEncoder {
        /// The encoder that was named.
        folder: PathBuf,
    },
    /// No text encoder is known.
    #[error("the model does not say where its text encoder is")]
    NoTextEncoder,
    /// A text encoder of another width.
    #[error("`{}` makes features of width {found}, the model takes {expected}", path.display())]
    TextWidth {
        /// The encoder.
        path: PathBuf,
        /// Width of its features.
        found: i64,
        /// Width of the model's.
        expected: i64,
    },
    /// Another text encoder than the model was trained with.
    #[error("`{}` is text encoder {found}; the model was trained with {expected}", path.display())]
    OtherTextEncoder {
        /// The encoder.
        path: PathBuf,
        /// Its fingerprint.
        found: String,
        /// The fingerprint of the right one.
        expected: String,
    },
    /// A prompt whose features were not computed.
    #[error("the prompt {prompt:?} was not encoded when the model was loaded")]
    NotEncoded {
        /// The prompt.
        prompt: String,
    },
    /// An image that was drawn as one of a batch.
    #[error("`{}` was drawn with `--rng torch`, as one of a batch", path.display())]
    OneOfABatch {
        /// The image.
        path: PathBuf,
    },
    /// A class for a model of prompts, or the other way round, from an image.
    #[error("the image is of a class, and the model draws prompts, or the other way round")]
    OtherConditions,
    /// An image would be overwritten by its reproduction.
    #[error("`{}` would be replaced by its repetition", path.display())]
    SameFile {
        /// The image.
        path: PathBuf,
    },
    /// A PNG of something else.
    #[error("`{}` does not say how it was made", path.display())]
    NoProvenance {
        /// The file.
        path: PathBuf,
        /// Whether it is a contact sheet.
        sheet: bool,
    },
    /// Provenance of another version.
    #[error("the settings stored in `{}` cannot be read: {source}", path.display())]
    UnknownProvenance {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// A damaged PNG, or none.
    #[error("`{}` {what}", path.display())]
    Png {
        /// The file.
        path: PathBuf,
        /// The fault.
        what: &'static str,
        /// The reason.
        source: png::DecodingError,
    },
    /// A PNG that does not fit into memory.
    #[error("`{}` is too large", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A picture that is no PNG.
    #[error("cannot encode `{}`", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: png::EncodingError,
    },
    /// An `.npz` in the hands of another process.
    #[error("another process is writing `{}`", target.display())]
    Locked {
        /// The file.
        target: PathBuf,
    },
    /// Parts of another run's `.npz`.
    #[error("`{}` was begun by a run with other settings: {difference}", target.display())]
    OtherRun {
        /// The file.
        target: PathBuf,
        /// Settings that differ.
        difference: String,
        /// The parts.
        parts: [PathBuf; 2],
    },
    /// The settings of an unfinished `.npz` cannot be read or written.
    #[error(transparent)]
    Claim(#[from] base::resume::ClaimError),
    /// An `.npz` whose images depend on those before.
    #[error(
        "`{}` cannot be continued: with `--rng torch` every image depends on those before", target.display()
    )]
    NotResumable {
        /// The file.
        target: PathBuf,
    },
    /// An `.npz` could not be written.
    #[error("cannot write `{}` (the images are kept beside it)", target.display())]
    Zip {
        /// The file.
        target: PathBuf,
        /// The reason.
        source: zip::result::ZipError,
    },
    /// A file could not be read or written.
    #[error("{what}")]
    Io {
        /// The attempted operation.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// One generator for the whole batch, and several processes.
    #[error("`--rng torch` draws from one generator, which several processes cannot share")]
    OneGenerator,
    /// The run was stopped.
    #[error("stopped")]
    Stopped,
    /// An error from another process.
    #[error(transparent)]
    Dist(#[from] dist::Error),
    /// An error from a checkpoint.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// An error from a configuration file.
    #[error(transparent)]
    Config(#[from] base::config::ConfigError),
    /// An error from the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// An error from the transformer.
    #[error(transparent)]
    Model(#[from] ar_model::Error),
    /// An error from drawing codes.
    #[error(transparent)]
    Sampler(#[from] sampler::Error),
    /// An error from the text encoder.
    #[error(transparent)]
    Backbones(#[from] backbones::Error),
    /// An error from a table of classes.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// An error from libtorch's extras.
    #[error(transparent)]
    Libtorch(#[from] libtorch_ext::Error),
    /// A tensor is not what its type promises.
    #[error(transparent)]
    Type(#[from] base::TypeError),
    /// A tensor cannot be read.
    #[error(transparent)]
    Tensor(#[from] tch::TchError),
    /// Settings cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub(crate) fn io(what: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> Error {
        |source| Error::Io { what: what(), source }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let what = format!("cannot read `{}`", path.display());
        |source| Error::Io { what, source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let what = format!("cannot write `{}`", path.display());
        |source| Error::Io { what, source }
    }
}
