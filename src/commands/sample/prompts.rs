//! `--prompt` and `--prompts FILE`.

use std::path::Path;

use anyhow::Result;
use data::{Prompts, read_prompts};

use super::subject::{Prompt, Subject};
use crate::commands::Context;

/// The prompts that were typed, then those of the file, in their order. A prompt that occurs twice is two prompts.
pub fn gather(typed: &[String], file: Option<&Path>, context: &Context) -> Result<Vec<Subject>> {
    let mut all = typed.to_vec();
    if let Some(file) = file {
        let Prompts { texts, blank, column } = read_prompts(file)?;
        if let Some(column) = column {
            let shown = file.display();
            context
                .printer
                .note(&format!("`{shown}`: read as a table, its prompts from the column `{column}`"));
        }
        if blank > 0 {
            let lines = if blank == 1 { "line" } else { "lines" };
            context.printer.note(&format!("`{}`: {blank} blank {lines} left out", file.display()));
        }
        all.extend(texts);
    }
    let prompt = |(place, text)| Subject::Prompt(Prompt { text, place });
    Ok(all.into_iter().enumerate().map(prompt).collect())
}
