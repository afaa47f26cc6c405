//! Scores of features in files.

use std::path::{Path, PathBuf};

use backbones::FeatureId;
use backbones::files::sha256;
use base::npz::{ArrayInfo, Npz};
use settings::Metric;
use tch::{Kind, Tensor};

use crate::job_error::JobError;
use crate::math::features::finite_rows;
use crate::math::frechet::{frechet_distance, frechet_of_features};
use crate::math::inception_score::{ADM_SPLIT_SIZE, FIDELITY_SPLITS, Splits, inception_score};
use crate::math::kernel::{Estimator, KidSettings, polynomial_mmd2};
use crate::math::moments::{Moments, Statistics};
use crate::metric::MetricOptions;
use crate::metrics::inception_score::{ADM, TORCH_FIDELITY};
use crate::metrics::{cmmd, density_coverage, kid, precision_recall, spec};
use crate::rows::FeatureRows;
use crate::score::{Better, Score, ScoreContext};
use crate::{Error, Result};

/// Features in files, to be scored.
#[derive(Debug)]
pub struct FeatureFilesJob {
    /// File of the features judged.
    pub samples: PathBuf,
    /// File of the features compared with.
    pub reference: PathBuf,
    /// Metrics; empty for all that the files allow.
    pub metrics: Vec<Metric>,
    /// Options of metrics.
    pub options: MetricOptions,
}

/// Scores of features in files.
#[derive(Debug)]
pub struct FeatureFilesResult {
    /// Facts that all scores share.
    pub context: ScoreContext,
    /// The scores.
    pub scores: Vec<Score>,
    /// Reasons for scores that the files do not give.
    pub left_out: Vec<String>,
}

/// Contents of a file of features.
struct FeatureFile {
    pool: Option<Tensor>,
    logits: Option<Tensor>,
    spatial: Option<Tensor>,
    statistics: Option<Statistics>,
    id: Option<FeatureId>,
}

/// Names of the array of features that distances are computed from.
const POOL: [&str; 4] = ["pool", "features", "feats", "arr_0"];

impl FeatureFile {
    fn open(path: &Path) -> Result<Self> {
        let mut npz = Npz::open(path)?;
        let known = |name: &str| npz.info(name).is_some();
        let (has_logits, has_spatial, has_statistics) = (known("logits"), known("spatial"), known("mu"));
        let id = match npz.info("feature_id") {
            Some(_) => Some(feature_id(&npz.text("feature_id")?)?),
            None => None,
        };
        let pool = match pool_name(&npz) {
            Some(name) => Some(npz.read(&name)?),
            None => None,
        };
        let in_file = |part: &'static str| {
            move |error| Error::InFilePart { path: path.to_owned(), part, error: Box::new(error) }
        };
        let statistics = match has_statistics {
            true => {
                let checked = Statistics::checked(&npz.read("mu")?, &npz.read("sigma")?, ["mu", "sigma"]);
                Some(checked.map_err(in_file(""))?)
            }
            false => None,
        };
        if pool.is_none() && statistics.is_none() {
            let arrays = npz.arrays().iter().map(|a| a.name.clone()).collect();
            return Err(JobError::NoFeatures { path: path.to_owned(), arrays }.into());
        }
        let mut read = |there: bool, name: &str| -> Result<Option<Tensor>> {
            if there { Ok(Some(npz.read(name)?)) } else { Ok(None) }
        };
        let (logits, spatial) = (read(has_logits, "logits")?, read(has_spatial, "spatial")?);
        for (name, rows) in [(": the features", &pool), (": `logits`", &logits), (": `spatial`", &spatial)] {
            if let Some(rows) = rows {
                finite_rows(rows).map_err(in_file(name))?;
            }
        }
        Ok(FeatureFile { pool, logits, spatial, statistics, id })
    }

    fn rows(&self) -> Option<u64> {
        self.pool.as_ref().map(|p| p.size()[0] as u64)
    }
}

fn feature_id(text: &str) -> Result<FeatureId> {
    serde_json::from_str(text).map_err(|e| Error::Saved(format!("array `feature_id`: {e}")))
}

