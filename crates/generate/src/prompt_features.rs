//! Features of a run's prompts. The encoder, which may be larger than the transformer, is loaded,
//! used for all prompts of the run and released before the transformer is loaded; the features wait
//! in an unnamed temporary file. So the two are never in memory together, however many prompts
//! there are.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use ar_model::Conditioning;
use base::Progress;
use libtorch_ext::bytes::{tensor_from_bytes, with_bytes};
use tch::Tensor;

use crate::condition::Prompt;
use crate::config::{ModelsConfig, TextConfig};
use crate::error::{Error, Result};
use crate::prompt_encoder::{FeatureForm, PromptEncoder};
use crate::provenance::ModelId;

/// Features of a run's prompts.
pub struct PromptFeatures {
    file: File,
    ends: Vec<u64>, // positions with text, summed up to each prompt
    form: FeatureForm,
    negative: Option<Tensor>, // (L, C)
    /// Identity of the encoder.
    pub encoder: ModelId,
    /// The negative prompt.
    pub negative_prompt: Option<String>,
}

impl PromptFeatures {
    /// Encodes every prompt with the encoder that goes with the transformer.
    ///
    /// # Errors
    /// Returns an error if the encoder cannot be opened, or rejects a prompt.
    pub fn encode(config: &TextConfig, models: &ModelsConfig, progress: &mut dyn Progress) -> Result<Self> {
        let encoder = PromptEncoder::open(config.encoder.as_deref(), models)?;
        progress.message(&format!("text encoder: `{}`", encoder.weights().display()));
        let (file, ends) = store(&config.prompts, &encoder, progress)?;
        let negative = config.negative.as_ref().map(|text| encoder.encode(text)).transpose()?;
        let (form, negative_prompt) = (encoder.form(), config.negative.clone());
        Ok(PromptFeatures { file, ends, form, negative, encoder: encoder.id(), negative_prompt })
    }

    /// (B) conditions of some prompts.
    ///
    /// # Errors
    /// Returns an error if a prompt was not encoded, or its features cannot be
    /// read back.
    pub fn conditions(&self, prompts: &[&Prompt]) -> Result<Conditioning> {
        let texts = prompts.iter().map(|p| self.read(p)).collect::<Result<Vec<_>>>()?;
        Ok(self.form.conditions(&texts))
    }

    /// The condition of the negative prompt.
    pub fn negative(&self) -> Option<Conditioning> {
        self.negative.as_ref().map(|text| self.form.conditions(std::slice::from_ref(text)))
    }

    /// (L, C) features of a prompt.
    fn read(&self, prompt: &Prompt) -> Result<Tensor> {
        let end =
            self.ends.get(prompt.place).ok_or_else(|| Error::NotEncoded { prompt: prompt.text.clone() })?;
        let start = prompt.place.checked_sub(1).map_or(0, |before| self.ends[before]);
        let (rows, FeatureForm { width, kind, .. }) = (end - start, self.form);
        let line = width as u64 * kind.elt_size_in_bytes() as u64;
        let mut bytes = vec![0; (rows * line) as usize];
        let what = || "cannot read the prompts' features back".to_owned();
        self.file.read_exact_at(&mut bytes, start * line).map_err(Error::io(what))?;
        Ok(tensor_from_bytes(&bytes, &[rows as i64, width], kind)?)
    }
}

/// Writes the prompts' features to a temporary file, one after the other. Returns it with the
/// numbers of positions up to each prompt.
fn store(
    prompts: &[Prompt],
    encoder: &PromptEncoder,
    progress: &mut dyn Progress,
) -> Result<(File, Vec<u64>)> {
    let what = || "cannot make a temporary file for the prompts' features".to_owned();
    let mut out = BufWriter::new(tempfile::tempfile().map_err(Error::io(what))?);
    let failed = || Error::io(|| "cannot write the prompts' features to the temporary folder".to_owned());
    progress.start("prompts", Some(prompts.len() as u64));
    let (mut ends, mut cut) = (vec![], 0);
    for prompt in prompts {
        cut += u64::from(encoder.cuts(&prompt.text)?);
        let features = encoder.encode(&prompt.text)?;
        ends.push(ends.last().unwrap_or(&0) + features.size()[0] as u64);
        with_bytes(&features.contiguous(), |bytes| out.write_all(bytes))?.map_err(failed())?;
        progress.advance(1);
    }
    progress.finish();
    if cut > 0 {
        let n = encoder.length();
        progress
            .warn(&format!("{cut} of the prompts are longer than {n} tokens; the rest of them is not used"));
    }
    let file = out.into_inner().map_err(|e| failed()(e.into_error()))?;
    Ok((file, ends))
}
