//! What an image is of.

use data::Class;
use serde::Serialize;

/// What an image is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A class.
    Class(Class),
    /// A prompt.
    Prompt(Prompt),
}

/// A prompt and where it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// As it was written.
    pub text: String,
    /// Its place among the prompts of the run, from 0.
    pub place: usize,
}

/// A subject as PNGs and reports name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Named {
    /// The class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<i64>,
    /// The class's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// The prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

impl Subject {
    /// Its class, if it is one.
    pub fn class(&self) -> Option<&Class> {
        match self {
            Subject::Class(class) => Some(class),
            Subject::Prompt(_) => None,
        }
    }

    /// Its prompt, if it is one.
    pub fn prompt(&self) -> Option<&Prompt> {
        match self {
            Subject::Class(_) => None,
            Subject::Prompt(prompt) => Some(prompt),
        }
    }

    /// Its names.
    pub fn named(&self) -> Named {
        match self {
            Subject::Class(c) => {
                Named { class: Some(c.index), class_name: Some(c.name.clone()), prompt: None }
            }
            Subject::Prompt(p) => Named { prompt: Some(p.text.clone()), ..Named::default() },
        }
    }
}
