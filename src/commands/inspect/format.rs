//! Tensors, tables and numbers as `gen inspect` shows them.

use serde::Serialize;

/// A tensor of a file, or a variable of a configuration.
#[derive(Debug, Serialize)]
pub struct Tensor {
    /// Its full name.
    pub name: String,
    /// Its size.
    pub shape: Vec<i64>,
    /// PyTorch's name of its dtype.
    pub kind: String,
    /// Bytes of its values.
    pub bytes: u64,
}

/// Two columns.
pub fn table(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(key, value)| format!("  {key:<12}  {value}\n")).collect()
}

/// `1026` as `1,026`.
pub fn thousands(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}

/// `4.2 MB`.
pub fn bytes(n: u64) -> String {
    indicatif::DecimalBytes(n).to_string()
}

/// PyTorch's name of a dtype.
pub fn kind_name(kind: tch::Kind) -> String {
    use tch::Kind::{BFloat16, Bool, Double, Float, Half, Int, Int8, Int16, Int64, Uint8};
    match kind {
        Float => "float32".into(),
        Double => "float64".into(),
        Half => "float16".into(),
        BFloat16 => "bfloat16".into(),
        Int64 => "int64".into(),
        Int => "int32".into(),
        Int16 => "int16".into(),
        Int8 => "int8".into(),
        Uint8 => "uint8".into(),
        Bool => "bool".into(),
        other => format!("{other:?}"),
    }
}