/// The array by its name, else the only floating one of two dimensions.
fn pool_name(npz: &Npz) -> Option<String> {
    let is_rows = |a: &&ArrayInfo| {
        a.shape.len() == 2 && matches!(a.kind, Some(Kind::Float | Kind::Double | Kind::Half))
    };
    let others = ["logits", "spatial", "sigma", "sigma_s"];
    let all: Vec<&str> = npz
        .arrays()
        .iter()
        .filter(is_rows)
        .map(|a| a.name.as_str())
        .filter(|n| !others.contains(n))
        .collect();
    let named = POOL.iter().find(|n| all.contains(*n)).map(|n| (*n).to_owned());
    named.or_else(|| (all.len() == 1).then(|| all[0].to_owned()))
}

/// Metrics of features alone.
const OF_FEATURES: [Metric; 10] = [
    Metric::Fid,
    Metric::Sfid,
    Metric::Is,
    Metric::IsFidelity,
    Metric::Precision,
    Metric::Recall,
    Metric::Density,
    Metric::Coverage,
    Metric::Kid,
    Metric::Cmmd,
];

impl FeatureFilesJob {
    /// Scores all that the files allow, or what of it was asked for.
    ///
    /// # Errors
    /// Returns an error if a file holds no features, if the files hold different ones, or if they
    /// give no score.
    pub fn run(&self) -> Result<FeatureFilesResult> {
        if let Some(&metric) = self.metrics.iter().find(|m| !OF_FEATURES.contains(m)) {
            let known = OF_FEATURES.map(Metric::name).join(", ");
            return Err(JobError::NotOfFeatures { metric, known }.into());
        }
        let (a, b) = (FeatureFile::open(&self.samples)?, FeatureFile::open(&self.reference)?);
        if let (Some(mine), Some(theirs)) = (&a.id, &b.id)
            && mine != theirs
        {
            let (mine, theirs) = (mine.to_string(), theirs.to_string());
            let (samples, reference) = (self.samples.clone(), self.reference.clone());
            return Err(JobError::OtherFeatureFile { samples, mine, reference, theirs }.into());
        }
        let context = ScoreContext {
            samples: a.rows().unwrap_or(0),
            reference: b.rows(),
            reference_sha256: Some(sha256(&self.reference)?),
            resize: "as the features were made".into(),
            image_conversion: "as the features were made".into(),
            incomplete: false,
        };
        let mut both = Both { a: &a, b: &b, context: &context, job: self, scores: vec![], left_out: vec![] };
        both.score()?;
        let Both { scores, left_out, .. } = both;
        scores.iter().try_for_each(Score::check)?;
        if scores.is_empty() {
            return Err(JobError::NoScores { why: left_out.join("; ") }.into());
        }
        Ok(FeatureFilesResult { context, scores, left_out })
    }
}

struct Both<'a> {
    a: &'a FeatureFile,
    b: &'a FeatureFile,
    context: &'a ScoreContext,
    job: &'a FeatureFilesJob,
    scores: Vec<Score>,
    left_out: Vec<String>,
}

