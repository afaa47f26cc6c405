//! `gen eval` and `gen eval stats`, end to end, with weights by recipe where a network is needed.

mod agreement;
mod inputs;
mod models;
mod sets;

use crate::common::Place;
use serde_json::Value;

const NET: &str = "--inception random:11";

const COMPUTING: &str = "--device cpu --threads 1";

/// Two folders of images with the same names, the second one noisier.
fn place(images: usize) -> Place {
    let place = Place::new("eval", COMPUTING);
    for (folder, noise) in [("a", 0), ("b", 7)] {
        std::fs::create_dir(place.path(folder)).unwrap();
        for i in 0..images {
            picture(&place, &format!("{folder}/{i:06}.png"), (20, 16), i as u32, noise);
        }
    }
    place
}

fn picture(place: &Place, name: &str, size: (u32, u32), seed: u32, noise: u32) {
    place.picture(name, size, |x, y| {
        let value = (x * 11 + y * 7 + seed * 29) % 200 + (x * y * noise) % 13;
        [value as u8, (value / 2) as u8, (seed * 40 % 256) as u8]
    });
}

fn value(report: &Value, name: &str) -> f64 {
    let values = report["values"].as_array().unwrap();
    let found = values.iter().find(|v| v["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"));
    found["value"].as_f64().unwrap_or_else(|| panic!("{found}"))
}

fn names(report: &Value) -> Vec<&str> {
    report["values"].as_array().unwrap().iter().filter_map(|v| v["name"].as_str()).collect()
}

fn near(a: f64, b: f64, bound: f64) {
    assert!((a - b).abs() <= bound, "{a} and {b}");
}
