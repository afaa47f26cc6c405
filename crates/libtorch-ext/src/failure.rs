//! Failures of libtorch's operations, which tch's operators report as panics.

use std::any::Any;

/// Message of a panic.
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// libtorch's first line, taken out of the panic that tch makes of it; `None` if the panic is not
/// libtorch's.
pub fn libtorch_message(panic: &str) -> Option<String> {
    let (_, tail) = panic.split_once("Torch(\"")?;
    // tch prints the message with Rust's escapes, and libtorch appends a C++ backtrace.
    let line = tail.split("\\n").next().unwrap_or(tail);
    Some(line.trim_end_matches("\")").replace("\\\"", "\"").replace("\\'", "'"))
}

/// Whether libtorch could not allocate memory.
pub fn is_out_of_memory(message: &str) -> bool {
    ["out of memory", "can't allocate memory", "not enough memory"].iter().any(|m| message.contains(m))
}
