//! Cleaning of captions, as published: LlamaGen's `language/t5.py` (from PixArt, from DeepFloyd
//! IF). The rules stem from web crawls: they remove addresses, file names, article numbers,
//! advertisements and most punctuation. Two habits of the original show in its results and are
//! kept: spaces are stripped at the end only after the last character was looked at, and the whole
//! is run twice, so that what one run uncovers the next removes.
//!
//! Python's `\w` is letters, numbers and `_`, and its `\b` follows from that; Rust's differ in
//! combining marks, which is why both are spelled out here.

use std::sync::LazyLock;

use fancy_regex::{Regex, RegexBuilder};
use percent_encoding::percent_decode_str;

use super::html::text_of;
use crate::{Error, Result};

/// A pattern and what replaces it.
type Rule = (Regex, &'static str);

/// Python's `\w`, `\s` and `\b`.
const WORD: &str = r"[\p{L}\p{N}_]";
const SPACE: &str = r"[\s\x1c-\x1f]";

fn regex(pattern: &str) -> Regex {
    let boundary = format!("(?:(?<={WORD})(?!{WORD})|(?<!{WORD})(?={WORD}))");
    let pattern = pattern.replace("<b>", &boundary).replace("<w>", WORD).replace("<s>", SPACE);
    RegexBuilder::new(&pattern).backtrack_limit(100_000_000).build().expect("a constant pattern")
}

fn rules(list: &[(&str, &'static str)]) -> Vec<Rule> {
    list.iter().map(|&(pattern, with)| (regex(pattern), with)).collect()
}

/// Web addresses, before HTML is read.
static ADDRESSES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let host = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)(?:<w>|[/-])*<b>/?(?!@)";
    let with = |scheme: &str| regex(&format!(r"<b>(?:{scheme}:(?:/{{1,3}}|[a-zA-Z0-9%])|{host})"));
    vec![(with("https?"), ""), (with("www"), "")]
});

/// Between reading the HTML and repairing the text.
static PUNCTUATION: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (r"@<w>+<b>", ""),
        // Strokes, phonetic extensions, enclosed and compatibility characters, ideographs.
        (r"[\x{31c0}-\x{31ef}\x{31f0}-\x{31ff}\x{3200}-\x{32ff}\x{3300}-\x{33ff}\x{3400}-\x{4dbf}]+", ""),
        (r"[\x{4dc0}-\x{4dff}\x{4e00}-\x{9fff}]+", ""),
        (
            r"[\x{2D}\x{58A}\x{5BE}\x{1400}\x{1806}\x{2010}-\x{2015}\x{2E17}\x{2E1A}\x{2E3A}\x{2E3B}\x{2E40}\x{301C}\x{3030}\x{30A0}\x{FE31}\x{FE32}\x{FE58}\x{FE63}\x{FF0D}]+",
            "-",
        ),
        (r"[`´«»“”¨]", "\""),
        (r"[‘’]", "'"),
        (r"&quot;?", ""),
        (r"&amp", ""),
        (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
        (r"\d:\d\d<s>+$", ""),
        (r"\\n", " "),
        (r"#\d{1,3}<b>", ""),
        (r"#\d{5,}<b>", ""),
        (r"<b>\d{6,}<b>", ""),
        (r"[^\s\x1c-\x1f]+\.(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)", ""),
        (r#"["']{2,}"#, "\""),
        (r"[.]{2,}", " "),
        (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
        (r"<s>+\.<s>+", " "),
    ])
});

/// After the text was repaired.
static PHRASES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (r"<b>[a-zA-Z]{1,3}\d{3,15}<b>", ""),
        (r"<b>[a-zA-Z]+\d+[a-zA-Z]+<b>", ""),
        (r"<b>\d+[a-zA-Z]+\d+<b>", ""),
        (r"(?:worldwide<s>+)?(?:free<s>+)?shipping", ""),
        (r"(?:free<s>)?download(?:<s>free)?", ""),
        (r"<b>click<b><s>(?:for|on)<s><w>+", ""),
        (r"<b>(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)(?:<s>images?)?", ""),
        (r"<b>page<s>+\d+<b>", ""),
        (r"<b>\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*<b>", " "),
        (r"<b>\d+\.?\d*[xх×]\d+\.?\d*<b>", ""),
        (r"<b><s>+:<s>+", ": "),
        (r"(\D[,./])<b>", "$1 "),
        (r"<s>+", " "),
        (r#"^["']((?s:.)+)["']$"#, "$1"),
        (r"^['_,\-:;]", ""),
        (r"['_,\-:+]$", ""),
        (r"^\.[^\s\x1c-\x1f]+$", ""),
    ])
});

fn apply(rules: &[Rule], mut text: String) -> Result<String> {
    for (pattern, with) in rules {
        text = replace(pattern, &text, with)?;
    }
    Ok(text)
}

fn replace(pattern: &Regex, text: &str, with: &str) -> Result<String> {
    let found = pattern.try_replacen(text, 0, with).map_err(|e| Error::Input {
        what: "caption",
        expected: "a text that can be cleaned".into(),
        found: format!("{} characters beginning with {:?} ({e})", text.chars().count(), beginning(text)),
    })?;
    Ok(found.into_owned())
}

fn beginning(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Python's `str.strip`.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

/// The text that the text encoder of a published model was given: [`clean_once`], twice.
///
/// # Errors
/// Returns an error if the patterns give up on a text, which takes pathological repetitions.
pub fn clean_caption(caption: &str) -> Result<String> {
    clean_once(&clean_once(caption)?)
}

/// One run of the published rules, in their order.
///
/// # Errors
/// Returns an error as [`clean_caption`] does.
pub fn clean_once(caption: &str) -> Result<String> {
    let decoded = caption.replace('+', " ");
    let decoded = percent_decode_str(&decoded).decode_utf8_lossy().into_owned();
    let text = strip(&decoded).to_lowercase().replace("<person>", "person");
    let text = text_of(&apply(&ADDRESSES, text)?);
    let mut text = apply(&PUNCTUATION, text)?;
    if text.matches(['-', '_']).count() > 3 {
        text = text.replace(['-', '_'], " ");
    }
    let text = plsfix::fix_text(&text, None); // ftfy
    let text = htmlize::unescape(&*htmlize::unescape(&*text)).into_owned();
    Ok(strip(&apply(&PHRASES, strip(&text).to_owned())?).to_owned())
}
