//! Laws of the loader: worker counts and interruptions change nothing, damaged images are handled
//! as configured.

use std::path::Path;
use std::sync::Arc;

use base::Hint;
use data::{Batch, CorruptPolicy, Dataset, Error, Loader, LoaderConfig, Reading, Transform};
use image::RgbImage;
use tch::Tensor;

/// Twelve 20x14 images in two class folders, all different.
fn class_tree(root: &Path) -> Arc<dyn Dataset> {
    for (c, class) in ["cat", "dog"].iter().enumerate() {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for i in 0..6 {
            let shade = (c * 6 + i) as u8 * 20;
            let image = RgbImage::from_fn(20, 14, |x, y| image::Rgb([shade, x as u8 * 9, y as u8 * 11]));
            image.save(root.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
    data::open(root).unwrap()
}

fn config(workers: usize) -> LoaderConfig {
    LoaderConfig { workers, prefetch: 2, ..LoaderConfig::training(5, 7) }
}

fn take(loader: &mut Loader, n: usize) -> Vec<Batch> {
    (0..n).map(|_| loader.next().unwrap().unwrap()).collect()
}

fn assert_same(a: &[Batch], b: &[Batch]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!((&a.keys, &a.labels, a.epoch), (&b.keys, &b.labels, b.epoch));
        assert_eq!(a.images.tensor(), b.images.tensor());
    }
}

#[test]
fn neither_workers_nor_an_interruption_change_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    let set = class_tree(dir.path());
    let load = |workers| Loader::new(set.clone(), Transform::random(8), config(workers)).unwrap();
    let unbroken = take(&mut load(1), 7);
    assert_same(&unbroken, &take(&mut load(4), 7));

    let mut first = load(2);
    let mut batches = take(&mut first, 3);
    let saved = serde_json::to_string(&first.state()).unwrap();
    drop(first);
    let mut second = load(3);
    second.restore(serde_json::from_str(&saved).unwrap()).unwrap();
    batches.extend(take(&mut second, 4));
    assert_same(&unbroken, &batches);
}

#[test]
fn augmentation_differs_between_epochs_and_seeds_decide_all() {
    let dir = tempfile::tempdir().unwrap();
    let set = class_tree(dir.path());
    let all = |seed: u64| {
        let reading = Reading { shuffle: false, ..Reading::training(12, seed) };
        let config = LoaderConfig { reading, ..config(2) };
        take(&mut Loader::new(set.clone(), Transform::random(8), config).unwrap(), 2)
    };
    let (a, b) = (all(1), all(2));
    assert_eq!(a[0].keys, a[1].keys);
    assert_ne!(a[0].images.tensor(), a[1].images.tensor());
    assert_ne!(a[0].images.tensor(), b[0].images.tensor());
    assert_same(&a, &all(1));
}

#[test]
fn one_pass_yields_every_record_once_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut loader =
        Loader::new(class_tree(dir.path()), Transform::center(8), LoaderConfig::once(5)).unwrap();
    let batches = take(&mut loader, 3);
    assert!(loader.next().unwrap().is_none());
    assert_eq!(batches.iter().map(|b| b.valid).collect::<Vec<_>>(), [5, 5, 2]);
    let labels: Vec<i64> = batches.iter().flat_map(|b| b.labels.clone()).collect();
    assert_eq!(labels, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
    assert_eq!(batches[2].images.tensor().size(), [2, 3, 8, 8]);
    // The red plane holds the shade the image was made with.
    let red: Vec<i64> = Vec::try_from(
        batches[2].images.tensor().select(1, 0).flatten(1, 2).select(1, 0).to_kind(tch::Kind::Int64),
    )
    .unwrap();
    assert_eq!(red, [200, 220]);
}

#[test]
fn a_damaged_image_is_replaced_in_training_left_out_in_evaluation_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let set = class_tree(dir.path());
    std::fs::write(dir.path().join("cat/3.png"), "not an image").unwrap();
    let list = dir.path().join("damaged.tsv");
    let config = LoaderConfig { corrupt_list: Some(list.clone()), ..LoaderConfig::once(12) };

    let mut once = Loader::new(set.clone(), Transform::center(8), config.clone()).unwrap();
    assert_eq!(once.next().unwrap().unwrap().valid, 11);
    assert_eq!(once.corrupt()[0].0, "cat/3.png");
    assert!(std::fs::read_to_string(&list).unwrap().starts_with("cat/3.png\t"));

    let full = LoaderConfig { corrupt: CorruptPolicy::Replace, ..config.clone() };
    let batch = Loader::new(set.clone(), Transform::center(8), full).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.valid, 12);
    assert!(!batch.keys.contains(&"cat/3.png".to_owned()));

    let strict = LoaderConfig { max_corrupt: 0, ..config };
    let e = Loader::new(set, Transform::center(8), strict).unwrap().next().unwrap_err();
    assert!(
        matches!(e, Error::TooManyCorrupt { count: 1, ceiling: 0, .. })
            && e.hints()[0].contains("damaged.tsv"),
        "{e}"
    );
}

/// A saved place resumes with batches of another size.
#[test]
fn a_place_is_kept_by_batches_of_another_size() {
    let dir = tempfile::tempdir().unwrap();
    let set = class_tree(dir.path());
    let loader = |batch_size: usize| {
        let config = LoaderConfig { reading: Reading::training(batch_size, 7), ..config(1) };
        Loader::new(set.clone(), Transform::center(8), config).unwrap()
    };
    let read = |loader: &mut Loader, batches: usize| -> Vec<usize> {
        (0..batches).flat_map(|_| loader.next().unwrap().unwrap().indices).collect()
    };
    let whole = read(&mut loader(4), 3);
    let mut halves = loader(2);
    assert_eq!(read(&mut halves, 4), whole[..8]);
    let mut rest = loader(1);
    rest.restore(halves.state()).unwrap();
    assert_eq!(read(&mut rest, 4), whole[8..]);
    assert_eq!(rest.state(), data::LoaderState { epoch: 1, records: 0 });
}

#[test]
fn a_position_of_other_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut loader = Loader::new(class_tree(dir.path()), Transform::center(8), config(1)).unwrap();
    let e = loader.restore(data::LoaderState { epoch: 0, records: 13 }).unwrap_err().to_string();
    assert!(e.contains("12 records"), "{e}");
    let too_big = LoaderConfig { reading: Reading::training(13, 7), ..config(1) };
    assert!(Loader::new(loader.dataset().clone(), Transform::center(8), too_big).is_err());
}

#[test]
fn batches_hold_what_the_transform_makes() {
    let dir = tempfile::tempdir().unwrap();
    let set = class_tree(dir.path());
    let mut loader = Loader::new(set.clone(), Transform::center(8), LoaderConfig::once(12)).unwrap();
    let batch = loader.next().unwrap().unwrap();
    let image = data::transform::center_crop(&set.get(4).unwrap().image, 8);
    let expected = Tensor::from_slice(image.as_raw()).view([8, 8, 3]).permute([2, 0, 1]);
    assert_eq!(batch.images.tensor().select(0, 4), expected);
}
