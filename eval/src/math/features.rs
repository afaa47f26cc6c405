//! Rows of features as metrics take them.

use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Refuses anything but finite numbers in two dimensions.
///
/// # Errors
/// It is something else; of values that are not finite the first row is named.
pub fn finite_rows(features: &Tensor) -> Result<()> {
    rows(features).map(drop)
}

/// Feature rows as float64 (N, D); rejects anything but finite numbers in two dimensions.
pub(crate) fn rows(features: &Tensor) -> Result<Tensor> {
    let floating = matches!(features.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16);
    let size = features.size();
    if size.len() != 2 || size[1] == 0 || !floating {
        return Err(Error::NotRows { shape: size, kind: features.kind() });
    }
    let x = features.to_kind(Kind::Double);
    let good = x.isfinite().all_dim(1, false); // (N)
    if !bool::try_from(good.all())? {
        let first = good.to_kind(Kind::Int64).argmin(None, false).int64_value(&[]);
        return Err(Error::NotFinite { row: first });
    }
    Ok(x)
}

/// Two sets of rows with one dimension.
pub(crate) fn two_sets(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let (a, b) = (rows(a)?, rows(b)?);
    same_dimension(b.size()[1], a.size()[1])?;
    Ok((a, b))
}

pub(crate) fn same_dimension(expected: i64, found: i64) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Dimension { expected, found }) }
}

pub(crate) fn at_least(metric: &'static str, needed: i64, found: i64) -> Result<()> {
    if found >= needed { Ok(()) } else { Err(Error::TooFew { metric, needed, found }) }
}
