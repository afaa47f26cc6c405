//! Usage of a codebook.

use anyhow::Result;
use base::Codes;
use eval::CodebookUsage;

use crate::check::{Check, Near};

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let codes = Codes::new(check.input("indices")?)?;
    let mut usage = CodebookUsage::new(check.golden.scalar("codebook_size")? as i64);
    usage.update(&codes)?;
    let s = usage.scores()?;
    let counts = [("codebook_size", s.codebook_size), ("used", s.used), ("dead", s.dead)];
    for (name, count) in counts {
        check.scalar(name, Near::Equal, count as f64)?;
    }
    for (name, value) in [
        ("usage", s.usage),
        ("entropy_nats", s.entropy_nats),
        ("entropy_bits", s.entropy_bits),
        ("perplexity", s.perplexity),
        ("perplexity_eps", s.perplexity_vqvae),
        ("titok_entropy_bits", s.entropy_bits_titok),
        ("usage_per_image_mean", s.usage_per_image),
    ] {
        check.scalar(name, Near::Relative(1e-12), value)?;
    }
    Ok(())
}
