//! The models that are served.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use settings::SamplingSettings;
use utoipa::ToSchema;

use crate::app::{App, Stage};
use crate::error::{ApiError, ErrorBody, Result};
use crate::models::Served;

/// The models.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    pub object: &'static str,
    /// The models; the first is the default.
    pub data: Vec<ModelObject>,
}

/// A model: OpenAI's keys, and facts of this program's.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelObject {
    /// Name in requests.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// `gen`.
    pub owned_by: &'static str,
    /// Other names in requests.
    pub aliases: Vec<String>,
    /// As the server was given it: the value of `--model`.
    pub name: String,
    /// `class` or `prompt`.
    pub takes: &'static str,
    /// Number of classes.
    pub num_classes: Option<usize>,
    /// Width and height of its images in pixels.
    pub size: String,
    /// Codes of an image.
    pub num_tokens: i64,
    /// Codes are smaller than this.
    pub codebook_size: i64,
    /// Sampling settings of requests that name none, as `gen sample` names them.
    #[schema(value_type = Object)]
    pub defaults: SamplingSettings,
    /// Images drawn at a time.
    pub slots: usize,
    /// Device.
    pub device: String,
    /// Dtype of the transformer's weights.
    pub precision: String,
    /// Fingerprint of the transformer's weights.
    pub fingerprint: String,
    /// Fingerprint of the tokenizer's weights.
    pub tokenizer: String,
}

/// A model with its classes.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDetails {
    /// The model.
    #[serde(flatten)]
    pub model: ModelObject,
    /// Its classes; absent for a model of prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<ClassObject>>,
}

/// A class.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassObject {
    /// Index.
    pub index: i64,
    /// WordNet id; empty if there is none.
    pub wnid: String,
    /// Name.
    pub name: String,
}

/// List the models
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "models",
    responses(
        (status = 200, description = "The models; the first is the default", body = ModelList),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 503, description = "The first model is being loaded", body = ErrorBody),
    ),
    security((), ("key" = [])),
)]
pub async fn list_models(State(app): State<Arc<App>>) -> Result<Json<ModelList>> {
    let all = app.models.all();
    if all.is_empty() && app.stage() == Stage::Loading {
        return Err(ApiError::loading());
    }
    Ok(Json(ModelList { object: "list", data: all.iter().map(|served| object(&app, served)).collect() }))
}

/// Describe a model
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "models",
    params(("id" = String, Path, description = "Name of the model")),
    responses(
        (status = 200, description = "The model, with its classes", body = ModelDetails),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 503, description = "The models are being loaded", body = ErrorBody),
    ),
    security((), ("key" = [])),
)]
pub async fn get_model(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<ModelDetails>> {
    let Some(served) = app.models.find(Some(&id)) else {
        return Err(match app.stage() {
            Stage::Loading => ApiError::loading(),
            Stage::Ready | Stage::Draining => ApiError::model_not_found(&id, &app.models.names()),
        });
    };
    let classes = served.engine.info().classes.as_ref().map(|table| {
        let class =
            |c: &data::Class| ClassObject { index: c.index, wnid: c.wnid.clone(), name: c.name.clone() };
        table.classes().map(class).collect()
    });
    Ok(Json(ModelDetails { model: object(&app, &served), classes }))
}

fn object(app: &App, served: &Served) -> ModelObject {
    let info = served.engine.info();
    ModelObject {
        id: served.id.clone(),
        object: "model",
        created: served.created,
        owned_by: "gen",
        aliases: app.models.aliases_of(&served.id),
        name: info.id.clone(),
        takes: if info.classes.is_some() { "class" } else { "prompt" },
        num_classes: info.classes.as_ref().map(|table| table.classes().len()),
        size: format!("{0}x{0}", info.side),
        num_tokens: info.num_tokens,
        codebook_size: info.codebook_size,
        defaults: info.defaults.clone(),
        slots: info.slots,
        device: info.device.clone(),
        precision: info.precision.to_string(),
        fingerprint: info.transformer.fingerprint.clone(),
        tokenizer: info.tokenizer.fingerprint.clone(),
    }
}
