//! POST `/v1/codes/decode`: codes → images.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base::Codes;
use engine::ModelInfo;
use generate::Picture;
use serde::{Deserialize, Serialize};
use tch::Tensor;
use utoipa::ToSchema;

use super::binary::{self, Rows};
use super::form::{Answer, Input, Raw, admitted, check_count, file, internal};
use crate::app::App;
use crate::clock::unix_seconds;
use crate::error::{ApiError, ErrorBody, Result};
use crate::facts::Facts;
use crate::images::{Format, base64_of};
use crate::models::Served;

/// Codes to decode.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DecodeRequest {
    /// Name of a model, whose tokenizer is used. Default: the first.
    pub model: Option<String>,
    /// Codes of each image; 1 to 64 images.
    pub codes: Vec<Vec<i64>>,
    /// Form of the answer: `json`, or `safetensors` with a tensor `images` (B, 3, S, S) uint8.
    #[serde(default)]
    pub format: Answer,
    /// In JSON: `png`, `jpeg` or `webp`.
    #[schema(default = "png")]
    pub output_format: Option<String>,
    /// Quality of a JPEG.
    #[schema(minimum = 0, maximum = 100, default = 100)]
    pub output_compression: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecodeOptions {
    model: Option<String>,
    #[serde(default)]
    format: Answer,
    output_format: Option<String>,
    output_compression: Option<i64>,
}

/// Images of codes.
#[derive(Debug, Serialize, ToSchema)]
pub struct DecodeResponse {
    /// Seconds since 1970.
    pub created: u64,
    /// The model.
    pub model: String,
    /// The images.
    pub data: Vec<DecodedImage>,
    /// `png`, `jpeg` or `webp`.
    pub output_format: &'static str,
    /// Width and height in pixels.
    pub size: String,
}

/// An image of codes.
#[derive(Debug, Serialize, ToSchema)]
pub struct DecodedImage {
    /// The file in base 64.
    pub b64_json: String,
}

/// Decode codes to images
///
/// The body is JSON, or a safetensors file (`application/vnd.safetensors`) with a tensor `codes`
/// (B, N) int64, as `gen encode` writes it, and the other fields as options in the URL.
#[utoipa::path(
    post,
    path = "/v1/codes/decode",
    tag = "codes",
    params(
        ("model" = Option<String>, Query, description = "Of a safetensors body: name of a model"),
        ("format" = Option<Answer>, Query, description = "Of a safetensors body: form of the answer"),
        ("output_format" = Option<String>, Query, description = "Of a safetensors body: png, jpeg or webp"),
        ("output_compression" = Option<i64>, Query, description = "Of a safetensors body: quality of a JPEG"),
    ),
    request_body(content((DecodeRequest = "application/json"), (Vec<u8> = "application/vnd.safetensors"))),
    responses(
        (status = 200, description = "Images; as a file a tensor `images` (B, 3, S, S) uint8", content(
            (DecodeResponse = "application/json"),
            (Vec<u8> = "application/vnd.safetensors"),
        )),
        (status = 400, description = "A field or codes that cannot be taken", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is of another type", body = ErrorBody),
        (status = 429, description = "Many such requests are under way", body = ErrorBody),
        (status = 503, description = "Loading or shutting down", body = ErrorBody),
    ),
    security((), ("key" = [])),
)]
pub async fn decode_codes(State(app): State<Arc<App>>, request: Request) -> Result<Response> {
    admitted(&app, request, answer).await
}

fn answer(app: &App, raw: Raw) -> Result<Response> {
    let (options, given) = match raw.parse()? {
        Input::Json(DecodeRequest { model, codes, format, output_format, output_compression }) => {
            (DecodeOptions { model, format, output_format, output_compression }, Given::Rows(codes))
        }
        Input::File(bytes, options) => (options, Given::Tensor(bytes)),
    };
    let form = Format::of(options.output_format.as_deref(), options.output_compression)?;
    if options.format == Answer::Safetensors && options.output_format.is_some() {
        let message = "Invalid 'output_format': it is for `format: json`.";
        return Err(ApiError::invalid("output_format", "invalid_value", message));
    }
    let served = app.model(options.model.as_deref())?;
    let (images, mut response) = decode(&served, given, options.format, form)?;
    response.extensions_mut().insert(Facts { model: served.id.clone(), images, prompt: None });
    Ok(response)
}

