//! Linear probes: accuracy of a linear classifier on frozen features, by GigaTok's protocol (after
//! MAE, He et al., 2021, arXiv 2111.06377, and MoCo v3).
//!
//! A probe is not a [`crate::Task`]: it has one small head, LARS instead of AdamW, a schedule by
//! epochs, batch norm with statistics of a part of the step, and possibly stored features. It
//! shares the saved state and the log with the training loop.
//!
//! B images of a batch, D width of the features, K classes

mod cache;
mod classes;
mod config;
mod head;
mod protocol;
mod run;
mod source;
mod subject;

pub use cache::{FeatureCache, FeaturePlan, FeatureViews, Features};
pub use classes::ClassMap;
pub use config::{ProbeConfig, ProbeOptimizer};
pub use head::{ProbeHead, Scores};
pub use protocol::{GIGATOK_ACC, differences};
pub use run::{ProbeJob, ProbeResult, probe};
pub use subject::{FeatureNorm, Subject, SubjectId, TokenizerPlace};
