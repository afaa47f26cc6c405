//! Recipes.

use super::case;
use crate::common::Place;

#[test]
fn errors_name_the_line_that_was_given_and_merge_keys_work() {
    let Some(folder) = case("yaml_wrong_line") else { return };
    let place = Place::new("train-tokenizer --recipe", "--data x -o run");
    let say = |file: &str| place.fails(&folder.join(file).display().to_string());
    let line_of = |file: &str, text: &str| {
        let all = std::fs::read_to_string(folder.join(file)).unwrap();
        1 + all.lines().position(|line| line.contains(text)).unwrap()
    };
    let said = say("lr.yaml");
    let place_of_rate = format!("line {}, `optimization.lr`", line_of("lr.yaml", "lr: 1/1000"));
    assert!(said.contains(&place_of_rate), "{said}");
    let said = say("typo.yaml");
    let place_of_typo = format!("line {}, `model.encoder.widht`", line_of("typo.yaml", "widht"));
    assert!(said.contains(&place_of_typo) && said.contains("did you mean `width`?"), "{said}");
    // As far as the data, which is not there.
    let said = say("merge.yaml");
    assert!(said.contains("`x`") || said.contains("/x`"), "{said}");
}
