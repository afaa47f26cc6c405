//! A model with its weights.

use base::Vars;

use crate::{Result, TensorSource, fingerprint_source};

/// A model `M` that was built from a configuration `C` and filled from a file.
pub struct Loaded<M, C> {
    /// The network.
    pub model: M,
    /// Its configuration.
    pub config: C,
    /// Its variables.
    pub vars: Vars,
    /// The section of the file that its weights were read from.
    pub source: Box<dyn TensorSource>,
}

impl<M, C> Loaded<M, C> {
    /// Hash of the weights in the file, whatever precision they were loaded in. Reads all of them.
    ///
    /// # Errors
    /// Returns an error if the file can no longer be read.
    pub fn fingerprint(&self) -> Result<String> {
        fingerprint_source(self.source.as_ref())
    }
}
