//! Figures in what the steps print.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::schema::{Benchmark, Task};

/// JSON that each step printed, by the step's name.
pub type StepResults = BTreeMap<&'static str, Value>;

/// Every figure of the evaluation, by the name that `gen eval` gives it.
pub fn all_measured(results: &StepResults) -> BTreeMap<String, f64> {
    let values = results.get("eval").and_then(|eval| eval["values"].as_array()).into_iter().flatten();
    values.filter_map(|v| Some((v["name"].as_str()?.to_owned(), v["value"].as_f64()?))).collect()
}

/// A figure among the results.
pub fn measured(results: &StepResults, quantity: Quantity) -> Option<f64> {
    let Some(metric) = quantity.metric() else {
        return results.get("probe")?["top1"].as_f64().map(|share| 100.0 * share);
    };
    let values = results.get("eval")?["values"].as_array()?;
    values.iter().find(|v| v["name"] == metric.score_name())?["value"].as_f64()
}

/// Reasons why the figures are not comparable with the published ones, as reported by the steps.
pub fn caveats(benchmark: &Benchmark, results: &StepResults) -> Vec<String> {
    let texts = |value: &Value| {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut found = results.get("probe").map(|probe| texts(&probe["differences"])).unwrap_or_default();
    let values = results.get("eval").and_then(|eval| eval["values"].as_array()).into_iter().flatten();
    for value in values.filter(|v| v["comparable"] == false) {
        found.push(format!("{}: weights that are not the public ones, or images left out", value["name"]));
    }
    if let Task::Reconstruction(task) = &benchmark.task {
        let images = results.get("eval").and_then(|eval| eval["samples"]["images"].as_u64()).unwrap_or(0);
        if images != task.images.count as u64 {
            found.push(format!("{images} images instead of {}", task.images.count));
        }
    }
    found
}
