//! From a disk to batches, deterministically: image folders, tar shards, image lists and stored
//! codes; decoding, Pillow-exact crops, and a loader whose position can be saved. Independent
//! of any model.

#[cfg(not(unix))]
compile_error!("reading shards from several threads needs Unix's positioned reads");

mod claim;
mod classes;
pub mod codes;
mod content;
mod corrupt;
mod decode;
mod error;
mod gif;
mod gzip;
mod image_folder;
mod image_list;
mod joined;
mod jpeg;
mod labels;
mod limits;
mod loader;
mod npz_images;
mod open;
mod partition;
mod patterns;
mod prompts;
mod reading;
mod record;
pub mod resize;
mod stored;
mod subset;
pub mod table;
mod tar_members;
mod tar_shards;
pub mod text_features;
mod texts;
pub mod transform;
pub mod views;

pub use claim::fingerprint_for;
pub use classes::{Class, ClassTable, to_tsv};
pub use codes::open_codes;
pub use content::content_fingerprint;
pub use corrupt::{CorruptLog, sort_corrupt_list};
pub use decode::{IMAGE_EXTENSIONS, decode, is_image, looks_like_image};
pub use error::{Error, Result};
pub use image_folder::ImageFiles;
pub use image_list::read_list;
pub use joined::Joined;
pub use labels::same_numbering;
pub use limits::set_max_pixels;
pub use loader::{Batch, CorruptPolicy, Loader, LoaderConfig, NO_CLASS};
pub use npz_images::NpzImages;
pub use open::open;
pub use partition::{LoaderState, Partition, Schedule};
pub use prompts::{PromptFile, PromptRow, Prompts, read_prompts};
pub use reading::Reading;
pub use record::{Dataset, LeftOut, Record, Target, count_left_out, fingerprint};
pub use stored::Stored;
pub use subset::Subset;
pub use tar_shards::TarShards;
pub use transform::{Augment, Transform};
pub use views::{Crops, RandomViews, Views};