impl Both<'_> {
    fn score(&mut self) -> Result<()> {
        self.frechet()?;
        self.scores_of_logits()?;
        if !OF_FEATURES.iter().any(|&metric| spec(metric).needs.rows && self.wants(metric)) {
            return Ok(());
        }
        let (Some(x), Some(y)) = (&self.a.pool, &self.b.pool) else {
            self.left_out.push("one side holds statistics alone: no neighbours and no kernels".into());
            return Ok(());
        };
        let network = self.a.id.as_ref();
        let rows = FeatureRows { samples: x, reference: y, network, context: self.context };
        let least = x.size()[0].min(y.size()[0]);
        self.neighbours(&rows, least)?;
        self.kernels(&rows, least)
    }

    fn wants(&self, metric: Metric) -> bool {
        self.job.metrics.is_empty() || self.job.metrics.contains(&metric)
    }

    /// Notes that a score was asked for by name and cannot be had.
    fn lacks(&mut self, metric: Metric, what: &str) {
        if self.job.metrics.contains(&metric) {
            self.left_out.push(format!("`{}` reads {what}, which a file lacks", metric.name()));
        }
    }

    fn number(&self, name: &str, value: f64, better: Better, variant: &str) -> Score {
        self.context.score(name, value, better, variant).of(self.a.id.as_ref())
    }

    fn frechet(&mut self) -> Result<()> {
        if self.wants(Metric::Fid) {
            self.fid()?;
        }
        match (&self.a.spatial, &self.b.spatial) {
            (Some(x), Some(y)) if self.wants(Metric::Sfid) => {
                let variant = "Fréchet distance of features of places, float64 moments";
                let sfid = frechet_of_features(x, y)?;
                self.scores.push(self.number("sfid", sfid, Better::Lower, variant));
            }
            (Some(_), Some(_)) => {}
            _ => self.lacks(Metric::Sfid, "features of places (`spatial`)"),
        }
        Ok(())
    }

    fn fid(&mut self) -> Result<()> {
        let fid = match (&self.a.pool, &self.b.pool) {
            (Some(x), Some(y)) => frechet_of_features(x, y)?,
            _ => frechet_distance(&statistics(self.a)?, &statistics(self.b)?)?,
        };
        self.scores.push(self.number(
            "fid",
            fid,
            Better::Lower,
            "Fréchet distance of the features, float64 moments",
        ));
        Ok(())
    }

    fn scores_of_logits(&mut self) -> Result<()> {
        let Some(logits) = &self.a.logits else {
            [Metric::Is, Metric::IsFidelity].into_iter().for_each(|m| self.lacks(m, "`logits`"));
            return Ok(());
        };
        if self.wants(Metric::Is) {
            let adm = inception_score(logits, &Splits::OfSize(ADM_SPLIT_SIZE))?;
            let value = self.number("is", adm.mean, Better::Higher, ADM);
            self.scores.push(value.with_std(adm.std).without_reference());
        }
        let rows = logits.size()[0] as u64;
        if rows < FIDELITY_SPLITS || !self.wants(Metric::IsFidelity) {
            if rows < FIDELITY_SPLITS {
                self.lacks(Metric::IsFidelity, "ten rows of `logits`");
            }
            return Ok(());
        }
        let shuffled = inception_score(logits, &Splits::fidelity(rows, FIDELITY_SPLITS))?;
        self.scores.push(
            self.number("is_fidelity", shuffled.mean, Better::Higher, TORCH_FIDELITY)
                .with_std(shuffled.std)
                .without_reference(),
        );
        Ok(())
    }

    fn neighbours(&mut self, rows: &FeatureRows, least: i64) -> Result<()> {
        let (adm, other) = (precision_recall::k(&self.job.options), density_coverage::k(&self.job.options));
        if !self.wants(Metric::Precision) && !self.wants(Metric::Recall) {
            // Not asked for.
        } else if least > adm {
            self.scores.extend(precision_recall::scores(rows, adm)?);
        } else {
            self.left_out.push(format!("precision and recall need more than {adm} rows"));
        }
        if !self.wants(Metric::Density) && !self.wants(Metric::Coverage) {
            // Not asked for.
        } else if least > other {
            self.scores.extend(density_coverage::scores(rows, other)?);
        } else {
            self.left_out.push(format!("density and coverage need more than {other} rows"));
        }
        Ok(())
    }

    fn kernels(&mut self, rows: &FeatureRows, least: i64) -> Result<()> {
        if self.wants(Metric::Kid) {
            self.kid(rows, least)?;
        }
        if !self.wants(Metric::Cmmd) || least < 2 {
            return Ok(());
        }
        if unit_norm(rows.samples) && unit_norm(rows.reference) {
            self.scores.push(cmmd::score(rows)?);
        } else {
            self.left_out.push("CMMD is of rows of norm 1, which these are not".into());
        }
        Ok(())
    }

    fn kid(&mut self, rows: &FeatureRows, least: i64) -> Result<()> {
        if least < 2 {
            self.left_out.push("KID needs two rows".into());
            return Ok(());
        }
        let KidSettings { subsets, size, seed } = self.job.options.kid;
        let settings = KidSettings { subsets, size: size.min(least as usize), seed };
        self.scores.push(kid::score(rows, &settings)?);
        let whole = [("mmd2", Estimator::Unbiased, "unbiased"), ("mmd2_biased", Estimator::Biased, "biased")];
        for (name, estimator, word) in whole {
            let variant = format!("KID's kernel over all rows at once, {word}");
            let found = polynomial_mmd2(rows.samples, rows.reference, estimator)?;
            self.scores.push(self.number(name, found, Better::Lower, &variant));
        }
        Ok(())
    }
}

fn statistics(file: &FeatureFile) -> Result<Statistics> {
    Ok(match (&file.statistics, &file.pool) {
        (Some(s), _) => s.clone(),
        (None, Some(pool)) => Moments::of(pool)?.statistics()?,
        (None, None) => return Err(Error::Internal("a file without features")),
    })
}

fn unit_norm(rows: &Tensor) -> bool {
    let norms = rows.to_kind(Kind::Double).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    (norms - 1.0).abs().max().double_value(&[]) < 1e-3
}
