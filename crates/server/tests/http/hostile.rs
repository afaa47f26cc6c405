//! Bodies that nobody meant to send: each is answered, none with a fault of this side.

use axum::body::Body;
use axum::http::{Request, header};
use base::rng;

use crate::client::{classes, get, json_request, send, wait};

/// Numbers from 0 to below `n`, from a seed.
struct Draws(u64, u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.1 += 1;
        rng::below(self.0, &[self.1], n as u64) as usize
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const KEYS: &[&str] = &[
    "prompt",
    "model",
    "n",
    "size",
    "seed",
    "class",
    "stream",
    "partial_images",
    "output_format",
    "top_k",
    "top_p",
    "temperature",
    "guidance_scale",
    "cfg_schedule",
    "cfg_interval",
    "min_p",
    "typical_p",
    "images",
    "codes",
    "format",
    "__proto__",
    "",
    "n\\u0000",
    "😀",
];
const VALUES: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "1e400",
    "1e308",
    "-0.0",
    "18446744073709551616",
    "9223372036854775807",
    "2.5",
    "\"\"",
    "\"tabby\"",
    "\"\\ud800\"",
    "\"../../etc/passwd\"",
    "\"16x16\"",
    "\"99999999999999999999x1\"",
    "[]",
    "{}",
    "[[[[[[[[]]]]]]]]",
    "[1,2,3]",
    "{\"a\":{\"a\":1}}",
    "\"jpeg\"",
    "\"step\"",
    "\"data:image/png;base64,AAAA\"",
];

fn document(draws: &mut Draws) -> String {
    let fields = (0..draws.below(6)).map(|_| format!("\"{}\":{}", draws.of(KEYS), draws.of(VALUES)));
    let fields: Vec<String> = fields.collect();
    format!("{{{}}}", fields.join(","))
}

/// A document with some bytes changed, cut off or repeated.
fn mutated(draws: &mut Draws) -> Vec<u8> {
    let mut bytes = document(draws).into_bytes();
    for _ in 0..draws.below(3) {
        let at = draws.below(bytes.len().max(1));
        match draws.below(4) {
            0 if at < bytes.len() => bytes[at] = draws.below(256) as u8,
            1 => bytes.truncate(at),
            2 => bytes.insert(at.min(bytes.len()), draws.below(256) as u8),
            _ => bytes.extend(bytes.clone()),
        }
    }
    bytes
}

#[test]
fn fuzzed_bodies_are_answered_with_their_fault() {
    let (router, mut draws) = (classes(), Draws(11, 0));
    let paths =
        ["/v1/images/generations", "/v1/codes/encode", "/v1/codes/decode", "/v1/codes/decode?format=json"];
    let mut refused = 0;
    for _ in 0..600 {
        let (path, body) = (draws.of(&paths), mutated(&mut draws));
        let media = draws.of(&[
            "application/json",
            "application/json; charset=utf-8",
            "application/vnd.safetensors",
            "x",
        ]);
        let shown = String::from_utf8_lossy(&body).into_owned();
        let request = Request::post(path).header(header::CONTENT_TYPE, media).body(Body::from(body)).unwrap();
        let answer = wait(send(&router, request));
        let status = answer.status.as_u16();
        assert!((200..500).contains(&status), "{path} {media} {shown}: {}", answer.text());
        if status != 200 {
            answer.error();
            refused += 1;
        }
    }
    assert!(refused > 500, "{refused}");
    assert_eq!(wait(get(&router, "/readyz")).status, 200);
}

#[test]
fn deep_nesting_is_no_stack_overflow() {
    let deep = "[".repeat(500_000);
    let body = format!("{{\"class\": {deep}");
    let answer = wait(send(&classes(), json_request("/v1/images/generations", body)));
    assert_eq!(answer.status, 400);
}
