//! Beginning with another model's weights, where a part of the model may be another one.

use std::collections::BTreeSet;
use std::path::Path;

use base::Vars;

use crate::fill::{WEIGHTS_FILE, with_likely};
use crate::keymap::{matches, strip};
use crate::load::{LoadReport, Signature, load};
use crate::{Checkpoint, KeyMap, Result, TensorSource, Want};

/// Fills `vars` from `from`, a checkpoint or a model's directory, as strictly as [`crate::fill()`],
/// but for the `replaceable` parts (name patterns as in [`matches()`]): where the tensors of such a
/// part are not the file's in name and shape, all of its variables keep their values and the file's
/// are left out. The report lists them.
///
/// # Errors
/// Returns an error if the file cannot be read, or something else does not fit.
pub fn adopt(
    vars: &Vars,
    from: &Path,
    mut map: KeyMap,
    replaceable: &[&str],
    known: impl FnOnce() -> Vec<Signature>,
) -> Result<(LoadReport, Box<dyn TensorSource>)> {
    let inside = from.join(WEIGHTS_FILE);
    let file = if inside.is_file() { inside.as_path() } else { from };
    let checkpoint = Checkpoint::open(file)?;
    let source = checkpoint.source(Want::Auto)?;
    for part in replaceable {
        if !same_part(vars, source.as_ref(), part) {
            for pattern in [(*part).to_owned(), format!("{part}.**")] {
                map = map.drop(&pattern, "the model has another such part").optional(&pattern, "made anew");
            }
        }
    }
    let report =
        load(vars, source.as_ref(), &map).map_err(|e| with_likely(e, &checkpoint, source.as_ref(), known))?;
    Ok((report, source))
}

fn same_part(vars: &Vars, source: &dyn TensorSource, part: &str) -> bool {
    let here = vars.all().into_iter().filter(|v| matches(part, &v.name));
    let here: BTreeSet<(String, Vec<i64>)> = here.map(|v| (v.name, v.tensor.size())).collect();
    let shape = |name: &str| source.info(name).map(|i| i.shape).unwrap_or_default();
    let there = source.names().into_iter().map(|n| (strip(n), shape(n)));
    here == there.filter(|(n, _)| matches(part, n)).collect()
}
