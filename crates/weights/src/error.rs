//! Errors of checkpoint files.

use std::path::{Path, PathBuf};

use base::hint::{Hint, nearest};

use crate::origin::{Origin, Unsupported};

/// An error about a checkpoint file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {doing} `{path}`: {source}")]
    Io {
        /// `read`, `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// Not a format this crate reads.
    #[error("`{path}` is not a checkpoint: it {found}")]
    NotACheckpoint {
        /// The file.
        path: PathBuf,
        /// Apparent format, as in "is a PNG image".
        found: String,
        /// Advice.
        advice: String,
    },
    /// A checkpoint that breaks its own format.
    #[error("`{path}` is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Reason.
        what: String,
    },
    /// A checkpoint that follows its format in a way that is not read here.
    #[error("`{path}` cannot be read: {what}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Unsupported form.
        what: String,
    },
    /// The wanted section is not there.
    #[error("`{path}` has no weights under {wanted}; it holds {}", list_sections(available))]
    NoSection {
        /// The file.
        path: PathBuf,
        /// The names looked for.
        wanted: String,
        /// The places with tensors in them: a section in backticks, or "the top level".
        available: Vec<String>,
    },
    /// The wanted tensor is not there.
    #[error("{origin} has no tensor `{name}`")]
    NoTensor {
        /// The file.
        origin: Origin,
        /// The tensor.
        name: String,
        /// Names alike.
        similar: Vec<String>,
    },
    /// A tensor in a form that this program does not read.
    #[error("tensor `{name}` of {origin} cannot be read: {} is not supported", unsupported.what)]
    UnsupportedTensor {
        /// The file.
        origin: Origin,
        /// The tensor.
        name: String,
        /// Its form.
        unsupported: Unsupported,
    },
    /// A tensor that the format to be written cannot hold.
    #[error("cannot write tensor `{name}` to `{path}`: {what}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Reason.
        what: String,
    },
    /// The tensors do not fit the model.
    #[error(transparent)]
    Load(Box<LoadFailure>),
    /// libtorch failed: out of memory, most likely.
    #[error("libtorch failed {doing}: {message}")]
    Torch {
        /// Action that failed.
        doing: String,
        /// Its message, first line.
        message: String,
    },
}

/// A tensor whose shape or dtype is not the variable's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The variable.
    pub name: String,
    /// Shape in the model, with the dtype if that differs.
    pub expected: String,
    /// Shape in the file, with the dtype if that differs.
    pub found: String,
}

/// Reason why a checkpoint does not fit a model.
#[derive(Debug, Clone)]
pub struct LoadFailure {
    /// File and section.
    pub origin: Origin,
    /// The number of the model's variables.
    pub variables: usize,
    /// Variables the file lacks, each with the most similar unused name of the file.
    pub missing: Vec<(String, Option<String>)>,
    /// Tensors of the file that the model has no place for.
    pub unexpected: Vec<String>,
    /// Tensors of another shape or dtype.
    pub mismatched: Vec<Mismatch>,
    /// Two tensors that end up under one name.
    pub doubled: Vec<String>,
    /// Models that the file probably is, as sentences for hints (from [`crate::likely`]).
    pub likely: Vec<String>,
}

impl std::error::Error for LoadFailure {}

impl std::fmt::Display for LoadFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = thousands(self.variables);
        let mut parts = vec![];
        if let Some(first) = self.mismatched.first() {
            let n = self.mismatched.len();
            parts.push(format!(
                "{} of {total} tensors {} another shape or kind; first: `{}`, expected {}, found {}",
                thousands(n),
                if n == 1 { "has" } else { "have" },
                first.name,
                first.expected,
                first.found
            ));
        }
        if !self.missing.is_empty() {
            let names = self.missing.iter().map(|(n, _)| n.as_str());
            parts.push(format!(
                "{} of {total} tensors missing: {}",
                thousands(self.missing.len()),
                some(names)
            ));
        }
        if !self.unexpected.is_empty() {
            let names = self.unexpected.iter().map(String::as_str);
            parts.push(format!("{} not expected: {}", thousands(self.unexpected.len()), some(names)));
        }
        if !self.doubled.is_empty() {
            let names = self.doubled.iter().map(String::as_str);
            parts.push(format!("two tensors under one name: {}", some(names)));
        }
        write!(f, "{} does not fit the model: {}", self.origin, parts.join("; "))
    }
}

