//! Sums over one network's features of one set of images.

use std::collections::BTreeMap;

use backbones::{FeatureId, Features};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use weights::TensorSource;

use crate::math::features::{at_least, same_dimension};
use crate::math::inception_score::InceptionScore;
use crate::{Error, Moments, Result, Splits};

/// Sums required by metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccumulateSpec {
    /// Number of groups of moments, image *i* in group *i* mod `groups`; 0 for none.
    pub groups: u64,
    /// Moments of the spatial features.
    pub spatial: bool,
    /// The rows themselves, as neighbours and kernels need them.
    pub rows: bool,
    /// Inception Scores, one for each way to form chunks.
    pub scores: Vec<Splits>,
}

impl AccumulateSpec {
    /// The union of both sets of sums.
    pub fn or(mut self, other: AccumulateSpec) -> AccumulateSpec {
        self.groups = self.groups.max(other.groups);
        self.spatial |= other.spatial;
        self.rows |= other.rows;
        self.scores.extend(other.scores);
        self
    }
}

/// Sums, and rows where they are asked for. Parts of one set merge.
#[derive(Debug)]
pub struct FeatureAccumulator {
    id: FeatureId,
    spec: AccumulateSpec,
    moments: Vec<Moments>,
    spatial: Option<Moments>,
    rows: BTreeMap<u64, Tensor>,
    scores: Vec<InceptionScore>,
    count: u64,
}

/// The part of a saved accumulator that is no tensor.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    id: FeatureId,
    count: u64,
    moments: Vec<u64>,
    spatial: Option<u64>,
}

impl FeatureAccumulator {
    /// Sums before the first image.
    pub fn new(id: FeatureId, spec: AccumulateSpec) -> Self {
        let scores = spec.scores.iter().map(|_| InceptionScore::default()).collect();
        FeatureAccumulator {
            id,
            spec,
            moments: vec![],
            spatial: None,
            rows: BTreeMap::new(),
            scores,
            count: 0,
        }
    }

    /// The network.
    pub fn id(&self) -> &FeatureId {
        &self.id
    }

    /// Number of images.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The outputs of a network that these sums read.
    pub fn reads(&self, features: Features) -> Features {
        let Features { pool, logits, spatial } = features;
        let logits = logits.filter(|_| !self.scores.is_empty());
        Features { pool, logits, spatial: spatial.filter(|_| self.spec.spatial) }
    }

    /// Adds a batch; `indices` are the images' numbers in their set.
    pub fn update(&mut self, features: &Features, indices: &[u64]) -> Result<()> {
        let n = features.pool.size()[0];
        if n != indices.len() as i64 {
            return Err(Error::Count { what: "rows of features", expected: indices.len() as i64, found: n });
        }
        if self.spec.groups > 0 {
            self.add_to_groups(&features.pool, indices)?;
        }
        if self.spec.spatial {
            let spatial = features.spatial.as_ref().ok_or(Error::NoOutput { what: "features of places" })?;
            self.spatial.get_or_insert_with(|| Moments::new(spatial.size()[1])).update(spatial)?;
        }
        if !self.scores.is_empty() {
            let logits = features.logits.as_ref().ok_or(Error::NoOutput { what: "class logits" })?;
            for (score, splits) in self.scores.iter_mut().zip(&self.spec.scores) {
                let chunks: Vec<u64> = indices.iter().map(|&i| splits.chunk(i)).collect();
                score.update(logits, &chunks)?;
            }
        }
        if self.spec.rows {
            for (row, &index) in indices.iter().enumerate() {
                self.add_row(index, features.pool.get(row as i64).to_kind(Kind::Float))?;
            }
        }
        self.count += n as u64;
        Ok(())
    }

    fn add_to_groups(&mut self, pool: &Tensor, indices: &[u64]) -> Result<()> {
        let groups = self.spec.groups;
        if self.moments.is_empty() {
            self.moments = (0..groups).map(|_| Moments::new(pool.size()[1])).collect();
        }
        for (g, moments) in (0..).zip(&mut self.moments) {
            let mine: Vec<i64> =
                (0..).zip(indices).filter(|(_, i)| **i % groups == g).map(|(row, _)| row).collect();
            if !mine.is_empty() {
                moments.update(&pool.index_select(0, &Tensor::from_slice(&mine)))?;
            }
        }
        Ok(())
    }

    fn add_row(&mut self, index: u64, row: Tensor) -> Result<()> {
        match self.rows.insert(index, row) {
            Some(_) => Err(Error::Twice { index }),
            None => Ok(()),
        }
    }

    /// Adds the sums of other images of the same set.
    pub fn merge(&mut self, other: FeatureAccumulator) -> Result<()> {
        if self.id != other.id {
            return Err(Error::OtherFeatures { expected: self.id.to_string(), found: other.id.to_string() });
        }
        if self.moments.is_empty() {
            self.moments = other.moments;
        } else {
            for (mine, theirs) in self.moments.iter_mut().zip(&other.moments) {
                mine.merge(theirs)?;
            }
        }
        match (&mut self.spatial, other.spatial) {
            (Some(mine), Some(theirs)) => mine.merge(&theirs)?,
            (None, theirs) => self.spatial = theirs,
            _ => {}
        }
        for (mine, theirs) in self.scores.iter_mut().zip(&other.scores) {
            mine.merge(theirs)?;
        }
        for (index, row) in other.rows {
            self.add_row(index, row)?;
        }
        self.count += other.count;
        Ok(())
    }

