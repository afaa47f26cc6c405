//! A short name for a set of tensors.

use base::hash::{Sha256, sha256};
use libtorch_ext::bytes::with_bytes;
use rayon::prelude::*;
use tch::{Kind, Tensor};

use crate::{Error, Result, TensorSource};

/// The first 16 hexadecimal digits of SHA-256 over names, shapes, dtypes and bytes; the order of
/// the tensors does not count. Equal for the same tensors however they are stored, and for
/// [`fingerprint_source`].
pub fn fingerprint(tensors: &[(String, Tensor)]) -> Result<String> {
    let digest = |(name, t): &(String, Tensor)| {
        let hash =
            with_bytes(t, |bytes| sha256(bytes)).map_err(|e| Error::torch(format!("reading `{name}`"), e))?;
        Ok(line(name, t.kind(), &t.size(), hash))
    };
    Ok(combine(tensors.iter().map(digest).collect::<Result<_>>()?))
}

/// [`fingerprint`] of tensors in a file: it does not depend on the precision they are
/// loaded in. Reads everything, on all cores.
pub fn fingerprint_source(source: &dyn TensorSource) -> Result<String> {
    let digest = |name: &&str| {
        let info =
            source.info(name).ok_or_else(|| Error::no_tensor(source.origin(), name, &source.names()))?;
        let hash = sha256(source.bytes(name)?);
        Ok(line(name, info.kind, &info.shape, hash))
    };
    Ok(combine(source.names().par_iter().map(digest).collect::<Result<_>>()?))
}

fn line(name: &str, kind: Kind, shape: &[i64], hash: [u8; 32]) -> Vec<u8> {
    let mut line = format!("{name}\0{kind:?}\0{shape:?}\0").into_bytes();
    line.extend(hash);
    line
}

fn combine(mut lines: Vec<Vec<u8>>) -> String {
    lines.sort_unstable();
    let mut all = Sha256::default();
    for line in lines {
        all.update((line.len() as u64).to_le_bytes());
        all.update(line);
    }
    all.fingerprint()
}
