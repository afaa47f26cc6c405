//! Conditions of images: a class or a prompt each.

use data::Class;
use serde::{Deserialize, Serialize};

/// Condition of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// A class.
    Class(Class),
    /// A prompt.
    Prompt(Prompt),
}

/// A prompt and its place among the prompts of a [`crate::TextConfig`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its original text.
    pub text: String,
    /// Position, from 0.
    pub place: usize,
}

/// Name of a condition, in PNGs and reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionName {
    /// Index of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<i64>,
    /// Name of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Text of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

impl Prompt {
    /// Prompts in their order, with their places.
    pub fn all(texts: impl IntoIterator<Item = String>) -> Vec<Prompt> {
        texts.into_iter().enumerate().map(|(place, text)| Prompt { text, place }).collect()
    }
}

impl Condition {
    /// The class, if it is one.
    pub fn class(&self) -> Option<&Class> {
        match self {
            Condition::Class(class) => Some(class),
            Condition::Prompt(_) => None,
        }
    }

    /// The prompt, if it is one.
    pub fn prompt(&self) -> Option<&Prompt> {
        match self {
            Condition::Class(_) => None,
            Condition::Prompt(prompt) => Some(prompt),
        }
    }

    /// Its name.
    pub fn name(&self) -> ConditionName {
        match self {
            Condition::Class(c) => {
                ConditionName { class: Some(c.index), class_name: Some(c.name.clone()), prompt: None }
            }
            Condition::Prompt(p) => {
                ConditionName { prompt: Some(p.text.clone()), ..ConditionName::default() }
            }
        }
    }
}