    /// Moments of all images.
    pub fn moments(&self) -> Result<Moments> {
        let mut groups = self.moments.iter();
        let mut all = groups.next().cloned().ok_or(Error::NoOutput { what: "moments" })?;
        groups.try_for_each(|group| all.merge(group))?;
        Ok(all)
    }

    /// Number of groups with images.
    pub fn groups_with_images(&self) -> usize {
        self.moments.iter().filter(|m| m.count() > 0).count()
    }

    /// Moments of all but one group, for each group: what a jackknife needs.
    pub fn without_each_group(&self) -> impl Iterator<Item = Result<Moments>> + '_ {
        (0..self.moments.len()).map(|left_out| {
            let mut rest = Moments::new(self.moments[0].dimension());
            for (_, group) in self.moments.iter().enumerate().filter(|(g, _)| *g != left_out) {
                rest.merge(group)?;
            }
            Ok(rest)
        })
    }

    /// Moments of the spatial features.
    pub fn spatial(&self) -> Result<&Moments> {
        self.spatial.as_ref().ok_or(Error::NoOutput { what: "features of places" })
    }

    /// The rows in the images' order, (N, D) fp32.
    pub fn rows(&self) -> Result<Tensor> {
        at_least("neighbours and kernels", 1, self.rows.len() as i64)?;
        let rows: Vec<&Tensor> = self.rows.values().collect();
        Ok(Tensor::stack(&rows, 0))
    }

    /// The Inception Score over the chunks that `wanted` chooses.
    pub fn inception_score(&self, wanted: impl Fn(&Splits) -> bool) -> Option<&InceptionScore> {
        let place = self.spec.scores.iter().position(wanted)?;
        self.scores.get(place)
    }

    /// The Inception Scores, in the order in which they were asked for.
    pub fn scores(&self) -> &[InceptionScore] {
        &self.scores
    }

    /// The sums as tensors under `prefix`, and the rest as JSON.
    pub fn save(&self, prefix: &str) -> Result<(Vec<(String, Tensor)>, String)> {
        let mut tensors = vec![];
        let all = self.moments.iter().enumerate().map(|(g, m)| (format!("moments{g}"), m));
        for (name, moments) in all.chain(self.spatial.iter().map(|m| ("spatial".to_owned(), m))) {
            tensors.push((format!("{prefix}.{name}.mean"), moments.mean().copy()));
            tensors.push((format!("{prefix}.{name}.scatter"), moments.upper()));
        }
        if !self.rows.is_empty() {
            let indices: Vec<i64> = self.rows.keys().map(|&i| i as i64).collect();
            tensors.push((format!("{prefix}.rows.index"), Tensor::from_slice(&indices)));
            tensors.push((format!("{prefix}.rows"), self.rows()?));
        }
        for (s, score) in self.scores.iter().enumerate() {
            let parts = score.parts().into_iter().flatten().enumerate();
            tensors.extend(parts.map(|(part, tensor)| (format!("{prefix}.score{s}.{part}"), tensor)));
        }
        let head = Head {
            id: self.id.clone(),
            count: self.count,
            moments: self.moments.iter().map(Moments::count).collect(),
            spatial: self.spatial.as_ref().map(Moments::count),
        };
        Ok((tensors, serde_json::to_string(&head).map_err(|e| Error::Saved(e.to_string()))?))
    }

    /// Reads the sums that [`FeatureAccumulator::save`] wrote; `spec` must be the same.
    pub fn load(spec: AccumulateSpec, source: &dyn TensorSource, prefix: &str, head: &str) -> Result<Self> {
        let head: Head = serde_json::from_str(head).map_err(|e| Error::Saved(e.to_string()))?;
        let read = |name: String| {
            source.read(&format!("{prefix}.{name}"), Device::Cpu).map_err(|e| Error::Saved(e.to_string()))
        };
        let moments = |name: &str, n: u64| {
            Moments::from_parts(n, read(format!("{name}.mean"))?, &read(format!("{name}.scatter"))?)
        };
        let mut accumulator = FeatureAccumulator::new(head.id, spec);
        accumulator.count = head.count;
        for (g, &n) in head.moments.iter().enumerate() {
            accumulator.moments.push(moments(&format!("moments{g}"), n)?);
        }
        accumulator.spatial = head.spatial.map(|n| moments("spatial", n)).transpose()?;
        if accumulator.spec.rows && head.count > 0 {
            let rows = read("rows".into())?;
            let indices = Vec::<i64>::try_from(read("rows.index".into())?)?;
            same_dimension(rows.size()[0], indices.len() as i64)?;
            for (row, index) in (0..).zip(indices) {
                accumulator.add_row(index as u64, rows.get(row))?;
            }
        }
        if head.count > 0 {
            for (s, score) in accumulator.scores.iter_mut().enumerate() {
                let part = |p: u8| read(format!("score{s}.{p}"));
                *score = InceptionScore::from_parts([part(0)?, part(1)?, part(2)?, part(3)?])?;
            }
        }
        Ok(accumulator)
    }
}
