//! A text tokenizer made from one's own captions.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::Lowercase;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, TokenizerImpl};

use super::text::PAD;
use crate::{Error, Result};

const END: &str = "</s>";

/// Learns a byte-level BPE of at most `vocab_size` entries, which spells any text, and appends an
/// end to each: the text of a `tokenizer.json`. The same captions give the same tokenizer.
///
/// # Errors
/// Returns an error if there are fewer entries than the bytes and two special tokens need.
pub fn learn_tokenizer(captions: impl Iterator<Item = String> + Send, vocab_size: usize) -> Result<String> {
    const LEAST: usize = 256 + 2;
    if vocab_size < LEAST {
        let expected = format!("at least {LEAST} entries: the bytes, {PAD} and {END}");
        return Err(Error::Input { what: "text vocabulary", expected, found: vocab_size.to_string() });
    }
    let special = [PAD, END].map(|token| AddedToken::from(token, true));
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab_size)
        .min_frequency(0)
        .special_tokens(special.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let failed = |e: tokenizers::Error| Error::Input {
        what: "captions",
        expected: "texts that a tokenizer can be learned from".into(),
        found: e.to_string(),
    };
    let mut ending = TemplateProcessing::builder();
    ending.try_single(format!("$A {END}")).map_err(|e| failed(e.into()))?.special_tokens(vec![(END, 1)]);
    let ending = ending.build().map_err(|e| failed(e.to_string().into()))?;
    let mut tokenizer: TokenizerImpl<BPE, Lowercase, ByteLevel, TemplateProcessing, ByteLevel> =
        TokenizerImpl::new(BPE::default());
    tokenizer.with_normalizer(Some(Lowercase));
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default()));
    tokenizer.with_post_processor(Some(ending));
    tokenizer.train(&mut trainer, captions).map_err(failed)?;
    tokenizer.to_string(false).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text_encoder::TextTokenizer;
    use std::path::Path;

    #[test]
    fn a_learned_tokenizer_spells_anything_and_is_always_the_same() {
        let captions = || ["a photo of a red panda", "a photo of a lion"].into_iter().map(String::from);
        let json = learn_tokenizer(captions(), 300).unwrap();
        assert_eq!(json, learn_tokenizer(captions(), 300).unwrap());
        let tokenizer = TextTokenizer::parse(Path::new("learned"), &json, 16).unwrap();
        assert!(tokenizer.vocab_size() <= 300);
        let tokens = tokenizer.encode(&["a photo", "", "🐶 \u{202b}שלום", "A PHOTO"]).unwrap();
        let rows = Vec::<Vec<i64>>::try_from(&tokens.ids).unwrap();
        assert_eq!(rows[1][..2], [1, 0], "an empty text is its end");
        assert_eq!(rows[0], rows[3], "capitals do not count");
        assert!(rows[2].iter().filter(|&&id| id > 1).count() > 4);
        assert!(learn_tokenizer(captions(), 100).is_err());
    }
}
