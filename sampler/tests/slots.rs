//! Images in slots, each at its own step with its own settings, are those drawn alone.

use std::collections::BTreeMap;

use ar_model::{ArConfig, AutoregressiveModel, Backend, Conditioning, Decoder, Gpt};
use base::config::Document;
use base::testing::recipe_tensor;
use base::{Build, Precision, SampleStream, Vars, rng};
use sampler::DecodeMode::Stepwise;
use sampler::RandomSource::Streams;
use sampler::{Filter, Guidance, GuidanceSchedule, Sampler, SamplingConfig, SlotImage, Slots};
use tch::{Device, Kind, Tensor};

const CLASS: &str = "num_tokens: 9\nposition: learned\nconditioning: { type: class, num_classes: 3 }\n";
const TEXT: &str =
    "num_tokens: 9\nposition: rope_2d\nconditioning: { type: text, length: 5, feature_width: 12 }\n";

fn model(rest: &str, backend: Backend) -> Decoder {
    let text = format!("type: gpt\nwidth: 32\nlayers: 2\nheads: 4\nvocab_size: 24\n{rest}");
    let config = ArConfig::from_document(&Document::parse("test", &text).unwrap()).unwrap();
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    let gpt = Gpt::new(&vars.root(), &config).unwrap();
    for mut var in vars.all() {
        let shape = var.tensor.size();
        tch::no_grad(|| var.tensor.copy_(&recipe_tensor(&var.name, 4, &shape, -0.4, 0.4)));
    }
    gpt.into_decoder(backend).unwrap()
}

/// Text of one to five tokens, or a class.
fn condition(model: &Decoder, number: u64) -> Conditioning {
    if model.spec().num_classes.is_some() {
        return Conditioning::Class(Tensor::from_slice(&[number as i64 % 3]));
    }
    let mask = Tensor::arange(5, (Kind::Int64, Device::Cpu)).ge(number as i64 % 5).view([1, 5]);
    let features = recipe_tensor("features", number, &[1, 5, 12], -1.0, 1.0) * mask.unsqueeze(2);
    Conditioning::Text { features, mask }
}

fn settings(number: u64) -> SamplingConfig {
    let guidance = [
        Guidance::none(),
        Guidance::constant(3.0),
        Guidance { scale: 2.5, schedule: GuidanceSchedule::Linear, interval: Some(4) },
        Guidance { scale: 4.0, schedule: GuidanceSchedule::Step { start: 0.4 }, interval: None },
    ];
    let filters = [
        vec![],
        vec![Filter::TopK(1)],
        vec![Filter::TopK(7), Filter::MinP(0.05)],
        vec![Filter::TopP(0.8)],
        vec![Filter::TypicalP(0.7)],
    ];
    let pick = |which, n| rng::below(1, &[which, number], n) as usize;
    SamplingConfig {
        temperature: [1.0, 0.7, 1.4][pick(1, 3)],
        filters: filters[pick(2, 5)].clone(),
        guidance: guidance[pick(3, 4)],
    }
}

fn image(model: &Decoder, number: u64) -> SlotImage {
    SlotImage {
        cond: condition(model, number),
        negative: (number % 4 == 1).then(|| condition(model, number + 1)),
        config: settings(number),
        stream: SampleStream { seed: number / 3, index: number },
    }
}

fn alone(model: &Decoder, number: u64) -> Vec<i64> {
    let SlotImage { cond, negative, config, stream } = image(model, number);
    let mut sampler = Sampler::new(model);
    sampler.set_negative(negative);
    let codes = sampler.generate(&cond, &config, Streams(&[stream]), Stepwise).unwrap().codes;
    Vec::try_from(codes.tensor().view(-1)).unwrap()
}

/// Images enter at random steps wherever there is room; some are guessed to their end on the way,
/// some leave before it.
fn together(model: &Decoder, total: u64) -> BTreeMap<u64, Vec<i64>> {
    let mut slots = Slots::new(model, 5);
    let (mut next, mut step) = (0, 0);
    let (mut running, mut done) = (BTreeMap::new(), BTreeMap::new());
    while next < total || !running.is_empty() {
        step += 1;
        slots.step().into_iter().for_each(|(_, drawn)| drawn.unwrap());
        let count = rng::below(2, &[step], 4).min(slots.free() as u64).min(total - next);
        let entering: Vec<u64> = (next..next + count).collect();
        let images = entering.iter().map(|&number| image(model, number)).collect();
        let places = slots.admit(images).unwrap();
        running.extend(places.iter().map(|(slot, _)| *slot).zip(entering));
        next += count;
        for (slot, number) in running.clone() {
            let known = slots.codes(slot).to_vec();
            if known.len() == 4 && number.is_multiple_of(3) {
                let guess = slots.draft(slot);
                assert_eq!((guess.len(), &guess[..4]), (9, &known[..]));
                assert!(guess.iter().all(|code| (0..24).contains(code)));
            }
            if known.len() == 9 || (known.len() == 5 && number % 7 == 6) {
                running.remove(&slot);
                done.insert(number, slots.remove(slot));
            }
        }
    }
    assert_eq!(slots.free(), 5);
    done
}

#[test]
fn images_in_slots_are_those_drawn_alone() {
    for rest in [CLASS, TEXT] {
        for backend in [Backend::Torch, Backend::default_for(Device::Cpu, Precision::Bf16)] {
            let model = model(rest, backend);
            for (number, codes) in together(&model, 60) {
                assert_eq!(codes, alone(&model, number)[..codes.len()], "image {number}, {backend:?}");
            }
        }
    }
}

#[test]
fn more_images_than_empty_slots_are_refused() {
    let model = model(CLASS, Backend::Torch);
    let mut slots = Slots::new(&model, 2);
    slots.admit(vec![image(&model, 0)]).unwrap();
    let error = slots.admit(vec![image(&model, 1), image(&model, 2)]).unwrap_err();
    assert_eq!(error.to_string(), "2 images need as many empty slots, found 1");
    assert_eq!((slots.free(), slots.codes(0).len()), (1, 1));
    let wrong = SlotImage { cond: Conditioning::Class(Tensor::from_slice(&[4i64])), ..image(&model, 0) };
    assert!(Slots::check(&model, &wrong).is_err());
}
