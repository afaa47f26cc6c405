//! User-facing errors: one sentence, its causes, and hints.

use std::any::Any;
use std::error::Error as StdError;
use std::sync::Mutex;

use base::Hint;
use libtorch_ext::failure::{is_out_of_memory, libtorch_message, panic_text};

/// An error that the command line itself found, with its hints.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UserError {
    message: String,
    hints: Vec<String>,
}

impl UserError {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        UserError { message: message.into(), hints: vec![] }
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl Hint for UserError {
    fn hints(&self) -> Vec<String> {
        self.hints.clone()
    }
}

/// The text below, without a final newline:
///
/// ```text
/// error: what was being done
///   caused by: why it failed
///
/// hint: what to try
/// ```
pub fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    let mut previous = error.to_string();
    for cause in error.chain().skip(1) {
        let line = cause.to_string();
        // Many errors quote their source in their own sentence.
        if !previous.contains(&line) {
            text.push_str(&format!("\n  caused by: {line}"));
        }
        previous = line;
    }
    if let Some(panic) = worker_panic() {
        text.push_str(&format!("\n  caused by: a worker thread stopped: {panic}"));
    }
    let hints = hints(error);
    if !hints.is_empty() {
        text.push('\n');
    }
    for hint in hints {
        text.push_str(&format!("\nhint: {hint}"));
    }
    text
}

/// Hints of every error in the chain, outermost first, each once; if none has any, a hint about the
/// file operation that failed.
fn hints(error: &anyhow::Error) -> Vec<String> {
    let mut all: Vec<String> = vec![];
    for hint in error.chain().flat_map(hints_of) {
        if !all.contains(&hint) {
            all.push(hint);
        }
    }
    if all.is_empty() {
        all.extend(error.chain().filter_map(|cause| cause.downcast_ref()).find_map(io_hint));
    }
    all
}

fn hints_of(cause: &(dyn StdError + 'static)) -> Vec<String> {
    macro_rules! first_of {
        ($($error:ty),* $(,)?) => {
            $(if let Some(e) = cause.downcast_ref::<$error>() { return e.hints(); })*
        };
    }
    if let Some(e) = cause.downcast_ref::<settings::LaunchError>() {
        return vec![e.hint.clone()];
    }
    // The error enum of each crate.
    first_of!(
        UserError,
        base::config::ConfigError,
        base::finite::NonFinite,
        base::npz::NpzError,
        weights::Error,
        data::Error,
        dist::Error,
        tokenizer::Error,
        ar_model::Error,
        sampler::Error,
        backbones::Error,
        eval::Error,
        generate::Error,
        engine::EngineError,
        benchmarks::Error,
        train::Error,
    );
    vec![]
}

fn io_hint(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    let hint = match error.kind() {
        StorageFull => "the disk is full; free some space or choose another place with `--output`",
        ReadOnlyFilesystem => "the file system is read-only; choose another place with `--output`",
        NotFound => "check the path; one that does not begin with `/` starts at the current folder",
        NotADirectory => "a part of this path is a file, where a folder is needed; choose another place",
        PermissionDenied => "check who owns the file and its folder, or choose another place",
        _ => return None,
    };
    Some(hint.into())
}

/// True when writing to stdout failed because nobody reads it any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<crate::printer::StdoutError>().is_some_and(|e| e.is_broken_pipe())
}

#[derive(Debug)]
struct Panic {
    message: String,
    place: String,
    worker: bool,
}

static LAST_PANIC: Mutex<Option<Panic>> = Mutex::new(None);

fn last_panic() -> std::sync::MutexGuard<'static, Option<Panic>> {
    LAST_PANIC.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Stores the message of a panic for [`from_panic`], in place of Rust's own report. With
/// `RUST_BACKTRACE` set, that is printed as well.
pub fn install_panic_hook() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let worker = std::thread::current().name() != Some("main");
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        *last_panic() = Some(Panic { message: panic_text(info.payload()), place, worker });
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0") {
            default(info);
        }
    }));
}

fn worker_panic() -> Option<String> {
    last_panic().as_ref().filter(|p| p.worker).map(|p| format!("{} ({})", p.message, p.place))
}

/// Converts a panic to an error: libtorch's own message if a tensor operation failed, else a bug.
pub fn from_panic(payload: &(dyn Any + Send), batch_size: Option<i64>) -> anyhow::Error {
    let text = panic_text(payload);
    let place = last_panic().take().map(|p| p.place).unwrap_or_default();
    match libtorch_message(&text) {
        Some(message) if is_out_of_memory(&message) => out_of_memory(&message, batch_size).into(),
        Some(message) => UserError::new(format!("libtorch: {message}")).hint(bug_hint(&place)).into(),
        None => UserError::new(format!("internal error: {text}")).hint(bug_hint(&place)).into(),
    }
}

fn out_of_memory(message: &str, batch_size: Option<i64>) -> UserError {
    let error = UserError::new(format!("out of memory: {message}"));
    match batch_size {
        Some(n) if n > 1 => error.hint(format!("lower `--batch-size` (now {n})")),
        _ => error.hint("`--precision bf16` halves what the weights need"),
    }
}

fn bug_hint(place: &str) -> String {
    format!(
        "this should not happen; please report it with the command you ran (at {place}; \
         RUST_BACKTRACE=1 shows more)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn causes_are_listed_and_hints_come_last() {
        let leaf = UserError::new("expected [2], found [3]").hint("try `--tokenizer other.yaml`");
        let error = Err::<(), _>(leaf).context("cannot load `a.pt`").unwrap_err();
        assert_eq!(
            render(&error),
            "error: cannot load `a.pt`\n  caused by: expected [2], found [3]\n\nhint: try `--tokenizer other.yaml`"
        );
    }

    #[test]
    fn a_failed_allocation_suggests_a_smaller_batch() {
        let panic = tch::Tensor::f_zeros([1 << 55], (tch::Kind::Float, tch::Device::Cpu)).map_err(|e| {
            let payload: Box<dyn Any + Send> = Box::new(format!("called `Result::unwrap()` on …: {e:?}"));
            from_panic(payload.as_ref(), Some(64))
        });
        let text = render(&panic.unwrap_err());
        assert!(text.starts_with("error: out of memory"), "{text}");
        assert!(text.ends_with("hint: lower `--batch-size` (now 64)"), "{text}");
        assert!(!text.contains("\\n"), "{text}");
    }
}
