//! The image of a PNG once more, from its provenance.

use std::path::{Path, PathBuf};

use sampler::{DecodeMode, SamplingConfig};
use settings::{GpuOptions, ModelChoice, Rng};
use tch::Device;

use crate::backend::check_cuda_graphs;
use crate::condition::{Condition, Prompt};
use crate::config::{DrawConfig, GenerateConfig, ModelsConfig, TextConfig};
use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::pair::ModelPair;
use crate::picture::Picture;
use crate::provenance::{GpuSettings, ModelId, Provenance, RunSettings};
use crate::target::Targets;

/// Models in place of those that the provenance names.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The transformer.
    pub model: ModelChoice,
    /// The tokenizer.
    pub tokenizer: ModelChoice,
    /// Folder of the text encoder.
    pub text_encoder: Option<PathBuf>,
}

/// The numerics of the GPU that made the image, and `more` besides. A CPU has none of the former.
pub fn gpu_settings(then: &Provenance, more: GpuSettings, device: Device) -> GpuSettings {
    let old = if device.is_cuda() { then.run.gpu } else { GpuSettings::default() };
    GpuSettings {
        kernels: old.kernels || more.kernels,
        int8_cache: old.int8_cache || more.int8_cache,
        cuda_graph: old.cuda_graph || more.cuda_graph,
        tf32: old.tf32 || more.tf32,
    }
}

/// Models and settings of the image in `png`, whose provenance is `then`.
///
/// # Errors
/// Returns an error if the image was drawn as one of a batch, or a model is not there or takes
/// other conditions.
pub fn config(
    png: &Path,
    then: &Provenance,
    overrides: &Overrides,
    gpu: GpuSettings,
    device: Device,
) -> Result<GenerateConfig> {
    if then.run.rng == Rng::Torch {
        return Err(Error::OneOfABatch { path: png.to_owned() });
    }
    let (model, tokenizer) = stored_or_given(&then.run, overrides);
    let pair = ModelPair::find(&model, &tokenizer)?;
    if pair.takes_prompts()? != then.condition.prompt.is_some() {
        return Err(Error::OtherConditions);
    }
    let mode = if gpu.cuda_graph { DecodeMode::CudaGraph } else { DecodeMode::Stepwise };
    if gpu.cuda_graph {
        check_cuda_graphs(device)?;
    }
    Ok(GenerateConfig {
        models: ModelsConfig {
            pair,
            text: text(then, overrides),
            device,
            precision: then.run.precision,
            tokenizer_precision: then.run.tokenizer_precision,
            gpu: GpuOptions { gpu_kernels: gpu.kernels, int8_cache: gpu.int8_cache },
        },
        draw: DrawConfig {
            sampling: SamplingConfig::from_settings(then.run.sampling.clone())?,
            rng: then.run.rng,
            seed: then.run.seed,
            mode,
            size: Some(then.run.size),
        },
    })
}

/// The stored models, unless others are given.
fn stored_or_given(run: &RunSettings, overrides: &Overrides) -> (ModelChoice, ModelChoice) {
    let Overrides { model, tokenizer, .. } = overrides;
    let stored_model = || run.model.choice();
    let chosen = if model.name.is_some() { model.clone() } else { stored_model() };
    let tokenizer = match (&tokenizer.name, &model.name) {
        (Some(_), _) => tokenizer.clone(),
        // Another model comes with its own tokenizer; so does the stored one if none was named
        // apart.
        (None, Some(_)) => ModelChoice::default(),
        (None, None) if run.tokenizer.name == run.model.name => ModelChoice::default(),
        (None, None) => run.tokenizer.choice(),
    };
    (chosen, tokenizer)
}

/// The image's prompt, with the encoder that is named, else the one it was made with.
fn text(then: &Provenance, overrides: &Overrides) -> Option<TextConfig> {
    let prompt = then.condition.prompt.clone()?;
    // A folder is an encoder by itself; a file is one that was trained along, which the model's
    // directory has.
    let stored = then.run.text_encoder.as_ref().map(|id| PathBuf::from(&id.name));
    Some(TextConfig {
        prompts: Prompt::all([prompt]),
        negative: then.run.negative_prompt.clone(),
        encoder: overrides.text_encoder.clone().or(stored.filter(|path| path.is_dir())),
    })
}

/// The image alone, as the target of a run.
///
/// # Errors
/// Returns an error if the model does not have its class.
pub fn targets(then: &Provenance, generator: &Generator) -> Result<Targets> {
    let prompts = generator.config().text.as_ref().and_then(|text| text.prompts.first());
    let condition = match (prompts, generator.classes(), then.condition.class) {
        (Some(prompt), ..) => Condition::Prompt(prompt.clone()),
        (None, Some(classes), Some(index)) => Condition::Class(classes.resolve(&index.to_string())?.clone()),
        _ => return Err(Error::OtherConditions),
    };
    Ok(Targets::one(then.index, condition, then.run.seed))
}

/// Refuses to write over the image.
///
/// # Errors
/// Returns an error if `to` is the same file as `from`.
pub fn check_output(from: &Path, to: &Path) -> Result<()> {
    match (from.canonicalize(), to.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => Err(Error::SameFile { path: from.to_owned() }),
        _ => Ok(()),
    }
}

/// Largest difference of two pictures, of a pixel's 255 levels; `None` if they have different
/// sizes.
pub fn largest_difference(a: &Picture, b: &Picture) -> Option<u8> {
    let same_size = (a.width, a.height) == (b.width, b.height);
    same_size.then(|| a.rgb.iter().zip(&b.rgb).map(|(x, y)| x.abs_diff(*y)).max().unwrap_or(0))
}

/// Differences between two runs that may change pixels, a sentence each.
pub fn differences(old: &RunSettings, new: &RunSettings) -> Vec<String> {
    let gpu = [old.gpu.flags(), new.gpu.flags()];
    let fingerprint = |id: &Option<ModelId>| id.as_ref().map(|id| id.fingerprint.clone()).unwrap_or_default();
    let texts = [fingerprint(&old.text_encoder), fingerprint(&new.text_encoder)];
    let pairs = [
        ("program", &old.program, &new.program),
        ("model weights", &old.model.fingerprint, &new.model.fingerprint),
        ("tokenizer weights", &old.tokenizer.fingerprint, &new.tokenizer.fingerprint),
        ("device", &old.device, &new.device),
        ("settings of the GPU", &gpu[0], &gpu[1]),
        ("text encoder weights", &texts[0], &texts[1]),
    ];
    let changed = pairs.iter().filter(|(_, then, now)| then != now);
    changed.map(|(what, then, now)| format!("{what}: then {then}, now {now}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provenance::example;

    /// As the image was made on a GPU, with more where that is typed; a CPU has none of it, and the
    /// report tells so.
    #[test]
    fn an_image_is_made_again_with_the_numerics_of_its_gpu() {
        let none = GpuSettings::default();
        for gpu in GpuSettings::each() {
            let then = example(gpu);
            assert_eq!(gpu_settings(&then, none, Device::Cuda(0)), gpu);
            assert_eq!(gpu_settings(&then, none, Device::Cpu), none);
        }
        let typed = GpuSettings { kernels: true, ..none };
        let more = gpu_settings(&example(GpuSettings::each()[3]), typed, Device::Cuda(0));
        assert_eq!(more.flags(), "--gpu-kernels --tf32");
    }
}
