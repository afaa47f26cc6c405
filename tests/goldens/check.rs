//! Comparing and keeping account.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use base::testing::{max_abs, rel_l2};
use tch::{Kind, Tensor};

use crate::golden::Golden;

/// Tolerance of a tensor.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Relative 2-norm within ten times the difference of two runs of the official code, at least
    /// 1e-5.
    Values,
    /// [`Rule::Values`], and no element off by more than 1e-4: images and logits.
    Bounded,
    /// No element off by more than this.
    Within(f64),
    /// Relative 2-norm of at most this.
    Relative(f64),
    /// Relative 2-norm of at most 1e-4, or ten times the noise of the noisiest gradient of this
    /// golden: which gradient nearly cancels, and so is noisy, changes with the processor (see the
    /// README).
    Gradient,
    /// Formulas in double precision: relative 2-norm of 1e-12.
    Double,
    /// Every element the same.
    Equal,
    /// 8-bit images: every value at most 1 off.
    Pixels,
}

impl Rule {
    /// Bounds of the relative 2-norm and of the largest difference, given the noise that the rule
    /// uses.
    fn bounds(self, noise: f64) -> (Option<f64>, Option<f64>) {
        match self {
            Rule::Values => (Some((10.0 * noise).max(1e-5)), None),
            Rule::Bounded => (Some((10.0 * noise).max(1e-5)), Some(1e-4)),
            Rule::Within(bound) => (None, Some(bound)),
            Rule::Relative(bound) => (Some(bound), None),
            Rule::Gradient => (Some((10.0 * noise).max(1e-4)), None),
            Rule::Double => (Some(1e-12), None),
            Rule::Equal => (None, Some(0.0)),
            Rule::Pixels => (None, Some(1.0)),
        }
    }
}

/// Tolerance of a scalar.
#[derive(Debug, Clone, Copy)]
pub enum Near {
    /// Relative 1e-4.
    Loss,
    /// Relative 1e-4, or ten times the noise of the noisiest gradient: norms of gradients.
    GradientNorm,
    /// Absolute.
    Within(f64),
    /// Relative.
    Relative(f64),
    /// The same.
    Equal,
}

/// The account of one golden: what was compared, used as input or left out for a reason.
pub struct Check<'g> {
    /// The golden to compare with.
    pub golden: &'g Golden,
    accounted: BTreeSet<String>,
    failures: Vec<String>,
    compared: usize,
}

impl<'g> Check<'g> {
    /// An empty account; manifest and file must agree.
    pub fn new(golden: &'g Golden) -> Result<Self> {
        golden.check_contents()?;
        Ok(Check { golden, accounted: BTreeSet::new(), failures: vec![], compared: 0 })
    }

    /// A tensor of the golden that goes into the computation.
    pub fn input(&mut self, name: &str) -> Result<Tensor> {
        ensure!(self.golden.has(name), "the manifest lists no tensor `{name}`");
        self.accounted.insert(name.to_owned());
        self.golden.tensor(name)
    }

    /// A tensor or scalar that is not compared, and why.
    pub fn skip(&mut self, name: &str, why: &str) {
        self.accounted.insert(name.to_owned());
        println!("  {name}: not compared: {why}");
    }

    /// Compares a tensor if the golden has it; `found` is computed only then.
    pub fn compare(&mut self, name: &str, rule: Rule, found: impl FnOnce() -> Tensor) -> Result<()> {
        if !self.golden.has(name) {
            return Ok(());
        }
        self.accounted.insert(name.to_owned());
        let expected = self.golden.tensor(name)?;
        let found = found().detach();
        let shape = expected.size();
        if found.size() != shape {
            self.fail(name, format!("shape {:?}, expected {shape:?}", found.size()));
            return Ok(());
        }
        // Removed logits are -inf in both; differences of infinities are not numbers.
        if found.isinf().logical_and(&found.eq_tensor(&expected)) != expected.isinf() {
            self.fail(name, "infinite in other places".into());
            return Ok(());
        }
        let finite = |t: &Tensor| t.masked_fill(&expected.isinf(), 0.0);
        let (rel, max) =
            (rel_l2(&finite(&found), &finite(&expected)), max_abs(&finite(&found), &finite(&expected)));
        let noise = match rule {
            Rule::Gradient => self.golden.gradient_noise().max(self.golden.noise(name)),
            _ => self.golden.noise(name),
        };
        let (rel_bound, max_bound) = rule.bounds(noise);
        let text = format!(
            "{shape:?}: relative {rel:.1e}{}, largest {max:.1e}{}",
            rel_bound.map(|b| format!(" (at most {b:.1e})")).unwrap_or_default(),
            max_bound.map(|b| format!(" (at most {b:.1e})")).unwrap_or_default()
        );
        // Written so that NaN fails.
        let good = rel_bound.is_none_or(|b| rel <= b) && max_bound.is_none_or(|b| max <= b);
        self.line(name, good, text);
        Ok(())
    }

    /// Compares a scalar if the golden has it.
    pub fn scalar(&mut self, name: &str, near: Near, found: f64) -> Result<()> {
        if !self.golden.scalar_names().contains(&name) {
            return Ok(());
        }
        self.accounted.insert(name.to_owned());
        let expected = self.golden.scalar(name)?;
        let bound = match near {
            Near::Loss => 1e-4 * expected.abs(),
            Near::GradientNorm => (10.0 * self.golden.gradient_noise()).max(1e-4) * expected.abs(),
            Near::Within(bound) => bound,
            Near::Relative(bound) => bound * expected.abs(),
            Near::Equal => 0.0,
        };
        let difference = (found - expected).abs();
        let text =
            format!("{found:.9}, expected {expected:.9}: off by {difference:.1e} (at most {bound:.1e})");
        self.line(name, difference <= bound, text);
        Ok(())
    }

    /// Records something that is not a tensor or scalar of the manifest.
    pub fn must(&mut self, what: &str, good: bool, text: String) {
        self.line(what, good, text);
    }

    fn line(&mut self, name: &str, good: bool, text: String) {
        self.compared += 1;
        println!("  {name} {text}{}", if good { "" } else { "  <-- FAILED" });
        if !good {
            self.failures.push(format!("{name} {text}"));
        }
    }

    fn fail(&mut self, name: &str, text: String) {
        self.line(name, false, text);
    }

    /// Number of values compared, and all failures; a value that was neither compared, used nor
    /// left out for a reason is a failure.
    pub fn finish(mut self) -> (usize, Vec<String>) {
        let names = self.golden.tensor_names().into_iter().chain(self.golden.scalar_names());
        for name in names.filter(|n| !self.accounted.contains(*n)) {
            self.failures.push(format!("{name}: no check knows it ({})", self.golden.meaning(name)));
        }
        (self.compared, self.failures)
    }
}

/// A 0-dimensional tensor's value.
pub fn value(t: &Tensor) -> f64 {
    t.to_kind(Kind::Double).double_value(&[])
}
