//! The tokenizer as a service.

use axum::body::Body;
use axum::http::{Request, header};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::client::{Answer, classes, json_request, post, send, unbase64, wait};

const FILE: &str = "application/vnd.safetensors";

/// A PNG of a pattern, in base 64.
fn picture(side: u32) -> String {
    use base64::Engine as _;
    let pixel = |x: u32, y: u32| image::Rgb([(x * 13) as u8, (y * 7) as u8, (x * y) as u8]);
    let image = image::RgbImage::from_fn(side, side, pixel);
    let mut png = std::io::Cursor::new(vec![]);
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    base64::engine::general_purpose::STANDARD.encode(png.into_inner())
}

fn post_file(path: &str, bytes: Vec<u8>) -> Answer {
    let request = Request::post(path).header(header::CONTENT_TYPE, FILE).body(Body::from(bytes)).unwrap();
    wait(send(&classes(), request))
}

fn encode(body: &Value) -> Answer {
    wait(post(&classes(), "/v1/codes/encode", body))
}

fn decode(body: &Value) -> Answer {
    wait(post(&classes(), "/v1/codes/decode", body))
}

#[test]
fn images_become_codes_and_codes_images() {
    let (plain, url) = (picture(16), format!("data:image/png;base64,{}", picture(40)));
    let answer = encode(&json!({"images": [plain, url], "model": "classes"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!((&json["object"], &json["model"]), (&json!("codes"), &json!("classes")));
    assert_eq!(json["codebook_size"], 64);
    let codes: Vec<Vec<i64>> = serde_json::from_value(json["codes"].clone()).unwrap();
    assert!(codes.len() == 2 && codes.iter().all(|row| row.len() == 16));

    let answer = decode(&json!({"codes": codes}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!((&json["size"], &json["output_format"]), (&json!("16x16"), &json!("png")));
    let (first, _) = data::decode("x", &unbase64(&json["data"][0]["b64_json"])).unwrap();

    // The same by safetensors files.
    let file = encode(&json!({"images": [picture(16)], "format": "safetensors"}));
    assert_eq!(file.header("content-type"), Some(FILE));
    let tensors = SafeTensors::deserialize(&file.bytes).unwrap();
    let view = tensors.tensor("codes").unwrap();
    assert_eq!((view.dtype(), view.shape()), (Dtype::I64, &[1, 16][..]));
    let row: Vec<i64> = view.data().chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(row, codes[0]);
    let images = post_file("/v1/codes/decode?format=safetensors&model=classes", file.bytes.clone());
    assert_eq!(images.status, 200, "{}", images.text());
    let tensors = SafeTensors::deserialize(&images.bytes).unwrap();
    let view = tensors.tensor("images").unwrap();
    assert_eq!((view.dtype(), view.shape()), (Dtype::U8, &[1, 3, 16, 16][..]));
    let reds: Vec<u8> = first.as_raw().iter().step_by(3).copied().collect();
    assert_eq!(view.data()[..256], reds);
    let again = post_file("/v1/codes/encode", images.bytes.clone());
    assert_eq!(again.status, 200, "{}", again.text());
    let webp = post_file("/v1/codes/decode?output_format=webp", file.bytes);
    let (same, _) = data::decode("x", &unbase64(&webp.json()["data"][0]["b64_json"])).unwrap();
    assert_eq!(same, first);
}

fn refused(answer: &Answer, param: &str) -> String {
    assert_eq!(answer.status, 400, "{}", answer.text());
    let error = answer.error();
    assert_eq!(error["param"], param, "{error}");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn images_and_codes_that_cannot_be_taken() {
    refused(&encode(&json!({"images": []})), "images");
    refused(&encode(&json!({"images": vec![picture(2); 65]})), "images");
    refused(&encode(&json!({})), "images");
    refused(&encode(&json!({"images": [picture(16), "%"]})), "images[1]");
    let message = refused(&encode(&json!({"images": ["http://example.org/x.png"]})), "images[0]");
    assert!(message.contains("`data:`"), "{message}");
    refused(&encode(&json!({"images": ["data:text/plain,x"]})), "images[0]");
    let message = refused(&encode(&json!({"images": ["aGVsbG8="]})), "images[0]");
    assert!(message.contains("not an image"), "{message}");
    refused(&encode(&json!({"images": [3]})), "images[0]");
    refused(&encode(&json!({"images": [], "side": 2})), "side");
    let json = json_request("/v1/codes/encode?format=json", "{\"images\": []}");
    assert!(wait(send(&classes(), json)).error()["message"].as_str().unwrap().contains("safetensors bodies"));
    refused(&encode(&json!({"images": [], "format": "npz"})), "format");

    refused(&decode(&json!({"codes": []})), "codes");
    refused(&decode(&json!({"codes": [[1, 2]]})), "codes[0]");
    let mut row = vec![0; 16];
    row[3] = 64;
    refused(&decode(&json!({"codes": [vec![0; 16], row]})), "codes[1][3]");
    refused(&decode(&json!({"codes": [["x"]]})), "codes[0][0]");
    refused(&decode(&json!({"codes": [vec![0; 16]], "output_format": "gif"})), "output_format");
    let both = json!({"codes": [vec![0; 16]], "output_format": "png", "format": "safetensors"});
    refused(&decode(&both), "output_format");
}

#[test]
fn files_that_cannot_be_taken() {
    assert_eq!(post_file("/v1/codes/decode", b"nonsense".to_vec()).status, 400);
    assert_eq!(post_file("/v1/codes/decode?colour=red", vec![]).status, 400);
    let file = |name: &str, dtype, shape: Vec<usize>, bytes: &[u8]| {
        let view = TensorView::new(dtype, shape, bytes).unwrap();
        safetensors::serialize([(name, view)], None).unwrap()
    };
    let zeros = [0; 8 * 16];
    refused(&post_file("/v1/codes/decode", file("code", Dtype::I64, vec![1, 16], &zeros)), "codes");
    refused(&post_file("/v1/codes/decode", file("codes", Dtype::I32, vec![2, 16], &zeros)), "codes");
    refused(&post_file("/v1/codes/decode", file("codes", Dtype::I64, vec![2, 8], &zeros)), "codes");
    refused(&post_file("/v1/codes/decode", file("codes", Dtype::I64, vec![0, 16], &[])), "codes");
    refused(&post_file("/v1/codes/encode", file("images", Dtype::U8, vec![1, 2, 8, 8], &zeros)), "images");
    let plain = Request::post("/v1/codes/encode").header(header::CONTENT_TYPE, "image/png");
    assert_eq!(wait(send(&classes(), plain.body(Body::empty()).unwrap())).status, 415);
}