/// The first three names, and how many more there are.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    let shown = all.iter().take(3).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if all.len() > 3 { format!("{shown} and {} more", thousands(all.len() - 3)) } else { shown }
}

/// `1026` as `1,026`.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let head = digits.len() % 3;
    let mut out = digits[..head].to_owned();
    for chunk in digits.as_bytes()[head..].chunks(3) {
        if !out.is_empty() {
            out.push(',');
        }
        out.extend(chunk.iter().map(|&b| char::from(b)));
    }
    out
}

fn list_sections(available: &[String]) -> String {
    if available.is_empty() { "no tensors at all".into() } else { available.join(", ") }
}

impl Error {
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { doing: "read", path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { doing: "write", path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Error {
        Error::Damaged { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn torch(doing: String, e: tch::TchError) -> Error {
        let text = e.to_string();
        Error::Torch { doing, message: text.lines().next().unwrap_or_default().to_owned() }
    }

    pub(crate) fn unsupported(origin: &Origin, name: &str, unsupported: &Unsupported) -> Error {
        Error::UnsupportedTensor {
            origin: origin.clone(),
            name: name.into(),
            unsupported: unsupported.clone(),
        }
    }

    pub(crate) fn no_tensor(origin: &Origin, name: &str, names: &[&str]) -> Error {
        let similar = nearest(name, names.iter().copied(), 3).into_iter().map(str::to_owned).collect();
        Error::NoTensor { origin: origin.clone(), name: name.into(), similar }
    }

    /// Adds sentences about what the file probably is to a [`Error::Load`]; other errors pass
    /// unchanged.
    pub fn with_likely(mut self, sentences: impl IntoIterator<Item = String>) -> Self {
        if let Error::Load(failure) = &mut self {
            failure.likely.extend(sentences);
        }
        self
    }
}

fn inspect(path: &Path) -> String {
    format!("`gen inspect {}` lists what it contains", path.display())
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Io { source, path, .. } => io_hint(source, path).into_iter().collect(),
            Error::NotACheckpoint { advice, .. } => vec![advice.clone()],
            Error::Damaged { .. } => {
                vec!["the download or copy may be incomplete; compare its size with the original and fetch it again".into()]
            }
            Error::NoSection { path, .. } => vec![inspect(path)],
            Error::NoTensor { origin, similar, .. } => {
                let near = similar.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" or ");
                let near = (!near.is_empty()).then(|| format!("did you mean {near}?"));
                near.into_iter().chain([inspect(&origin.path)]).collect()
            }
            Error::UnsupportedTensor { origin, unsupported, .. } => {
                unsupported.advice.iter().cloned().chain([inspect(&origin.path)]).collect()
            }
            Error::Load(failure) => failure.hints(),
            Error::Torch { .. } | Error::Refused { .. } | Error::Unsupported { .. } => vec![],
        }
    }
}

impl Hint for LoadFailure {
    fn hints(&self) -> Vec<String> {
        let near = self.missing.iter().find_map(|(name, near)| near.as_ref().map(|n| (name, n)));
        let near = near.map(|(name, near)| format!("the file has `{near}` where the model has `{name}`"));
        self.likely.iter().cloned().chain(near).chain([inspect(&self.origin.path)]).collect()
    }
}

fn io_hint(e: &std::io::Error, path: &Path) -> Option<String> {
    if e.kind() != std::io::ErrorKind::NotFound {
        return None; // the binary knows what to say of the others
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Some(format!("there is no directory `{}`", parent.display()));
    }
    let wanted = path.file_name()?.to_str()?;
    let names: Vec<String> = std::fs::read_dir(parent)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let near = nearest(wanted, names.iter().map(String::as_str), 1);
    near.first().map(|n| format!("did you mean `{}`?", parent.join(n).display()))
}