enum Given {
    /// Rows of a JSON document.
    Rows(Vec<Vec<i64>>),
    /// A safetensors file.
    Tensor(Vec<u8>),
}

fn decode(served: &Served, given: Given, answer: Answer, form: Format) -> Result<(usize, Response)> {
    let info = served.engine.info();
    let rows = match given {
        Given::Rows(rows) => of_json(&rows, info)?,
        Given::Tensor(bytes) => binary::codes(&bytes)?,
    };
    check(&rows, info)?;
    let shape: Vec<i64> = rows.shape.iter().map(|&n| n as i64).collect();
    let codes = Codes::new(Tensor::from_slice(&rows.values).view(shape.as_slice())).map_err(internal)?;
    let pictures = served.engine.decode(codes).map_err(internal)?;
    let response = match answer {
        Answer::Json => Json(document(served, &pictures, form)?).into_response(),
        Answer::Safetensors => file(binary::images_file(&planes(&pictures))?),
    };
    Ok((pictures.len(), response))
}

fn of_json(rows: &[Vec<i64>], info: &ModelInfo) -> Result<Rows<i64>> {
    let n = info.num_tokens as usize;
    match rows.iter().position(|row| row.len() != n) {
        Some(i) => {
            let found = rows[i].len();
            let message = format!("Invalid 'codes[{i}]': expected {n} codes, found {found}.");
            Err(ApiError::invalid(&format!("codes[{i}]"), "invalid_value", message))
        }
        None => Ok(Rows { shape: vec![rows.len(), n], values: rows.concat() }),
    }
}

fn check(rows: &Rows<i64>, info: &ModelInfo) -> Result<()> {
    check_count("codes", rows.shape[0])?;
    let (n, size) = (info.num_tokens as usize, info.codebook_size);
    if rows.shape[1] != n {
        let message = format!("Tensor 'codes': expected (B, {n}), found {:?}.", rows.shape);
        return Err(ApiError::invalid("codes", "invalid_value", message));
    }
    let Some(at) = rows.values.iter().position(|code| !(0..size).contains(code)) else { return Ok(()) };
    let param = format!("codes[{}][{}]", at / n, at % n);
    let found = rows.values[at];
    let message = format!("Invalid '{param}': expected a code from 0 to {}, found {found}.", size - 1);
    Err(ApiError::invalid(&param, "invalid_value", message))
}

fn document(served: &Served, pictures: &[Picture], form: Format) -> Result<DecodeResponse> {
    let image = |picture: &Picture| Ok(DecodedImage { b64_json: base64_of(&form.encode(picture, None)?) });
    let (width, height) = pictures.first().map_or((0, 0), |picture| (picture.width, picture.height));
    Ok(DecodeResponse {
        created: unix_seconds(),
        model: served.id.clone(),
        data: pictures.iter().map(image).collect::<Result<_>>()?,
        output_format: form.name(),
        size: format!("{width}x{height}"),
    })
}

/// Pictures, a plane a colour.
fn planes(pictures: &[Picture]) -> Rows<u8> {
    let (width, height) = pictures.first().map_or((0, 0), |picture| (picture.width, picture.height));
    let plane = |picture: &Picture, colour: usize| -> Vec<u8> {
        picture.rgb.iter().skip(colour).step_by(3).copied().collect()
    };
    let values = pictures.iter().flat_map(|picture| (0..3).flat_map(move |colour| plane(picture, colour)));
    Rows { shape: vec![pictures.len(), 3, height, width], values: values.collect() }
}
