//! Sampling runs, read from a manifest's description of their tokens.

use anyhow::{Context, Result, bail};
use sampler::{Filter, Guidance, GuidanceSchedule, SamplingConfig};

/// One recorded generation.
#[derive(Debug)]
pub struct Run {
    /// Guidance, temperature and filters.
    pub sampling: SamplingConfig,
    /// The best code is taken at each step.
    pub greedy: bool,
    /// Whether the caption's padding was masked.
    pub masked: bool,
}

/// Words and numbers of a sentence, without punctuation.
fn words(text: &str) -> Vec<&str> {
    let part = |c: char| c.is_alphanumeric() || "._-+".contains(c);
    text.split(|c| !part(c)).map(|w| w.trim_matches('.')).filter(|w| !w.is_empty()).collect()
}

/// The number right after `key` in a sentence.
pub fn number_after(text: &str, key: &str) -> Result<f64> {
    let missing = || format!("`{text}` has no number after `{key}`");
    let (_, rest) = text.split_once(key).with_context(missing)?;
    let digits = |c: char| c.is_ascii_digit() || ".e-".contains(c);
    let number = rest.trim_start().split(|c| !digits(c)).next().unwrap_or("");
    let number = number.split("..").next().unwrap_or(""); // `96..159` is a range
    number.trim_end_matches('.').parse().with_context(missing)
}

impl Run {
    /// Parses sentences like `generated tokens: cfg_scale 4.0, schedule step {'window_start':
    /// 0.18}, cfg_interval -1, {'temperature': 0.8, 'top_k': 10, 'top_p': 0.9, 'sample_logits':
    /// True}`; an unknown word is an error. `greedy` comes from the tensor's name.
    pub fn parse(meaning: &str, greedy: bool) -> Result<Self> {
        let mut scale = None;
        let (mut schedule, mut start, mut end, mut interval) = ("constant", None, None, None);
        let (mut temperature, mut top_k, mut top_p) = (1.0, None, None);
        let (mut greedy, mut masked) = (greedy, true);
        let mut words = words(meaning).into_iter();
        while let Some(word) = words.next() {
            let mut next = || words.next().with_context(|| format!("`{meaning}` ends after `{word}`"));
            match word {
                "generated" | "tokens" | "schedule" => {}
                "greedy" => greedy = true,
                name if GuidanceSchedule::NAMES.contains(&name) => schedule = name,
                "cfg_scale" => scale = Some(next()?.parse()?),
                "window_start" => start = Some(next()?.parse()?),
                "window_end" => end = Some(next()?.parse()?),
                "cfg_interval" => interval = Some(next()?.parse()?).filter(|&k: &i64| k >= 0),
                "temperature" => temperature = next()?.parse()?,
                "top_k" => top_k = Some(next()?.parse::<i64>()?).filter(|&k| k > 0),
                "top_p" => top_p = Some(next()?.parse::<f64>()?).filter(|&p| p < 1.0),
                "sample_logits" => greedy |= next()? == "False",
                "emb_masks" => masked = next()? == "given",
                other => bail!("`{meaning}`: what does `{other}` mean?"),
            }
        }
        greedy |= top_k == Some(1);
        if greedy {
            top_k = Some(1);
        }
        let scale = scale.with_context(|| format!("`{meaning}` gives no cfg_scale"))?;
        let schedule = GuidanceSchedule::named(schedule, start, end)?;
        let guidance = Guidance { scale, schedule, interval };
        let filters = [top_k.map(Filter::TopK), top_p.map(Filter::TopP)].into_iter().flatten().collect();
        let sampling = SamplingConfig { temperature, filters, guidance };
        Ok(Run { sampling, greedy, masked })
    }
}
