//! The engine's refusals and failures, as clients are told of them.

use std::time::Duration;

use engine::{EngineError, Refused};

use crate::error::ApiError;

/// A request that the engine does not take.
pub fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::Full { queued, limit, retry_after } => {
            let message = format!("{queued} images wait already, and the queue takes {limit}.");
            ApiError::busy(retry_after.max(Duration::from_secs(1)), message)
        }
        Refused::Draining => ApiError::draining(),
        Refused::Invalid { param, message } => {
            let param = if param == "cfg" { "guidance_scale" } else { param };
            ApiError::invalid(param, "invalid_value", format!("Invalid '{param}': {message}"))
        }
        Refused::TooMany { images, limit } => {
            let message = format!("Invalid 'n': {images} images are more than the queue takes, {limit}.");
            ApiError::invalid("n", "integer_above_max_value", message)
        }
    }
}

/// An image that could not be made. Where the model failed at a seed of the client's, a second try
/// would end alike.
pub fn failed(error: &EngineError, seeded: bool) -> ApiError {
    match error {
        EngineError::Stopped => ApiError::draining(),
        error => {
            let repeatable = seeded && matches!(error, EngineError::Generate(_));
            ApiError::internal(format!("The image could not be made: {error}"), repeatable)
        }
    }
}

/// The engine ended without a word about every image.
pub fn lost() -> ApiError {
    ApiError::internal("The image could not be made: the engine stopped.", false)
}
