//! The thread that encodes prompts.

use std::sync::Arc;

use generate::PromptEncoder;
use tch::Tensor;

use crate::api::Subject;
use crate::error::{EngineError, Result};
use crate::job::{Job, Ready};
use crate::shared::{Shared, guarded, use_threads};

/// Encodes prompts in their order until the engine is stopped.
pub(crate) fn run(encoder: &PromptEncoder, shared: &Arc<Shared>, threads: i32) {
    use_threads(threads);
    let mut prompts = Prompts { encoder, last: None };
    while let Some(job) = shared.next_prompt() {
        if job.reply.is_cancelled() {
            shared.change(|state| {
                state.encoding -= 1;
                state.status.cancelled += 1;
            });
            continue;
        }
        match prompts.encode(&job) {
            Ok((cond, negative)) => {
                let text_tokens = cond.size()[0] as u64;
                let cond = encoder.conditions_of(&[cond]);
                let negative = negative.map(|text| encoder.conditions_of(&[text]));
                let ready = Ready { job, cond, negative, text_tokens, started: false };
                if let Some(late) = shared.change(|state| state.encoded(ready)) {
                    shared.fail(&late.job, EngineError::Stopped);
                }
            }
            Err(error) => {
                shared.change(|state| state.encoding -= 1);
                shared.fail(&job, error);
            }
        }
    }
}

/// Prompt and negative prompt of an image, which those after it often share, and their features.
struct Encoded {
    texts: (String, Option<String>),
    features: (Tensor, Option<Tensor>),
}

struct Prompts<'a> {
    encoder: &'a PromptEncoder,
    last: Option<Encoded>,
}

impl Prompts<'_> {
    /// (L, C) features of an image's prompt, and of its negative prompt.
    fn encode(&mut self, job: &Job) -> Result<(Tensor, Option<Tensor>)> {
        let Subject::Prompt(text) = &job.accepted.subject else {
            return Err(generate::Error::NeedsPrompts.into());
        };
        let texts = (text.clone(), job.accepted.negative.clone());
        let copy =
            |(a, b): &(Tensor, Option<Tensor>)| (a.shallow_clone(), b.as_ref().map(Tensor::shallow_clone));
        if let Some(last) = self.last.as_ref().filter(|last| last.texts == texts) {
            return Ok(copy(&last.features));
        }
        let features = guarded(|| self.features(&texts))
            .map_err(|message| EngineError::Failed { what: "encoding the prompt", message })??;
        self.last = Some(Encoded { texts, features: copy(&features) });
        Ok(features)
    }

    fn features(&self, (text, negative): &(String, Option<String>)) -> Result<(Tensor, Option<Tensor>)> {
        let negative = negative.as_ref().map(|text| self.encoder.encode(text)).transpose()?;
        Ok((self.encoder.encode(text)?, negative))
    }
}
