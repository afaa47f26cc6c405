//! `gen eval --features a.npz --reference-features b.npz`: scores of features that are in files.

use std::path::Path;

use anyhow::{Context as _, Result};
use backbones::FeatureId;
use backbones::files::sha256;
use base::npz::Npz;
use choices::Metric;
use cli::eval::RunArgs;
use eval::{
    ADM_SPLIT_SIZE, Estimator, FIDELITY_SPLITS, KidSettings, Splits, Statistics, frechet_distance,
    frechet_of_features, inception_score, polynomial_mmd2,
};
use tch::{Kind, Tensor};

use super::metrics::needs_rows;
use super::report::Report;
use super::sets::{ADM_NEIGHBOURS, PRDC_NEIGHBOURS, Rows};
use super::values::{HIGHER, LOWER, Setting, Value};
use crate::context::{Context, Outcome};
use crate::failure::Failure;

/// What a file of features holds.
struct FeatureFile {
    pool: Option<Tensor>,
    logits: Option<Tensor>,
    spatial: Option<Tensor>,
    statistics: Option<Statistics>,
    id: Option<FeatureId>,
}

/// Names under which the features that distances are computed from may stand.
const POOL: [&str; 4] = ["pool", "features", "feats", "arr_0"];

impl FeatureFile {
    fn open(path: &Path) -> Result<Self> {
        let mut npz = Npz::open(path)?;
        let known = |name: &str| npz.info(name).is_some();
        let (has_logits, has_spatial, has_statistics) = (known("logits"), known("spatial"), known("mu"));
        let id = match npz.info("feature_id") {
            Some(_) => Some(serde_json::from_str(&npz.text("feature_id")?).context("array `feature_id`")?),
            None => None,
        };
        let pool = match pool_name(&npz) {
            Some(name) => Some(npz.read(&name)?),
            None => None,
        };
        let in_file = |what: String| move || format!("`{}`{what}", path.display());
        let statistics = match has_statistics {
            true => Some(
                Statistics::checked(&npz.read("mu")?, &npz.read("sigma")?, ["mu", "sigma"])
                    .with_context(in_file(String::new()))?,
            ),
            false => None,
        };
        if pool.is_none() && statistics.is_none() {
            let names: Vec<&str> = npz.arrays().iter().map(|a| a.name.as_str()).collect();
            let message = format!("`{}` holds no features, only {}", path.display(), names.join(", "));
            let hint = "features are a floating array (N, D) called `pool`, or the only one of that shape; `gen features` writes such files";
            return Err(Failure::new(message).hint(hint).into());
        }
        let mut read = |there: bool, name: &str| -> Result<Option<Tensor>> {
            if there { Ok(Some(npz.read(name)?)) } else { Ok(None) }
        };
        let (logits, spatial) = (read(has_logits, "logits")?, read(has_spatial, "spatial")?);
        for (name, rows) in [("the features", &pool), ("`logits`", &logits), ("`spatial`", &spatial)] {
            if let Some(rows) = rows {
                eval::finite_rows(rows).with_context(in_file(format!(": {name}")))?;
            }
        }
        Ok(FeatureFile { pool, logits, spatial, statistics, id })
    }

    fn rows(&self) -> Option<u64> {
        self.pool.as_ref().map(|p| p.size()[0] as u64)
    }
}

