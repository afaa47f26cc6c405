//! Scores of two sets of feature rows that are at hand.

use anyhow::Result;
use backbones::FeatureId;
use eval::{KidSettings, Manifold, kid, prdc, precision_recall};
use tch::Tensor;

use super::values::{HIGHER, LOWER, Setting, Value};

/// ADM's neighbours.
pub const ADM_NEIGHBOURS: i64 = 3;
/// prdc's neighbours.
pub const PRDC_NEIGHBOURS: i64 = 5;

/// Rows (N, D) of both sides, and whose they are.
pub struct Rows<'a> {
    /// What is judged.
    pub samples: &'a Tensor,
    /// What it is compared with.
    pub reference: &'a Tensor,
    /// The network.
    pub network: Option<&'a FeatureId>,
    /// What the scores share.
    pub setting: &'a Setting,
}

impl Rows<'_> {
    fn value(&self, name: &str, value: f64, better: &'static str, variant: &str) -> Value {
        let reference = self.reference.size()[0] as u64;
        self.setting.value(name, value, better, variant).of(self.network).against(Some(reference))
    }

    /// Precision and recall as ADM takes them.
    pub fn precision_recall(&self, k: i64) -> Result<[Value; 2]> {
        let found = precision_recall(&Manifold::new(self.samples, k)?, &Manifold::new(self.reference, k)?)?;
        let variant = format!("ADM: k = {k}, on the surface counts, float64 distances");
        Ok([
            self.value("precision", found.precision, HIGHER, &variant),
            self.value("recall", found.recall, HIGHER, &variant),
        ])
    }

    /// Density and coverage as prdc takes them; its precision and recall beside them.
    pub fn density_coverage(&self, k: i64) -> Result<[Value; 4]> {
        let found = prdc(&Manifold::new(self.samples, k)?, &Manifold::new(self.reference, k)?)?;
        let variant = format!("prdc: k = {k}, on the surface does not count, float64 distances");
        Ok([
            self.value("density", found.density, HIGHER, &variant),
            self.value("coverage", found.coverage, HIGHER, &variant),
            self.value("precision_prdc", found.precision, HIGHER, &variant),
            self.value("recall_prdc", found.recall, HIGHER, &variant),
        ])
    }

    /// KID over subsets.
    pub fn kid(&self, settings: &KidSettings) -> Result<(Value, Vec<f64>)> {
        let found = kid(self.samples, self.reference, settings)?;
        let variant = format!(
            "unbiased, {} subsets of {} drawn as torch-fidelity does, not multiplied by 1000",
            settings.subsets, settings.size
        );
        Ok((self.value("kid", found.mean, LOWER, &variant).spread(found.std), found.subsets))
    }

    /// CMMD.
    pub fn cmmd(&self) -> Result<Value> {
        let found = eval::cmmd(self.samples, self.reference)?;
        Ok(self.value("cmmd", found, LOWER, "Gaussian kernel, sigma 10, biased, times 1000, float64"))
    }
}
