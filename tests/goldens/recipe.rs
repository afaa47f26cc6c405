//! Weights that a manifest does not store but describes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use base::Vars;
use base::testing::synthetic_values;
use serde::Deserialize;
use serde_json::Value;
use tch::{Kind, Tensor};
use weights::{KeyMap, Origin, TensorInfo, TensorSource};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    shape: Vec<i64>,
    lo: f64,
    hi: f64,
    /// Further operation on the values, in words.
    #[serde(default)]
    then: Option<String>,
}

/// The only operation of tables after drawing.
const UNIT: &str = "divided by its 2-norm";

/// A table of recipe tensors, as a file to load from.
pub struct Recipe {
    origin: Origin,
    seed: u64,
    entries: Vec<Entry>,
    /// The table's names start with it, the model's do not.
    prefix: String,
    given: BTreeMap<String, Vec<f32>>,
}

impl Recipe {
    /// `table` is a list of entries; names in it begin with `prefix`, which belongs to the recipe
    /// only.
    pub fn new(seed: &Value, table: &Value, prefix: &str) -> Result<Self> {
        let entries: Vec<Entry> = serde_json::from_value(table.clone()).context("recipe table")?;
        if let Some(e) = entries.iter().find(|e| !e.name.starts_with(prefix)) {
            bail!("recipe table: `{}` does not begin with `{prefix}`", e.name);
        }
        if let Some(other) = entries.iter().filter_map(|e| e.then.as_deref()).find(|t| *t != UNIT) {
            bail!("recipe table: what is `{other}`?");
        }
        let origin = Origin { path: PathBuf::from("recipe"), section: None };
        let seed = seed.as_u64().context("recipe table: no seed")?;
        Ok(Recipe { origin, seed, entries, prefix: prefix.to_owned(), given: BTreeMap::new() })
    }

    /// A tensor that replaces the recipe's.
    pub fn give(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        self.given.insert(name.to_owned(), Vec::try_from(tensor.reshape([-1]))?);
        Ok(())
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name.strip_prefix(&self.prefix) == Some(name))
    }

    /// Fills every parameter of `vars` strictly. Buffers that match one of `initial` are not in
    /// tables: they keep their initial value.
    pub fn load(&self, vars: &Vars, initial: &[&str]) -> Result<()> {
        let map = initial
            .iter()
            .fold(KeyMap::identity(), |m, pattern| m.optional(pattern, "starts from its initial value"));
        weights::load(vars, self, &map)?;
        Ok(())
    }
}

impl TensorSource for Recipe {
    fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|e| &e.name[self.prefix.len()..]).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let shape = self.entry(name)?.shape.clone();
        let bytes = 4 * shape.iter().product::<i64>() as u64;
        Some(TensorInfo { shape, kind: Kind::Float, bytes })
    }

    fn bytes(&self, name: &str) -> weights::Result<Cow<'_, [u8]>> {
        let entry = self.entry(name).expect("only names of the table are asked for");
        let mut values: Vec<f32> = match self.given.get(name) {
            Some(values) => values.clone(),
            None => {
                let n = entry.shape.iter().product::<i64>() as usize;
                synthetic_values(&entry.name, self.seed, n, entry.lo, entry.hi)
            }
        };
        if entry.then.is_some() {
            let norm = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            values.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
        }
        Ok(Cow::Owned(values.iter().flat_map(|v| v.to_ne_bytes()).collect()))
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }
}
