//! Provenance of an image: everything that it takes to make it again, kept in its PNG.

use std::io::BufReader;
use std::path::Path;

use base::Precision;
use base::files::open_regular;
use serde::{Deserialize, Serialize};
use settings::{ModelChoice, Rng, SamplingSettings};

use crate::condition::ConditionName;
use crate::error::{Error, Result};
use crate::picture::Picture;

/// The keyword of the text chunk that holds a [`Provenance`] as JSON.
const KEYWORD: &str = "gen:sample";
/// The keyword of the text chunk that holds [`RunSettings`] as JSON.
const RUN_KEYWORD: &str = "gen:run";
/// The contact sheet of a folder of samples.
pub const SHEET: &str = "grid.png";

/// Identity of a model: its name and its weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelId {
    /// As it was named, or the name of the bundled model.
    pub name: String,
    /// The checkpoint, where it was given apart from the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Hash of the weights.
    pub fingerprint: String,
}

/// Numerics of a GPU, besides the dtype.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuSettings {
    /// Custom CUDA kernels (`--gpu-kernels`).
    pub kernels: bool,
    /// An 8-bit KV cache (`--int8-cache`).
    pub int8_cache: bool,
    /// A captured step (`--cuda-graph`).
    pub cuda_graph: bool,
    /// TF32 in fp32 products and convolutions (`--tf32`).
    pub tf32: bool,
}

impl ModelId {
    /// A model as it was named, with the fingerprint of its weights.
    pub(crate) fn of(choice: &ModelChoice, fingerprint: String) -> Self {
        ModelId {
            name: choice.name.clone().unwrap_or_default(),
            weights: choice.weights.as_ref().map(|path| path.display().to_string()),
            fingerprint,
        }
    }

    /// The model that was named.
    pub fn choice(&self) -> ModelChoice {
        ModelChoice { name: Some(self.name.clone()), weights: self.weights.as_ref().map(Into::into) }
    }
}

impl GpuSettings {
    fn is_default(&self) -> bool {
        *self == GpuSettings::default()
    }

    /// The flags that are set.
    pub fn flags(self) -> String {
        let all = [
            ("--gpu-kernels", self.kernels),
            ("--int8-cache", self.int8_cache),
            ("--cuda-graph", self.cuda_graph),
            ("--tf32", self.tf32),
        ];
        let set: Vec<&str> = all.iter().filter(|(_, set)| *set).map(|(flag, _)| *flag).collect();
        if set.is_empty() { "none".into() } else { set.join(" ") }
    }
}

/// Settings that the images of one run share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSettings {
    /// Program and version.
    pub program: String,
    /// The transformer.
    pub model: ModelId,
    /// The tokenizer.
    pub tokenizer: ModelId,
    /// The text encoder, of a model of prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<ModelId>,
    /// Negative prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// Guidance and filters, complete.
    pub sampling: SamplingSettings,
    /// Source of randomness.
    pub rng: Rng,
    /// Seed of the run.
    pub seed: u64,
    /// Side of the images in pixels.
    pub size: i64,
    /// Dtype of the transformer's weights.
    pub precision: Precision,
    /// Dtype of the tokenizer.
    #[serde(default)]
    pub tokenizer_precision: Precision,
    /// `cpu` or `cuda`.
    pub device: String,
    /// Numerics of the GPU.
    #[serde(default, skip_serializing_if = "GpuSettings::is_default")]
    pub gpu: GpuSettings,
}

/// Provenance of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Settings of its run.
    pub run: RunSettings,
    /// Its number in the run.
    pub index: u64,
    /// Its class or its prompt.
    #[serde(flatten)]
    pub condition: ConditionName,
}

impl RunSettings {
    /// Text chunks (keyword, text) of a picture of the whole run, such as its contact sheet.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be written as JSON.
    pub fn texts(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("Software", self.program.clone()), (RUN_KEYWORD, serde_json::to_string(self)?)])
    }
}

