//! The answer in one piece.

use std::time::Instant;

use engine::{Event, Submission};
use generate::{Picture, Provenance};

use super::answer::{ImageData, ImagesResponse, Usage, file, size_of};
use super::fault::{failed, lost};
use super::plan::Plan;
use crate::app::App;
use crate::clock::unix_seconds;
use crate::error::Result;

/// Waits for all images.
///
/// # Errors
/// Returns an error if one of them cannot be made.
pub async fn response(app: &App, plan: Plan, mut submission: Submission) -> Result<ImagesResponse> {
    let mut data: Vec<Option<ImageData>> = plan.images.iter().map(|_| None).collect();
    let (mut text, mut codes) = (0, 0);
    while let Some(event) = submission.next().await {
        match event {
            Event::Done { image, picture, provenance, codes: drawn, text_tokens, timing } => {
                app.metrics.image(&plan.served.id, &timing);
                text += text_tokens;
                codes += drawn.len() as u64;
                let made = image_data(app, &plan, picture, provenance).await?;
                data[image] = Some(made);
            }
            Event::Failed { error, .. } => return Err(failed(&error, plan.seeded)),
            Event::Queued { .. } | Event::Started { .. } | Event::Step { .. } | Event::Partial { .. } => {}
        }
    }
    let data = data.into_iter().collect::<Option<Vec<_>>>().ok_or_else(lost)?;
    Ok(ImagesResponse {
        created: unix_seconds(),
        data,
        background: "opaque",
        output_format: plan.format.name(),
        size: size_of(&plan),
        usage: Usage::of(text, codes),
    })
}

async fn image_data(app: &App, plan: &Plan, picture: Picture, provenance: Provenance) -> Result<ImageData> {
    let (seed, index) = (provenance.run.seed, provenance.index);
    let began = Instant::now();
    let b64_json = file(plan.format, picture, Some(provenance)).await?;
    app.metrics.phase(&plan.served.id, "encoding", began.elapsed());
    Ok(ImageData { b64_json, seed, index })
}
