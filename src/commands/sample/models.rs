//! The pair of models that `gen sample` runs, and what lies beside them.

use anyhow::Context as _;
use ar_model::{AutoregressiveModel, ConditioningConfig, Decoder};
use base::Precision;
use choices::GpuOptions;
use cli::{ModelArgs, PairedTokenizerArgs};
use data::{Class, ClassTable};
use sampler::SamplingSettings;
use tch::Device;

use super::provenance::ModelId;
use crate::context::Context;
use crate::failure::Failure;
use crate::settings::models::{self, DEFAULT_MODEL, Location};
use crate::settings::packing;

/// Where the models are and what their directory says about sampling.
#[derive(Debug)]
pub struct Sources {
    transformer: Location,
    tokenizer: Location,
    names: [(String, Option<String>); 2],
    /// The model's own defaults, from `sampling.yaml`.
    pub defaults: SamplingSettings,
    /// Kind of the tokenizer's weights and activations.
    pub tokenizer_precision: Precision,
    /// How a GPU decodes.
    pub gpu: GpuOptions,
}

/// Both models, loaded.
pub struct Models {
    /// The transformer, ready for decoding.
    pub transformer: Decoder,
    /// The tokenizer.
    pub tokenizer: tokenizer::Loaded,
    /// What it computes in.
    pub tokenizer_precision: Precision,
    /// How a GPU decodes.
    pub gpu: GpuOptions,
    /// The classes that the transformer knows; `None` of one that draws prompts.
    pub classes: Option<ClassTable>,
    /// The transformer as a PNG remembers it.
    pub transformer_id: ModelId,
    /// The tokenizer likewise.
    pub tokenizer_id: ModelId,
}

impl Sources {
    /// Finds the models and reads `sampling.yaml`, without which the published settings of a model's kind are its
    /// defaults; loads no weights.
    pub fn find(model: &ModelArgs, tokenizer: &PairedTokenizerArgs) -> anyhow::Result<Self> {
        let transformer = models::transformer(model)?;
        let tokenizer_at = models::tokenizer_of(&transformer, tokenizer)?;
        let defaults = match beside(&transformer, "sampling.yaml")? {
            Some(path) => base::config::read(&path)?,
            None if draws_prompts(&transformer)? => SamplingSettings::published_for_prompts(),
            None => SamplingSettings::default(),
        };
        let shown = |p: &Option<std::path::PathBuf>| p.as_ref().map(|p| p.display().to_string());
        let model_name = model.model.clone().unwrap_or_else(|| DEFAULT_MODEL.into());
        let tokenizer_name = tokenizer.tokenizer.clone().unwrap_or_else(|| model_name.clone());
        let names =
            [(model_name, shown(&model.weights)), (tokenizer_name, shown(&tokenizer.tokenizer_weights))];
        let tokenizer_precision = Precision::Fp32;
        let gpu = GpuOptions::default();
        Ok(Sources { transformer, tokenizer: tokenizer_at, names, defaults, tokenizer_precision, gpu })
    }

    /// Loads both models, the transformer ready for fast decoding.
    pub fn load(self, device: Device, precision: Precision, context: &Context) -> anyhow::Result<Models> {
        packing::check(device, precision, self.gpu)?;
        let loaded = self.transformer.open_transformer(device, precision, context)?;
        let transformer_fingerprint = loaded.fingerprint()?;
        let transformer = packing::decoder(loaded.model, device, precision, self.gpu)?;
        let tokenizer_precision = self.tokenizer_precision;
        let mut tokenizer = self.tokenizer.open_tokenizer(device, tokenizer_precision, context)?;
        packing::pack_tokenizer(&mut tokenizer.model, &tokenizer.vars, self.gpu)?;
        let classes = classes_of(&self.transformer, transformer.spec().num_classes)?;
        let [a, b] = self.names;
        let id = |(name, weights): (String, Option<String>), fingerprint: String| ModelId {
            name,
            weights,
            fingerprint,
        };
        let transformer_id = id(a, transformer_fingerprint);
        let tokenizer_id = id(b, tokenizer.fingerprint()?);
        let gpu = self.gpu;
        Ok(Models { transformer, tokenizer, tokenizer_precision, gpu, classes, transformer_id, tokenizer_id })
    }

    /// The transformer's place.
    pub fn transformer(&self) -> &Location {
        &self.transformer
    }
}

/// The classes of a model of `num_classes`: `classes.tsv` beside the weights; else ImageNet's where their number says so,
/// else bare numbers. None of a model that draws prompts.
pub fn classes_of(transformer: &Location, num_classes: Option<i64>) -> anyhow::Result<Option<ClassTable>> {
    let Some(n) = num_classes else { return Ok(None) };
    if let Some(path) = beside(transformer, "classes.tsv")? {
        let table = ClassTable::read(&path)?;
        if let Some(class) = table.classes().find(|c| !(0..n).contains(&c.index)) {
            let message = format!("`{}` lists class {class}, but the model has {n} classes", path.display());
            return Err(Failure::new(message).hint("the file belongs to another model").into());
        }
        return Ok(Some(table));
    }
    if n == 1000 {
        return Ok(Some(ClassTable::imagenet().clone()));
    }
    let bare = |index| Class { index, wnid: String::new(), name: format!("class {index}") };
    Ok(Some(ClassTable::of(&(0..n).map(bare).collect::<Vec<_>>())))
}

/// Whether a transformer is conditioned on text.
pub fn draws_prompts(transformer: &Location) -> anyhow::Result<bool> {
    Ok(matches!(transformer.config()?.conditioning, ConditioningConfig::Text { .. }))
}

/// A file in the model's directory, if it is there; what has its name and cannot be read is not passed over.
fn beside(location: &Location, name: &str) -> anyhow::Result<Option<std::path::PathBuf>> {
    let path = match location {
        Location::Directory(dir) => dir.join(name),
        Location::Files { .. } => return Ok(None),
    };
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    base::files::open_regular(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(Some(path))
}
