//! Images of the engine and of a run by itself.

use std::path::Path;
use std::time::Duration;

use base::{Codes, ImagesU8, Precision, Silent, rng};
use generate::{Condition, DrawConfig, Generator, ModelsConfig, Picture, Prompt, SampledImage, TextConfig};
use sampler::{DecodeMode, SamplingConfig};
use settings::{Rng, SamplingSettings};
use tch::Tensor;

use super::models::{CLASS, TEXT, models, write_model};
use super::{Made, class, engine_of, outcomes, request, start};
use crate::{Engine, Event, ImageRequest, Subject};

const PROMPTS: [&str; 4] =
    ["a photo of a dog", "a red panda", "", "dogs and pandas of all the photos in the world"];

fn pick(number: u64, which: u64, n: u64) -> usize {
    rng::below(9, &[which, number], n) as usize
}

fn sampling(number: u64) -> SamplingSettings {
    let schedules = [None, Some("linear"), Some("step"), Some("cosine")];
    SamplingSettings {
        cfg: [None, Some(1.0), Some(3.0), Some(1.5)][pick(number, 1, 4)],
        cfg_schedule: schedules[pick(number, 2, 4)].map(Into::into),
        cfg_interval: [None, Some(5)][pick(number, 3, 2)],
        temperature: [None, Some(0.8), Some(1.3)][pick(number, 4, 3)],
        top_k: [None, None, Some(1), Some(12)][pick(number, 5, 4)],
        top_p: [None, None, Some(0.9)][pick(number, 6, 3)],
        min_p: [None, None, Some(0.02)][pick(number, 7, 3)],
        ..SamplingSettings::default()
    }
}

fn image(number: u64, prompts: bool) -> ImageRequest {
    ImageRequest {
        subject: match prompts {
            true => Subject::Prompt(PROMPTS[pick(number, 10, 4)].into()),
            false => Subject::Class(pick(number, 10, 10) as i64),
        },
        negative_prompt: (prompts && number.is_multiple_of(3)).then(|| PROMPTS[pick(number, 11, 4)].into()),
        sampling: sampling(number),
        seed: pick(number, 8, 5) as u64,
        index: pick(number, 9, 1000) as u64,
        size: [None, None, Some(24), Some(9)][pick(number, 12, 4)],
    }
}

/// The image by a run that makes nothing else.
fn alone(models: &ModelsConfig, generator: Option<&Generator>, image: &ImageRequest) -> Made {
    let condition = |generator: &Generator| match &image.subject {
        Subject::Class(index) => {
            Condition::Class(generator.classes().unwrap().by_index(*index).unwrap().clone())
        }
        Subject::Prompt(text) => Condition::Prompt(Prompt::all([text.clone()]).remove(0)),
    };
    let loaded = generator.is_none().then(|| {
        let Subject::Prompt(text) = &image.subject else { panic!("classes share a generator") };
        let (prompts, negative) = (Prompt::all([text.clone()]), image.negative_prompt.clone());
        let text = Some(TextConfig { prompts, negative, encoder: None });
        Generator::load(ModelsConfig { text, ..models.clone() }, &mut Silent).unwrap()
    });
    let generator = generator.or(loaded.as_ref()).unwrap();
    let defaults = models.pair.sampling_defaults().unwrap();
    let draw = DrawConfig {
        sampling: SamplingConfig::from_settings(image.sampling.clone().or(defaults)).unwrap(),
        rng: Rng::Image,
        seed: image.seed,
        mode: DecodeMode::Stepwise,
        size: image.size,
    };
    let mut run = generator.run(&draw).unwrap();
    let condition = condition(generator);
    let pixels = run.images(&[image.index], &[&condition]).unwrap();
    let picture = Picture::from_batch(&pixels).unwrap().remove(0);
    let sampled = SampledImage { index: image.index, condition: &condition, picture: picture.clone() };
    Made { picture, provenance: sampled.provenance(run.settings()), codes: vec![], text_tokens: 0 }
}

/// Requests of one to four images arrive at random times from three clients.
fn together(engine: &Engine, images: &[ImageRequest]) -> Vec<Made> {
    let client = |client: usize| {
        let mut made: Vec<(usize, Made)> = vec![];
        let mut at = client * images.len() / 3;
        let end = (client + 1) * images.len() / 3;
        let mut running = vec![];
        while at < end {
            let count = (1 + pick(at as u64, 20, 4)).min(end - at);
            running.push((at, engine.submit(request(images[at..at + count].to_vec())).unwrap()));
            at += count;
            std::thread::sleep(Duration::from_millis(pick(at as u64, 21, 4) as u64));
        }
        for (at, submission) in running {
            let found = outcomes(submission).into_iter().map(Result::unwrap);
            made.extend(found.enumerate().map(|(i, image)| (at + i, image)));
        }
        made
    };
    let mut made: Vec<(usize, Made)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|number| scope.spawn(move || client(number))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    made.sort_by_key(|(number, _)| *number);
    assert_eq!(made.len(), images.len());
    made.into_iter().map(|(_, image)| image).collect()
}

