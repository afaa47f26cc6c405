//! Next steps after an error.

use base::Hint;
use base::hint::nearest;

use crate::error::Error;

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Unknown { given, known } => vec![of_unknown(given, known)],
            Error::Config(e) => e.hints(),
            Error::Backbones(e) => e.hints(),
            Error::Data(e) => e.hints(),
            other => constant(other).map(str::to_owned).into_iter().collect(),
        }
    }
}

fn of_unknown(given: &str, known: &[String]) -> String {
    let near = nearest(given, known.iter().map(String::as_str), 3);
    match near.is_empty() {
        false => format!("did you mean `{}`?", near.join("` or `")),
        true => format!("known are: {}", known.join(", ")),
    }
}

fn constant(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Missing { .. } => {
            "`--artifacts DIR` names a folder that holds them; it may be given several times"
        }
        Error::ScaleUnknown => "`--search` finds it as the official script does",
        Error::NoSearch => "leave `--search` out",
        Error::OtherRun { .. } => "choose another `--output`",
        Error::StepIncomplete { .. } => {
            "a published figure is over all images; its messages above name what is damaged"
        }
        _ => return None,
    })
}
