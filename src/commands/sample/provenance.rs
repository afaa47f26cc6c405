//! What a generated PNG remembers of how it was made, so that it can be made again.

use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, Result};
use base::Precision;
use base::files::open_regular;
use choices::Rng;
use sampler::SamplingSettings;
use serde::{Deserialize, Serialize};

use super::subject::Named;
use crate::failure::Failure;
use crate::pictures::Picture;

/// The keyword of the text chunk that holds a [`Provenance`] as JSON.
const KEYWORD: &str = "gen:sample";
/// The same of what belongs to a whole run.
const RUN_KEYWORD: &str = "gen:run";
/// The contact sheet of a folder of samples.
pub const SHEET: &str = "grid.png";

/// A model as it was named, and what its weights were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelId {
    /// What `--model` or `--tokenizer` said, or the name of the shipped model.
    pub name: String,
    /// The checkpoint, where it was given apart from the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Hash of the weights.
    pub fingerprint: String,
}

/// What decides how a GPU computes, beside the kind of numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuSettings {
    /// The program's own kernels (`--gpu-kernels`).
    pub kernels: bool,
    /// Keys and values of 8 bits (`--int8-cache`).
    pub int8_cache: bool,
    /// A recorded step (`--cuda-graph`).
    pub cuda_graph: bool,
    /// TF32 in fp32 products and convolutions (`--tf32`).
    pub tf32: bool,
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

/// Everything that the images of one run share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSettings {
    /// Program and version.
    pub program: String,
    /// The transformer.
    pub model: ModelId,
    /// The tokenizer.
    pub tokenizer: ModelId,
    /// The text encoder, where prompts were drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<ModelId>,
    /// What the images were to be unlike.
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
    /// Kind of the transformer's weights.
    pub precision: Precision,
    /// Kind of the tokenizer's weights and activations.
    #[serde(default)]
    pub tokenizer_precision: Precision,
    /// Kind of device.
    pub device: String,
    /// How a GPU computed.
    #[serde(default, skip_serializing_if = "GpuSettings::is_default")]
    pub gpu: GpuSettings,
}

/// How one image was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// What it shares with its run.
    pub run: RunSettings,
    /// Its number in the run.
    pub index: u64,
    /// Its class or its prompt.
    #[serde(flatten)]
    pub subject: Named,
}

impl RunSettings {
    /// The text chunk of something that belongs to the whole run, such as its grid.
    pub fn texts(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("Software", self.program.clone()), (RUN_KEYWORD, serde_json::to_string(self)?)])
    }
}

impl Provenance {
    /// The text chunks of the image.
    pub fn texts(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("Software", self.run.program.clone()), (KEYWORD, serde_json::to_string(self)?)])
    }

    /// Reads a PNG that `gen sample` wrote: how it was made, and its pixels.
    pub fn read(path: &Path) -> Result<(Provenance, Picture)> {
        let shown = path.display();
        let file = open_regular(path).with_context(|| format!("cannot read `{shown}`"))?;
        let decoder = png::Decoder::new(BufReader::new(file));
        let mut reader = decoder.read_info().with_context(|| format!("`{shown}` is not a readable PNG"))?;
        let size = reader.output_buffer_size().context("the image is too large")?;
        let mut rgb = vec![0; size];
        let frame = reader.next_frame(&mut rgb).with_context(|| format!("`{shown}` is damaged"))?;
        reader.finish().with_context(|| format!("`{shown}` is damaged"))?;
        rgb.truncate(frame.buffer_size());
        let chunk = reader.info().utf8_text.iter().find(|chunk| chunk.keyword == KEYWORD);
        let Some(chunk) = chunk else { return Err(no_provenance(path, reader.info()).into()) };
        let text = chunk.get_text().with_context(|| format!("`{shown}` is damaged"))?;
        let provenance = serde_json::from_str(&text).map_err(|e| {
            Failure::new(format!("the settings stored in `{shown}` cannot be read: {e}"))
                .hint("it may come from another version of gen")
        })?;
        Ok((provenance, Picture { width: frame.width as usize, height: frame.height as usize, rgb }))
    }
}

/// Whether a folder holds the contact sheet of `gen sample`: a file of its name that says so itself.
pub fn has_sheet(folder: &Path) -> bool {
    let Ok(file) = open_regular(&folder.join(SHEET)) else { return false };
    png::Decoder::new(BufReader::new(file)).read_info().is_ok_and(|reader| is_sheet(reader.info()))
}

fn is_sheet(info: &png::Info) -> bool {
    info.utf8_text.iter().any(|chunk| chunk.keyword == RUN_KEYWORD)
}

fn no_provenance(path: &Path, info: &png::Info) -> Failure {
    let failure = Failure::new(format!("`{}` does not say how it was made", path.display()));
    match is_sheet(info) {
        true => failure.hint("it is a sheet of several images; give one of the images"),
        false => failure.hint("`--from` needs a PNG that `gen sample` wrote, with its text chunks intact"),
    }
}

#[cfg(test)]
impl GpuSettings {
    /// One of them set, each in its turn.
    pub(super) fn each() -> [GpuSettings; 4] {
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
pub(super) fn example(gpu: GpuSettings) -> Provenance {
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
