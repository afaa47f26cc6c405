//! CLIP's text side: lower-cased byte-pair encoding, as Hugging Face's fast tokenizer does it.
//! OpenAI's own also repairs broken encodings (ftfy) and HTML entities first; that is left to the
//! preparation of the captions.

use std::path::Path;

use serde_json::{Value, json};
use tch::Tensor;
use tokenizers::Tokenizer;

use crate::{Error, Result};

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Texts → tokens.
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    start: i64,
    end: i64,
    context: usize,
}

impl ClipTokenizer {
    /// Reads a `tokenizer.json`, or a folder that has one, or `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// Returns an error if a file is missing, or holds no such vocabulary.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() && !path.join("tokenizer.json").is_file() {
            return Self::from_vocabulary(&path.join("vocab.json"), &path.join("merges.txt"));
        }
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        Self::new(&file, &read(&file)?)
    }

    /// From the vocabulary (a JSON object, token → number) and the merges (a line each, after a
    /// line of version).
    ///
    /// # Errors
    /// Returns an error as [`ClipTokenizer::open`] does.
    pub fn from_vocabulary(vocabulary: &Path, merges: &Path) -> Result<Self> {
        let tokens: Value = serde_json::from_str(&read(vocabulary)?).map_err(|e| bad(vocabulary, e))?;
        let text = read(merges)?;
        let merges: Vec<&str> =
            text.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
        Self::new(vocabulary, &description(&tokens, &merges).to_string())
    }

    fn new(path: &Path, description: &str) -> Result<Self> {
        let tokenizer: Tokenizer = description.parse().map_err(|e| bad(path, e))?;
        let id = |token: &str| {
            tokenizer.token_to_id(token).map(i64::from).ok_or_else(|| bad(path, format!("it has no {token}")))
        };
        Ok(ClipTokenizer { start: id(START)?, end: id(END)?, tokenizer, context: 77 })
    }

    /// (B, 77) int64: start, tokens, end, zeros. A longer text is cut and its last token becomes
    /// the end.
    ///
    /// # Errors
    /// Returns an error if there are no texts or one cannot be encoded.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(texts.len() * self.context);
        for text in texts {
            rows.extend(self.row(text.as_ref())?);
        }
        if rows.is_empty() {
            let (what, expected, found) = ("texts for CLIP", "at least one".into(), "none".into());
            return Err(Error::Input { what, expected, found });
        }
        Ok(Tensor::from_slice(&rows).view([-1, self.context as i64]))
    }

    fn row(&self, text: &str) -> Result<Vec<i64>> {
        let encoded = self.tokenizer.encode(text, false).map_err(|e| Error::Input {
            what: "text for CLIP",
            expected: "a text that its vocabulary can spell".into(),
            found: format!("`{text}` ({e})"),
        })?;
        let mut row = vec![self.start];
        row.extend(encoded.get_ids().iter().map(|&id| i64::from(id)).take(self.context - 2));
        row.push(self.end);
        row.resize(self.context, 0);
        Ok(row)
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn bad(path: &Path, why: impl ToString) -> Error {
    Error::Vocabulary { path: path.to_owned(), why: why.to_string() }
}

/// Contents of CLIP's `tokenizer.json`, for a vocabulary and merges.
fn description(tokens: &Value, merges: &[&str]) -> Value {
    let special = |token: &str| {
        json!({
            "id": tokens[token], "content": token, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let added: Vec<Value> =
        [START, END].iter().filter(|t| tokens[**t].is_u64()).map(|t| special(t)).collect();
    let words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "vocab": tokens, "merges": merges,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary that spells "a photo depicts".
    fn vocabulary(dir: &Path) {
        let mut tokens: Vec<String> = ('a'..='z').map(String::from).collect();
        tokens.extend(('a'..='z').map(|c| format!("{c}</w>")));
        tokens.extend(["ph", "ot", "phot", "photo</w>", "!</w>", START, END].map(String::from));
        let map: serde_json::Map<String, Value> =
            tokens.into_iter().enumerate().map(|(i, t)| (t, i.into())).collect();
        std::fs::write(dir.join("vocab.json"), Value::from(map).to_string()).unwrap();
        std::fs::write(dir.join("merges.txt"), "#version: 0.2\np h\no t\nph ot\nphot o</w>\n").unwrap();
    }

    fn rows(t: &Tensor) -> Vec<Vec<i64>> {
        Vec::try_from(t).unwrap()
    }

    #[test]
    fn texts_become_start_words_end_and_zeros() {
        let dir = tempfile::tempdir().unwrap();
        vocabulary(dir.path());
        let tokenizer = ClipTokenizer::open(dir.path()).unwrap();
        let found = rows(&tokenizer.encode(&["A  PHOTO!", "b"]).unwrap());
        // a</w>, photo</w>, !</w> between start (57) and end (58).
        assert_eq!(found[0][..6], [57, 26, 55, 56, 57 + 1, 0]);
        assert_eq!(found[1][..4], [57, 27, 58, 0]);
        assert!(found.iter().all(|row| row.len() == 77));
        assert!(tokenizer.encode::<&str>(&[]).is_err());
    }

    #[test]
    fn long_texts_are_cut_and_still_end() {
        let dir = tempfile::tempdir().unwrap();
        vocabulary(dir.path());
        let row = &rows(&ClipTokenizer::open(dir.path()).unwrap().encode(&["a ".repeat(100)]).unwrap())[0];
        assert_eq!((row[75], row[76]), (26, 58));
    }

    #[test]
    fn both_forms_of_the_vocabulary_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        vocabulary(dir.path());
        let text = std::fs::read_to_string(dir.path().join("vocab.json")).unwrap();
        let tokens: Value = serde_json::from_str(&text).unwrap();
        let both = description(&tokens, &["p h", "o t", "ph ot", "phot o</w>"]);
        let file = dir.path().join("own.json");
        std::fs::write(&file, both.to_string()).unwrap();
        let of = |path: &Path| rows(&ClipTokenizer::open(path).unwrap().encode(&["photo of a c"]).unwrap());
        assert_eq!(of(&file), of(dir.path()));
    }

    #[test]
    fn a_vocabulary_without_its_end_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vocab.json"), r#"{"a": 0}"#).unwrap();
        std::fs::write(dir.path().join("merges.txt"), "").unwrap();
        let e = ClipTokenizer::open(dir.path()).unwrap_err().to_string();
        assert!(e.contains("vocab.json") && e.contains(START), "{e}");
        assert!(ClipTokenizer::open(&dir.path().join("none.json")).is_err());
    }
}
