//! Images as a stream of events.

use serde_json::{Value, json};

use crate::client::{classes, images, unbase64, wait};

/// The events of a stream, name and data.
pub fn events(text: &str) -> Vec<(String, Value)> {
    let blocks = text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':'));
    let event = |block: &str| {
        let line = |begins: &str| block.lines().find_map(|line| line.strip_prefix(begins)).unwrap();
        (line("event: ").to_owned(), serde_json::from_str(line("data: ")).unwrap())
    };
    blocks.map(event).collect()
}

#[test]
fn events_come_in_order_and_end_with_the_image_that_is_sent_whole() {
    let body = json!({"class": 207, "seed": 5, "n": 2});
    let whole = wait(images(&classes(), &body)).json();
    let body = json!({"class": 207, "seed": 5, "n": 2, "stream": true, "partial_images": 3});
    let answer = wait(images(&classes(), &body));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    let events = events(&answer.text());
    assert!(events.iter().all(|(name, data)| data["type"] == name.as_str()), "type is the event's name");
    for image in 0..2 {
        let mut of_image = events.iter().filter(|(_, data)| data["image_index"] == image);
        let names: Vec<&str> = of_image.clone().map(|(name, _)| name.as_str()).collect();
        let partial = "image_generation.partial_image";
        assert_eq!(names, [partial, partial, partial, "image_generation.completed"], "image {image}");
        for (number, (_, data)) in of_image.clone().take(3).enumerate() {
            assert_eq!(data["partial_image_index"], number);
            assert!(data::decode("partial", &unbase64(&data["b64_json"])).is_ok());
            for key in ["created_at", "size", "quality", "background", "output_format"] {
                assert!(!data[key].is_null(), "{key}");
            }
        }
        let (_, last) = of_image.next_back().unwrap();
        assert_eq!(last["b64_json"], whole["data"][image]["b64_json"]);
        assert_eq!((&last["seed"], &last["index"]), (&json!(5), &json!(image)));
        assert_eq!(last["usage"]["output_tokens"], 16);
        assert_eq!(last["size"], "16x16");
    }
    assert_eq!(events.len(), 8, "nothing else without `progress`");
}

#[test]
fn progress_tells_of_the_queue_and_the_steps() {
    let body = json!({"class": 207, "n": 1, "stream": true, "progress": true});
    let events = events(&wait(images(&classes(), &body)).text());
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.first(), Some(&"gen.queued"));
    assert_eq!(names.get(1), Some(&"gen.started"));
    assert_eq!(names.last(), Some(&"image_generation.completed"));
    let steps: Vec<&Value> = events.iter().filter(|(name, _)| name == "gen.step").map(|(_, d)| d).collect();
    assert!(steps.windows(2).all(|pair| pair[0]["step"].as_i64() < pair[1]["step"].as_i64()));
    assert_eq!((&steps.last().unwrap()["step"], &steps[0]["of"]), (&json!(16), &json!(16)));
    assert!(events[0].1["eta_seconds"].as_f64().unwrap() >= 0.0);
}