fn compare(dir: &Path, engine: &Engine, precision: Precision, images: &[ImageRequest]) {
    let models = models(dir, precision);
    let prompts = engine.info().classes.is_none();
    let generator = (!prompts).then(|| Generator::load(models.clone(), &mut Silent).unwrap());
    for (image, found) in images.iter().zip(together(engine, images)) {
        let expected = alone(&models, generator.as_ref(), image);
        assert_eq!(found.provenance, expected.provenance, "{precision}");
        assert!(found.picture == expected.picture, "{precision}, {image:?}");
        assert_eq!((found.codes.len(), found.text_tokens > 0), (16, prompts));
    }
    let status = engine.status();
    assert_eq!((status.images, status.failed, status.refused), (images.len() as u64, 0, 0));
    assert!(status.steps > 0 && status.rows_stepped >= 16 * status.images && status.step_seconds > 0.0);
}

#[test]
fn images_of_classes_are_those_of_a_run_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), CLASS);
    let threads = tch::get_num_threads();
    for (precision, threads, count) in [
        (Precision::Fp32, 1, 120),
        (Precision::Fp32, 3, 60),
        (Precision::Bf16, 1, 40),
        (Precision::Int8, 1, 40),
        (Precision::Fp16, 2, 40), // by libtorch's operations
    ] {
        tch::set_num_threads(threads);
        let images: Vec<ImageRequest> = (0..count).map(|number| image(number, false)).collect();
        compare(dir.path(), &start(dir.path(), precision, 5, 1000), precision, &images);
    }
    tch::set_num_threads(threads);
}

#[test]
fn images_of_prompts_are_those_of_a_run_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), TEXT);
    let images: Vec<ImageRequest> = (0..40).map(|number| image(number, true)).collect();
    compare(dir.path(), &start(dir.path(), Precision::Fp32, 4, 1000), Precision::Fp32, &images);
}

/// Events of an image, in their order.
#[test]
fn steps_and_previews_are_told_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_of(dir.path(), CLASS, 2, 10);
    let plain = outcomes(engine.submit(request(vec![class(3)])).unwrap()).remove(0).unwrap();
    let asked = crate::Request { partial_images: 3, steps: true, ..request(vec![class(3)]) };
    let mut submission = engine.submit(asked).unwrap();
    let (mut steps, mut previews, mut order) = (vec![], vec![], vec![]);
    while let Some(event) = submission.blocking_next() {
        match event {
            Event::Queued { ahead } => order.push(format!("queued {ahead}")),
            Event::Started { image } => order.push(format!("started {image}")),
            Event::Step { step, of, .. } => steps.push((step, of)),
            Event::Partial { number, picture, .. } => previews.push((number, picture)),
            Event::Done { picture, codes, .. } => {
                assert!(picture == plain.picture && codes == plain.codes);
                order.push("done".into());
            }
            Event::Failed { error, .. } => panic!("{error}"),
        }
    }
    assert_eq!(order, ["queued 0", "started 0", "done"]);
    assert_eq!(steps, (1..=16).map(|step| (step, 16)).collect::<Vec<_>>());
    assert_eq!(previews.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(previews.iter().all(|(_, picture)| picture.width == 16 && *picture != plain.picture));
}

#[test]
fn the_tokenizer_serves_codes_and_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_of(dir.path(), CLASS, 2, 10);
    let made = outcomes(engine.submit(request(vec![class(3), class(4)])).unwrap());
    let made: Vec<Made> = made.into_iter().map(Result::unwrap).collect();
    let codes: Vec<i64> = made.iter().flat_map(|image| image.codes.clone()).collect();
    let pictures = engine.decode(Codes::new(Tensor::from_slice(&codes).view([2, 16])).unwrap()).unwrap();
    assert!(pictures.iter().zip(&made).all(|(picture, made)| *picture == made.picture));
    let pixels: Vec<u8> = made.iter().flat_map(|image| image.picture.rgb.clone()).collect();
    let pixels = Tensor::from_slice(&pixels).view([2, 16, 16, 3]).permute([0, 3, 1, 2]);
    let codes = engine.encode(ImagesU8::new(pixels).unwrap()).unwrap();
    assert_eq!(codes.tensor().size(), [2, 16]);
    let small = Tensor::zeros([1, 3, 8, 8], (tch::Kind::Uint8, tch::Device::Cpu));
    assert!(engine.encode(ImagesU8::new(small).unwrap()).unwrap_err().to_string().contains("(B, 3, 16, 16)"));
    assert!(engine.decode(Codes::new(Tensor::from_slice(&[64i64; 16]).view([1, 16])).unwrap()).is_err());
}
