//! POST `/v1/codes/encode`: images → codes.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base::ImagesU8;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::transform::center_crop;
use engine::ModelInfo;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use utoipa::ToSchema;

use super::binary::{self, Rows};
use super::form::{Answer, Input, Raw, admitted, check_count, file, internal};
use crate::app::App;
use crate::error::{ApiError, ErrorBody, Result};
use crate::facts::Facts;
use crate::models::Served;

/// Images to encode.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EncodeRequest {
    /// Name of a model, whose tokenizer is used. Default: the first.
    pub model: Option<String>,
    /// Image files (PNG, JPEG, WebP, BMP, GIF) in base 64, as they are or as `data:` URLs; 1 to 64.
    /// Each is cropped to its centre and resized to the tokenizer's side.
    pub images: Vec<String>,
    /// Form of the answer: `json` or `safetensors`.
    #[serde(default)]
    pub format: Answer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodeOptions {
    model: Option<String>,
    #[serde(default)]
    format: Answer,
}

/// Codes of images.
#[derive(Debug, Serialize, ToSchema)]
pub struct EncodeResponse {
    /// `codes`.
    pub object: &'static str,
    /// The model.
    pub model: String,
    /// Fingerprint of the tokenizer's weights.
    pub tokenizer: String,
    /// Codes are smaller than this.
    pub codebook_size: i64,
    /// Codes of each image.
    pub codes: Vec<Vec<i64>>,
}

/// Encode images to codes
///
/// The body is JSON, or a safetensors file (`application/vnd.safetensors`) with a tensor `images`
/// (B, 3, S, S) uint8 of the tokenizer's side and the options `model` and `format` in the URL.
#[utoipa::path(
    post,
    path = "/v1/codes/encode",
    tag = "codes",
    params(
        ("model" = Option<String>, Query, description = "Of a safetensors body: name of a model"),
        ("format" = Option<Answer>, Query, description = "Of a safetensors body: form of the answer"),
    ),
    request_body(content((EncodeRequest = "application/json"), (Vec<u8> = "application/vnd.safetensors"))),
    responses(
        (status = 200, description = "Codes; as a file a tensor `codes` (B, N) int64", content(
            (EncodeResponse = "application/json"),
            (Vec<u8> = "application/vnd.safetensors"),
        )),
        (status = 400, description = "A field or an image that cannot be taken", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is of another type", body = ErrorBody),
        (status = 429, description = "Many such requests are under way", body = ErrorBody),
        (status = 503, description = "Loading or shutting down", body = ErrorBody),
    ),
    security((), ("key" = [])),
)]
pub async fn encode_images(State(app): State<Arc<App>>, request: Request) -> Result<Response> {
    admitted(&app, request, answer).await
}

fn answer(app: &App, raw: Raw) -> Result<Response> {
    let (model, format, given) = match raw.parse()? {
        Input::Json(EncodeRequest { model, format, images }) => (model, format, Given::Files(images)),
        Input::File(bytes, EncodeOptions { model, format }) => (model, format, Given::Tensor(bytes)),
    };
    let served = app.model(model.as_deref())?;
    let (images, mut response) = encode(&served, given, format)?;
    response.extensions_mut().insert(Facts { model: served.id.clone(), images, prompt: None });
    Ok(response)
}

enum Given {
    /// Files in base 64.
    Files(Vec<String>),
    /// A safetensors file.
    Tensor(Vec<u8>),
}

fn encode(served: &Served, given: Given, format: Answer) -> Result<(usize, Response)> {
    let info = served.engine.info();
    let images = match given {
        Given::Files(files) => of_files(&files, info.side)?,
        Given::Tensor(bytes) => of_tensor(binary::images(&bytes)?, info.side)?,
    };
    let codes = served.engine.encode(images).map_err(internal)?.into_tensor().to_device(Device::Cpu);
    let (b, n) = codes.size2().map_err(internal)?;
    let values = Vec::<i64>::try_from(codes.contiguous().view(-1)).map_err(internal)?;
    let rows = Rows { shape: vec![b as usize, n as usize], values };
    let response = match format {
        Answer::Json => Json(document(served, info, &rows)).into_response(),
        Answer::Safetensors => file(binary::codes_file(&rows, metadata(info))?),
    };
    Ok((b as usize, response))
}

fn document(served: &Served, info: &ModelInfo, rows: &Rows<i64>) -> EncodeResponse {
    EncodeResponse {
        object: "codes",
        model: served.id.clone(),
        tokenizer: info.tokenizer.fingerprint.clone(),
        codebook_size: info.codebook_size,
        codes: rows.values.chunks(rows.shape[1].max(1)).map(<[i64]>::to_vec).collect(),
    }
}

/// As `gen encode` writes it, so that `gen decode` knows the tokenizer.
fn metadata(info: &ModelInfo) -> HashMap<String, String> {
    HashMap::from([
        ("tokenizer".to_owned(), info.tokenizer.fingerprint.clone()),
        ("codebook_size".to_owned(), info.codebook_size.to_string()),
    ])
}

/// (B, 3, S, S) images of files.
fn of_files(files: &[String], side: i64) -> Result<ImagesU8> {
    check_count("images", files.len())?;
    let squares = files.iter().enumerate().map(|(i, text)| square(i, text, side));
    let values = squares.collect::<Result<Vec<_>>>()?.concat();
    let nhwc = Tensor::from_slice(&values).view([files.len() as i64, side, side, 3]);
    ImagesU8::new(nhwc.permute([0, 3, 1, 2]).contiguous()).map_err(internal)
}

/// Pixels of a file, cropped and resized to a square.
fn square(number: usize, text: &str, side: i64) -> Result<Vec<u8>> {
    let param = format!("images[{number}]");
    let invalid = |what: String| ApiError::invalid(&param, "invalid_image_file", what);
    let base64 = match text.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,").map(|(_, rest)| rest),
        None => Some(text),
    };
    let base64 = base64.ok_or_else(|| invalid(format!("{param}: a `data:` URL without `;base64,`.")))?;
    let bytes = STANDARD.decode(base64.trim()).map_err(|error| {
        invalid(format!(
            "{param}: expected a file in base 64 ({error}); URLs other than `data:` are not read."
        ))
    })?;
    let (image, _) =
        data::decode(&param, &bytes).map_err(|error| invalid(format!("Invalid image: {error}.")))?;
    let side = u32::try_from(side).map_err(internal)?;
    Ok(center_crop(&image, side).into_raw())
}

/// (B, 3, S, S) images of a tensor.
fn of_tensor(rows: Rows<u8>, side: i64) -> Result<ImagesU8> {
    let side = side as usize;
    check_count("images", rows.shape[0])?;
    if rows.shape[1..] != [3, side, side] {
        let message = format!("Tensor 'images': expected (B, 3, {side}, {side}), found {:?}.", rows.shape);
        return Err(ApiError::invalid("images", "invalid_value", message));
    }
    let shape: Vec<i64> = rows.shape.iter().map(|&n| n as i64).collect();
    ImagesU8::new(Tensor::from_slice(&rows.values).view(shape.as_slice())).map_err(internal)
}
