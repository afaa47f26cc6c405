//! Linear probes: how well a linear classifier on frozen features tells classes apart, to GigaTok's protocol (after
//! MAE, He et al., 2021, arXiv 2111.06377, and MoCo v3).
//!
//! This is no [`crate::Task`]: a probe has one small head, LARS instead of AdamW, a schedule by epochs, batch norm
//! whose statistics belong to a part of the step, and features that may lie on the disk. What it shares with the
//! training loop is the saved state and the log.
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
