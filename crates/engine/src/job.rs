//! An accepted image on its way through the threads.

use std::time::Instant;

use ar_model::Conditioning;
use base::SampleStream;
use generate::Provenance;
use sampler::{SamplingConfig, SlotImage};
use tch::Tensor;

use crate::api::{Event, Subject};
use crate::error::EngineError;
use crate::submission::Reply;

/// An accepted image.
#[derive(Debug)]
pub(crate) struct Job {
    /// Number in its request.
    pub image: usize,
    /// Whom to tell.
    pub reply: Reply,
    /// Whether every step is told.
    pub steps: bool,
    /// Numbers of codes after which previews are made, rising.
    pub previews: Vec<usize>,
    /// Time of the request.
    pub submitted: Instant,
    /// The image.
    pub accepted: Accepted,
}

/// A checked image, as it is drawn and as it remembers it.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    /// Class or prompt.
    pub subject: Subject,
    /// Negative prompt.
    pub negative: Option<String>,
    /// Guidance, temperature and filters.
    pub config: SamplingConfig,
    /// Provenance, which has seed, number and size too.
    pub provenance: Provenance,
}

impl Job {
    /// Tells that the image failed.
    pub fn fail(&self, error: EngineError) {
        self.reply.send(Event::Failed { image: self.image, error });
    }
}

/// An image with its condition, ready for a slot.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The image.
    pub job: Job,
    /// Its condition, a batch of one.
    pub cond: Conditioning,
    /// Condition of its negative prompt, a batch of one.
    pub negative: Option<Conditioning>,
    /// Tokens of its prompt.
    pub text_tokens: u64,
    /// Whether [`Event::Started`] was sent.
    pub started: bool,
}

impl Ready {
    /// An image of a class.
    pub fn of_class(job: Job, class: i64, device: tch::Device) -> Self {
        let cond = Conditioning::Class(Tensor::from_slice(&[class]).to_device(device));
        Ready { job, cond, negative: None, text_tokens: 0, started: false }
    }

    /// The image as a slot takes it.
    pub fn image(&self) -> SlotImage {
        let Accepted { config, provenance, .. } = &self.job.accepted;
        let one = |cond: &Conditioning| cond.select(&Tensor::from_slice(&[0i64]));
        SlotImage {
            cond: one(&self.cond),
            negative: self.negative.as_ref().map(one),
            config: config.clone(),
            stream: SampleStream { seed: provenance.run.seed, index: provenance.index },
        }
    }
}

/// Codes after which the previews of an image are made: of preview k of P after
/// ⌈(k + 1) / (P + 1) · N⌉ of N codes.
pub(crate) fn previews(count: u32, num_tokens: i64) -> Vec<usize> {
    let (parts, n) = (count as usize + 1, usize::try_from(num_tokens).unwrap_or(0));
    (1..parts).map(|k| (k * n).div_ceil(parts)).collect()
}

#[cfg(test)]
mod tests {
    use super::previews;

    #[test]
    fn previews_divide_the_codes_evenly() {
        assert_eq!(previews(3, 16), [4, 8, 12]);
        assert_eq!(previews(2, 256), [86, 171]);
        assert!(previews(0, 256).is_empty());
    }
}