/// The array by its name, else the only floating one of two dimensions.
fn pool_name(npz: &Npz) -> Option<String> {
    let is_rows = |a: &&base::npz::ArrayInfo| {
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

/// Scores that are computed of features alone.
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

fn refuse_others(asked: &[Metric]) -> Result<()> {
    let Some(other) = asked.iter().find(|m| !OF_FEATURES.contains(m)) else { return Ok(()) };
    let names = OF_FEATURES.map(Metric::name).join(", ");
    let message = format!("`{}` is no score of features in files", other.name());
    Err(Failure::new(message).hint(format!("these are: {names}")).into())
}

/// Scores all that the files allow, or what of it was asked for.
pub fn run(samples: &Path, reference: &Path, args: &RunArgs, context: &Context) -> Result<Outcome> {
    refuse_others(&args.metrics)?;
    let (a, b) = (FeatureFile::open(samples)?, FeatureFile::open(reference)?);
    if let (Some(mine), Some(theirs)) = (&a.id, &b.id)
        && mine != theirs
    {
        let message = format!("`{}` holds {mine}, `{}` {theirs}", samples.display(), reference.display());
        return Err(Failure::new(message)
            .hint("only features of one network, in one way, may be compared")
            .into());
    }
    let setting = Setting {
        samples: a.rows().unwrap_or(0),
        reference: b.rows(),
        reference_sha256: Some(sha256(reference)?),
        resize: "as the features were made".into(),
        image_conversion: "as the features were made".into(),
        incomplete: false,
    };
    let mut both = Both { a: &a, b: &b, setting: &setting, args, values: vec![], left_out: vec![] };
    both.score()?;
    both.values.iter().try_for_each(Value::must_be_a_number)?;
    if both.values.is_empty() {
        let why = both.left_out.join("; ");
        return Err(Failure::new(format!("none of the scores can be had of these files: {why}")).into());
    }
    let mut report = Report::new(setting.clone(), both.values);
    report.samples.path = Some(samples.to_owned());
    report.reference_named(reference, &setting);
    report.warnings = both.left_out;
    report.print(args, context)?;
    Ok(Outcome::Done)
}

struct Both<'a> {
    a: &'a FeatureFile,
    b: &'a FeatureFile,
    setting: &'a Setting,
    args: &'a RunArgs,
    values: Vec<Value>,
    left_out: Vec<String>,
}

impl Both<'_> {
    fn score(&mut self) -> Result<()> {
        self.frechet()?;
        self.scores_of_logits()?;
        if !OF_FEATURES.iter().any(|&metric| needs_rows(metric) && self.wants(metric)) {
            return Ok(());
        }
        let (Some(x), Some(y)) = (&self.a.pool, &self.b.pool) else {
            self.left_out.push("one side holds statistics alone: no neighbours and no kernels".into());
            return Ok(());
        };
        let rows = Rows { samples: x, reference: y, network: self.a.id.as_ref(), setting: self.setting };
        let least = x.size()[0].min(y.size()[0]);
        self.neighbours(&rows, least)?;
        self.kernels(&rows, least)
    }

    fn wants(&self, metric: Metric) -> bool {
        self.args.metrics.is_empty() || self.args.metrics.contains(&metric)
    }

    /// Notes that a score was asked for by name and cannot be had.
    fn lacks(&mut self, metric: Metric, what: &str) {
        if self.args.metrics.contains(&metric) {
            self.left_out.push(format!("`{}` reads {what}, which a file lacks", metric.name()));
        }
    }

    fn value(&self, name: &str, value: f64, better: &'static str, variant: &str) -> Value {
        self.setting.value(name, value, better, variant).of(self.a.id.as_ref())
    }

    fn frechet(&mut self) -> Result<()> {
        if self.wants(Metric::Fid) {
            self.fid()?;
        }
        match (&self.a.spatial, &self.b.spatial) {
            (Some(x), Some(y)) if self.wants(Metric::Sfid) => {
                let variant = "Fréchet distance of features of places, float64 moments";
                let sfid = frechet_of_features(x, y)?;
                self.values.push(self.value("sfid", sfid, LOWER, variant));
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
        self.values.push(self.value("fid", fid, LOWER, "Fréchet distance of the features, float64 moments"));
        Ok(())
    }

    fn scores_of_logits(&mut self) -> Result<()> {
        let Some(logits) = &self.a.logits else {
            [Metric::Is, Metric::IsFidelity].into_iter().for_each(|m| self.lacks(m, "`logits`"));
            return Ok(());
        };
        if self.wants(Metric::Is) {
            let adm = inception_score(logits, &Splits::OfSize(ADM_SPLIT_SIZE))?;
            let value =
                self.value("is", adm.mean, HIGHER, "ADM: chunks of 5,000 in file order, mean over chunks");
            self.values.push(value.spread(adm.std).alone());
        }
        let rows = logits.size()[0] as u64;
        if rows < FIDELITY_SPLITS || !self.wants(Metric::IsFidelity) {
            if rows < FIDELITY_SPLITS {
                self.lacks(Metric::IsFidelity, "ten rows of `logits`");
            }
            return Ok(());
        }
        let shuffled = inception_score(logits, &Splits::fidelity(rows, FIDELITY_SPLITS))?;
        let variant = "torch-fidelity: 10 chunks in the order of RandomState(2020), mean over chunks";
        self.values
            .push(self.value("is_fidelity", shuffled.mean, HIGHER, variant).spread(shuffled.std).alone());
        Ok(())
    }

    fn neighbours(&mut self, rows: &Rows, least: i64) -> Result<()> {
        let (adm, other) =
            (self.args.neighbours.unwrap_or(ADM_NEIGHBOURS), self.args.neighbours.unwrap_or(PRDC_NEIGHBOURS));
        if !self.wants(Metric::Precision) && !self.wants(Metric::Recall) {
            // Not asked for.
        } else if least > adm {
            self.values.extend(rows.precision_recall(adm)?);
        } else {
            self.left_out.push(format!("precision and recall need more than {adm} rows"));
        }
        if !self.wants(Metric::Density) && !self.wants(Metric::Coverage) {
            // Not asked for.
        } else if least > other {
            self.values.extend(rows.density_coverage(other)?);
        } else {
            self.left_out.push(format!("density and coverage need more than {other} rows"));
        }
        Ok(())
    }

    fn kernels(&mut self, rows: &Rows, least: i64) -> Result<()> {
        if self.wants(Metric::Kid) {
            self.kid(rows, least)?;
        }
        if !self.wants(Metric::Cmmd) || least < 2 {
            return Ok(());
        }
        if unit_norm(rows.samples) && unit_norm(rows.reference) {
            self.values.push(rows.cmmd()?);
        } else {
            self.left_out.push("CMMD is of rows of norm 1, which these are not".into());
        }
        Ok(())
    }

    fn kid(&mut self, rows: &Rows, least: i64) -> Result<()> {
        if least < 2 {
            self.left_out.push("KID needs two rows".into());
            return Ok(());
        }
        let size = self.args.kid_subset_size.min(least as usize);
        let settings = KidSettings { subsets: self.args.kid_subsets, size, ..KidSettings::default() };
        self.values.push(rows.kid(&settings)?.0);
        let whole = [("mmd2", Estimator::Unbiased, "unbiased"), ("mmd2_biased", Estimator::Biased, "biased")];
        for (name, estimator, word) in whole {
            let variant = format!("KID's kernel over all rows at once, {word}");
            let found = polynomial_mmd2(rows.samples, rows.reference, estimator)?;
            self.values.push(self.value(name, found, LOWER, &variant));
        }
        Ok(())
    }
}

fn statistics(file: &FeatureFile) -> Result<Statistics> {
    Ok(match (&file.statistics, &file.pool) {
        (Some(s), _) => s.clone(),
        (None, Some(pool)) => eval::Moments::of(pool)?.statistics()?,
        (None, None) => return Err(Failure::new("internal error: a file without features").into()),
    })
}

fn unit_norm(rows: &Tensor) -> bool {
    let norms = rows.to_kind(Kind::Double).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    (norms - 1.0).abs().max().double_value(&[]) < 1e-3
}
