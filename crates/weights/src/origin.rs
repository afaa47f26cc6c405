//! Place of a checkpoint's tensors, and tensors in forms that are not read.

use std::path::PathBuf;

/// Values of weights in a form that is not read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Its dtype, layout or class: `torch.float8_e4m3fn`, "a quantized tensor".
    pub what: String,
    /// Form to save instead.
    pub advice: Option<String>,
}

impl Unsupported {
    pub(crate) fn new(what: impl Into<String>, advice: &str) -> Self {
        Unsupported { what: what.into(), advice: Some(advice.into()) }
    }

    /// A dtype that libtorch's C++ side or tch lacks.
    pub(crate) fn dtype(name: String) -> Self {
        Unsupported { what: name, advice: None }
    }

    /// A tensor whose parts are in the files of several processes.
    pub(crate) fn sharded(class: &str) -> Self {
        let advice = "save the full tensor: `tensor.full_tensor()`, or `get_model_state_dict` with \
                      `StateDictOptions(full_state_dict=True)`";
        Unsupported::new(format!("a sharded tensor ({class})"), advice)
    }
}

/// File and section that tensors come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// File (or directory of shards).
    pub path: PathBuf,
    /// Section of a training dictionary; `None` for tensors at the top level.
    pub section: Option<String>,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.path.display())?;
        match &self.section {
            Some(section) => write!(f, " (section `{section}`)"),
            None => Ok(()),
        }
    }
}