impl Provenance {
    /// Text chunks (keyword, text) of the image.
    ///
    /// # Errors
    /// Returns an error if the provenance cannot be written as JSON.
    pub fn texts(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("Software", self.run.program.clone()), (KEYWORD, serde_json::to_string(self)?)])
    }

    /// Reads a generated PNG: its provenance and its pixels.
    ///
    /// # Errors
    /// Returns an error if the file is no PNG, or has no provenance.
    pub fn read(path: &Path) -> Result<(Provenance, Picture)> {
        let png = |what| move |source| Error::Png { path: path.to_owned(), what, source };
        let damaged = png("is damaged");
        let file = open_regular(path).map_err(Error::read(path))?;
        let decoder = png::Decoder::new(BufReader::new(file));
        let mut reader = decoder.read_info().map_err(png("is not a readable PNG"))?;
        let size = reader.output_buffer_size().ok_or_else(|| Error::TooLarge { path: path.to_owned() })?;
        let mut rgb = vec![0; size];
        let frame = reader.next_frame(&mut rgb).map_err(&damaged)?;
        reader.finish().map_err(&damaged)?;
        rgb.truncate(frame.buffer_size());
        let chunk = reader.info().utf8_text.iter().find(|chunk| chunk.keyword == KEYWORD);
        let chunk = chunk.ok_or_else(|| {
            let sheet = is_sheet(reader.info());
            Error::NoProvenance { path: path.to_owned(), sheet }
        })?;
        let text = chunk.get_text().map_err(&damaged)?;
        let provenance = serde_json::from_str(&text)
            .map_err(|source| Error::UnknownProvenance { path: path.to_owned(), source })?;
        Ok((provenance, Picture { width: frame.width as usize, height: frame.height as usize, rgb }))
    }
}

/// Whether a folder holds the contact sheet of a run: a file of its name with that mark inside.
pub fn has_sheet(folder: &Path) -> bool {
    let Ok(file) = open_regular(&folder.join(SHEET)) else { return false };
    png::Decoder::new(BufReader::new(file)).read_info().is_ok_and(|reader| is_sheet(reader.info()))
}

fn is_sheet(info: &png::Info) -> bool {
    info.utf8_text.iter().any(|chunk| chunk.keyword == RUN_KEYWORD)
}

#[cfg(test)]
impl GpuSettings {
    /// One of them set, each in its turn.
    pub(crate) fn each() -> [GpuSettings; 4] {
        let none = GpuSettings::default();
        [
            GpuSettings { kernels: true, ..none },
            GpuSettings { int8_cache: true, ..none },
            GpuSettings { cuda_graph: true, ..none },
            GpuSettings { tf32: true, ..none },
        ]
    }
}

/// An image of a GPU.
#[cfg(test)]
pub(crate) fn example(gpu: GpuSettings) -> Provenance {
    let model = serde_json::json!({"name": "model", "fingerprint": "a"});
    let run = serde_json::json!({
        "program": "gen 0.1.0", "model": model, "tokenizer": model, "sampling": {}, "rng": "image", "seed": 1,
        "size": 16, "precision": "bf16", "device": "cuda"
    });
    let old = serde_json::json!({"run": run, "index": 3, "class": 207});
    let provenance: Provenance = serde_json::from_value(old).expect("an image of an older version");
    Provenance { run: RunSettings { gpu, ..provenance.run }, ..provenance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_remember_how_a_gpu_computed() {
        let flags = ["--gpu-kernels", "--int8-cache", "--cuda-graph", "--tf32"];
        let dir = tempfile::tempdir().unwrap();
        for (gpu, flag) in GpuSettings::each().into_iter().zip(flags) {
            let (image, path) = (example(gpu), dir.path().join("x.png"));
            let picture = Picture { width: 1, height: 1, rgb: vec![1, 2, 3] };
            picture.write_png(&path, &image.texts().unwrap()).unwrap();
            let (read, _) = Provenance::read(&path).unwrap();
            assert_eq!((read.run.gpu.flags().as_str(), &read), (flag, &image));
        }
        assert_eq!(example(GpuSettings::default()).run.gpu.flags(), "none", "what older images do not say");
    }
}
