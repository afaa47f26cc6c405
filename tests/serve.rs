//! `gen serve`, from its start to its end after a signal. What it answers is tested in
//! `crates/server`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::{Place, Tiny, pixels, write_model, write_text_model};

fn place() -> Place {
    let place = Place::new("", "");
    write_model(&place.path("m"), Tiny::default());
    place
}

/// A running server, ended with the test.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(place: &Place, line: &str) -> Server {
        let mut command = place.process(&format!("serve --port 0 {line}"));
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        let address = first.trim().strip_prefix("listening on http://").unwrap().trim_end_matches('/');
        let server = Server { process, address: address.to_owned() };
        let began = Instant::now();
        while !server.get("/readyz", "").starts_with("HTTP/1.1 200") {
            assert!(began.elapsed() < Duration::from_secs(120), "the models are not loaded");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn said(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str, headers: &str) -> String {
        self.said(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n"))
    }

    fn images(&self, body: &Value) -> Value {
        let (body, head) =
            (body.to_string(), "host: x\r\nconnection: close\r\ncontent-type: application/json");
        let length = body.len();
        let request = format!(
            "POST /v1/images/generations HTTP/1.1\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        serde_json::from_str(self.said(&request).split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Sends SIGTERM; returns the exit code and the log.
    fn end(mut self) -> (Option<i32>, String) {
        Command::new("kill").args(["-s", "TERM", &self.process.id().to_string()]).status().unwrap();
        let code = self.process.wait().unwrap().code();
        let mut log = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (code, log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
    }
}

#[test]
fn images_are_those_of_gen_sample_to_the_byte() {
    let place = place();
    write_text_model(&place.path("t"));
    let server = Server::start(&place, "--model m --model t --alias dall-e-2=m --log-json --threads 1");
    let body = json!({"model": "dall-e-2", "prompt": "golden retriever", "n": 3, "seed": 5, "top_k": 9});
    let answer = server.images(&body);
    place.ok("sample --model m --class 207 --num 3 --seed 5 --top-k 9 --output s --threads 1");
    for (i, image) in answer["data"].as_array().unwrap().iter().enumerate() {
        let path = place.path("served.png");
        std::fs::write(&path, STANDARD.decode(image["b64_json"].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!(
            std::fs::read(&path).unwrap(),
            std::fs::read(place.path(&format!("s/00000{i}.png"))).unwrap()
        );
    }
    let last = pixels(&place.path("served.png"));
    let again = place.json("sample --from served.png --output again --threads 1", 0);
    assert_eq!(again["largest_difference"], 0);
    assert_eq!(pixels(&place.path("again/000002.png")), last);
    let of_prompt = server.images(&json!({"model": "t", "prompt": "a dog", "seed": 5}));
    assert!(of_prompt["data"][0]["b64_json"].is_string(), "{of_prompt}");
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let drawn = lines.iter().find(|line| line["images"] == 3).unwrap();
    assert_eq!((&drawn["model"], &drawn["status"]), (&json!("m"), &json!(200)));
    assert!(!log.contains("retriever") && !log.contains("a dog"), "{log}");
}

#[test]
fn keys_are_asked_for() {
    let place = place();
    std::fs::write(place.path("keys"), "# mine\nsk-0123456789abcdef\n").unwrap();
    let server = Server::start(&place, "--model m --api-key-file keys");
    assert!(server.get("/v1/models", "").starts_with("HTTP/1.1 401"));
    let answer = server.get("/v1/models", "authorization: Bearer sk-0123456789abcdef\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"id\":\"m\""), "{answer}");
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn what_cannot_be_served_is_told_before_anything_is_loaded() {
    let place = place();
    write_model(&place.path("other/m"), Tiny::default());
    std::fs::write(place.path("empty"), "# none\n").unwrap();
    for (line, says) in [
        ("--model m --host 0.0.0.0", "no key is asked for"),
        ("--model m --api-key-file empty", "the file holds no key"),
        ("--model m --api-key-file none", "cannot read `none`"),
        ("--model m --model other/m", "two models are called `m`"),
        ("--model m --alias x=y", "no such model is served"),
        ("--model m --alias m=m", "a model has this name"),
        ("--model m --alias x=m --alias x=m", "given twice"),
        ("--model none", "no directory, no config, and no shipped model"),
        ("--model m --text-encoder t", "for models of prompts"),
        ("--model m --model other/m --tokenizer m", "belongs to one model"),
        ("--model m --host 192.0.2.1 --no-auth", "cannot listen on 192.0.2.1"),
    ] {
        let said = place.fails(&format!("serve --port 0 {line}"));
        assert!(said.contains(says), "{line}: {said}");
    }
    // A model that cannot be loaded ends the server.
    std::fs::write(place.path("other/m/weights.safetensors"), "no weights").unwrap();
    let out = place.run("serve --port 0 --model other/m");
    assert_eq!(out.status.code(), Some(2));
    assert!(
        crate::common::stderr(&out).contains("cannot serve `other/m`"),
        "{}",
        crate::common::stderr(&out)
    );
}
