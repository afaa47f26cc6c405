//! Filling a model's variables from a file, strictly.

use std::collections::{HashMap, HashSet};

use base::Vars;
use base::hint::nearest;
use tch::Kind;

use crate::keymap::{KeyMap, Mapped};
use crate::{Error, LoadFailure, Mismatch, Origin, Result, TensorSource};

/// A tensor of the file that was left out on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its name in the file.
    pub name: String,
    /// The key map's reason.
    pub because: String,
}

/// Report of a successful load.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// File and section.
    pub origin: Origin,
    /// Variables that were filled.
    pub applied: Vec<String>,
    /// Tensors left out, and why.
    pub dropped: Vec<Dropped>,
    /// Variables that the key map lets keep their value, and why.
    pub kept: Vec<Dropped>,
}

/// Fills every variable from `source`, through `map`.
///
/// Strict: a variable without a tensor, a tensor without a variable, another shape, a floating
/// tensor for an integer variable (or the reverse) are errors, found before anything is changed.
/// Tensors are read one at a time, cast to the variable's dtype and put in its place, so no second
/// copy of the model exists.
pub fn load(vars: &Vars, source: &dyn TensorSource, map: &KeyMap) -> Result<LoadReport> {
    let plan = Plan::new(vars, source, map)?;
    let _guard = tch::no_grad_guard();
    for (name, mut variable) in plan.steps {
        let tensor = source.read(&name, tch::Device::Cpu)?;
        // The cast comes first: the narrower of the two crosses to the device.
        tensor
            .f_to_kind(variable.kind())
            .and_then(|t| t.f_to_device(variable.device()))
            .and_then(|t| variable.f_set_data(&t))
            .map_err(|e| Error::torch(format!("loading tensor `{name}` of {}", source.origin()), e))?;
    }
    Ok(plan.report)
}

struct Plan {
    steps: Vec<(String, tch::Tensor)>,
    report: LoadReport,
}

impl Plan {
    fn new(vars: &Vars, source: &dyn TensorSource, map: &KeyMap) -> Result<Self> {
        let variables: HashMap<String, tch::Tensor> =
            vars.all().into_iter().map(|v| (v.name, v.tensor)).collect();
        let origin = source.origin().clone();
        let mut report =
            LoadReport { origin: origin.clone(), applied: vec![], dropped: vec![], kept: vec![] };
        let mut failure = LoadFailure::new(origin, variables.len());
        let mut steps = vec![];
        let mut used = HashSet::new();
        for name in source.names() {
            let target = match map.apply(name) {
                Mapped::To(target) => target,
                Mapped::Dropped { because } => {
                    report.dropped.push(Dropped { name: name.into(), because: because.into() });
                    continue;
                }
            };
            let Some(variable) = variables.get(&target) else {
                failure.unexpected.push(name.into());
                continue;
            };
            if let Some(mismatch) = mismatch(&target, variable, source, name)? {
                failure.mismatched.push(mismatch);
            }
            if used.insert(target.clone()) {
                steps.push((name.to_owned(), variable.shallow_clone()));
                report.applied.push(target);
            } else {
                failure.doubled.push(name.into());
            }
        }
        for variable in vars.all().into_iter().filter(|v| !used.contains(&v.name)) {
            match map.may_be_missing(&variable.name) {
                Some(because) => {
                    report.kept.push(Dropped { name: variable.name, because: because.into() });
                }
                None => failure.missing.push((variable.name, None)),
            }
        }
        failure.finish()?;
        Ok(Plan { steps, report })
    }
}

impl LoadFailure {
    fn new(origin: Origin, variables: usize) -> Self {
        LoadFailure {
            origin,
            variables,
            missing: vec![],
            unexpected: vec![],
            mismatched: vec![],
            doubled: vec![],
            likely: vec![],
        }
    }

    fn finish(mut self) -> Result<()> {
        let lists = [self.missing.len(), self.unexpected.len(), self.mismatched.len(), self.doubled.len()];
        if lists.iter().all(|&n| n == 0) {
            return Ok(());
        }
        // One suggestion is enough, and comparing thousands of names with thousands is slow.
        if let Some((name, near)) = self.missing.first_mut() {
            let candidates = self.unexpected.iter().map(String::as_str);
            *near = nearest(name, candidates, 1).first().map(|&n| n.to_owned());
        }
        Err(Error::Load(Box::new(self)))
    }
}

fn mismatch(
    target: &str,
    variable: &tch::Tensor,
    source: &dyn TensorSource,
    name: &str,
) -> Result<Option<Mismatch>> {
    if let Some(unsupported) = source.unsupported(name) {
        return Err(Error::unsupported(source.origin(), name, unsupported));
    }
    let info = source.info(name).ok_or_else(|| Error::no_tensor(source.origin(), name, &source.names()))?;
    let expected = (variable.size(), variable.kind());
    if info.shape != expected.0 {
        return Ok(Some(Mismatch {
            name: target.into(),
            expected: format!("{:?}", expected.0),
            found: format!("{:?}", info.shape),
        }));
    }
    if floating(info.kind) != floating(expected.1) {
        return Ok(Some(Mismatch {
            name: target.into(),
            expected: format!("{:?}", expected.1),
            found: format!("{:?}", info.kind),
        }));
    }
    Ok(None)
}

fn floating(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}

/// Names and shapes in a known model's checkpoint.
#[derive(Debug, Clone)]
pub struct Signature {
    /// Name.
    pub name: String,
    /// Advice for such a file: "try `--tokenizer …`".
    pub advice: String,
    /// Names and shapes that together distinguish it from the others; all of them, or a few.
    pub tensors: Vec<(String, Vec<i64>)>,
}

impl Signature {
    /// A sentence for a hint.
    pub fn sentence(&self) -> String {
        format!("the file looks like {}; {}", self.name, self.advice)
    }
}

/// The known models whose every signature tensor the source has, in the shape given; of these, the
/// ones that account for most of the file.
pub fn likely<'a>(source: &dyn TensorSource, known: &'a [Signature]) -> Vec<&'a Signature> {
    let names = source.names();
    let stripped: HashMap<String, &str> = names.iter().map(|n| (crate::keymap::strip(n), *n)).collect();
    let has = |(name, shape): &(String, Vec<i64>)| {
        stripped.get(name).and_then(|n| source.info(n)).is_some_and(|info| info.shape == *shape)
    };
    let fits = |s: &&Signature| !s.tensors.is_empty() && s.tensors.iter().all(has);
    let found: Vec<&Signature> = known.iter().filter(fits).collect();
    let most = found.iter().map(|s| s.tensors.len()).max();
    found.into_iter().filter(|s| Some(s.tensors.len()) == most).collect()
}
