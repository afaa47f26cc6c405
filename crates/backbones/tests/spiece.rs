//! SentencePiece's own model files: the numbers are those of SentencePiece 0.2 for a model of 110
//! pieces with normalisation rules of its own (ligatures, full-width letters, `½`, an accent,
//! spaces, something invisible).

use std::path::Path;

use backbones::text_encoder::TextTokenizer;

fn fixture() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/spiece_tiny.model"))
}

#[test]
fn texts_become_what_sentencepiece_makes_of_them() {
    let tokenizer = TextTokenizer::open(fixture(), 12).unwrap();
    let cases: [(&str, &[i64]); 11] = [
        ("a photo of a red panda", &[21, 6, 54, 21, 4, 13, 1]),
        ("of\u{fb01}cial \u{fb01}le", &[7, 26, 1]),
        ("\u{ff21} coffee", &[53, 2, 22, 1]),
        ("a\u{a0}red  panda  ", &[21, 4, 13, 1]),
        ("  leading", &[53, 44, 52, 48, 43, 47, 51, 38, 1]),
        ("½ a pizza", &[53, 2, 21, 24, 1]),
        ("café cafe\u{301}", &[53, 40, 48, 46, 2, 53, 40, 48, 46, 2, 1]),
        ("a\u{200b} b\tc\nd", &[21, 53, 35, 53, 40, 53, 43, 1]),
        ("", &[1]),
        ("🐶 dog", &[53, 2, 53, 43, 50, 38, 1]),
        ("king   penguin ", &[8, 15, 1]),
    ];
    for (text, expected) in cases {
        let tokens = tokenizer.encode(&[text]).unwrap();
        let ids = Vec::<i64>::try_from(tokens.ids.view(-1)).unwrap();
        let mask = Vec::<i64>::try_from(tokens.mask.view(-1)).unwrap();
        assert_eq!(&ids[..expected.len()], expected, "{text:?}");
        assert_eq!(mask.iter().sum::<i64>() as usize, expected.len(), "{text:?}");
        assert!(ids[expected.len()..].iter().all(|id| *id == 0), "padding");
    }
}

#[test]
fn long_texts_end_and_sentinels_are_tokens() {
    let tokenizer = TextTokenizer::open(fixture(), 4).unwrap();
    assert!(tokenizer.cuts("a red panda a red panda").unwrap());
    assert!(!tokenizer.cuts("a red panda").unwrap());
    let ids = tokenizer.encode(&["a red panda a red panda", "<extra_id_0>"]).unwrap().ids;
    let rows = Vec::<Vec<i64>>::try_from(&ids).unwrap();
    assert_eq!(rows[0], [21, 4, 13, 1]);
    assert_eq!(rows[1][0] + 1, tokenizer.vocab_size(), "the first sentinel is the last entry");
}

#[test]
fn other_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spiece.model");
    std::fs::write(&path, b"\x0a\xff\xff").unwrap();
    let error = TextTokenizer::open(dir.path(), 8).unwrap_err().to_string();
    assert!(error.contains("spiece.model") && error.contains("not a SentencePiece model"), "{error}");
    std::fs::write(&path, b"").unwrap();
    assert!(TextTokenizer::open(dir.path(), 8).unwrap_err().to_string().contains("no piece"));
    std::fs::remove_file(&path).unwrap();
    assert!(TextTokenizer::open(dir.path(), 8).unwrap_err().to_string().contains("neither"));
}
