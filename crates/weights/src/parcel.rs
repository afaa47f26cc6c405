//! Tensors and a text as bytes, for exchange between processes.

use std::collections::BTreeMap;
use std::path::Path;

use libtorch_ext::bytes::tensor_from_bytes;
use safetensors::SafeTensors;
use tch::Tensor;

use crate::safetensors::kind_of;
use crate::save::to_memory;
use crate::{Error, Result};

/// Tensors by name, and a text beside them. Its bytes are those of a safetensors file.
#[derive(Debug, Default)]
pub struct Parcel {
    /// The tensors.
    pub tensors: BTreeMap<String, Tensor>,
    /// The text.
    pub text: String,
}

/// Name in errors.
const NAME: &str = "a message of another process";
const TEXT: &str = "text";

impl Parcel {
    /// The tensors and the text as bytes.
    ///
    /// # Errors
    /// Returns an error if a tensor has a dtype that safetensors lacks, or cannot be copied to the
    /// CPU.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let tensors: Vec<_> = self.tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        to_memory(Path::new(NAME), &tensors, &BTreeMap::from([(TEXT.to_owned(), self.text.clone())]))
    }

    /// Reads what [`Parcel::to_bytes`] wrote; the tensors are on the CPU.
    ///
    /// # Errors
    /// Returns an error if the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |what: String| Error::damaged(Path::new(NAME), what);
        let read = |e: safetensors::SafeTensorError| damaged(e.to_string());
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(read)?;
        let text = header.metadata().as_ref().and_then(|notes| notes.get(TEXT)).cloned().unwrap_or_default();
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(bytes).map_err(read)?.iter() {
            let kind =
                kind_of(view.dtype()).ok_or_else(|| damaged(format!("`{name}` is no tensor of ours")))?;
            let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
            let tensor = tensor_from_bytes(view.data(), &shape, kind).map_err(|e| damaged(e.to_string()))?;
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(Parcel { tensors, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_what_was_sent() {
        let tensors = [
            ("infinite", Tensor::from_slice(&[f64::INFINITY, 0.1, -0.0])),
            ("bytes", Tensor::from_slice(&[1u8, 2, 3]).view([3, 1])),
            ("odd", Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).view([2, 2]).transpose(0, 1)),
            ("none", Tensor::zeros([0, 4], (tch::Kind::Int64, tch::Device::Cpu))),
        ];
        let tensors = tensors.map(|(name, t)| (name.to_owned(), t));
        let sent = Parcel { tensors: tensors.into(), text: "{\"a\": \"\u{e4}\\n\"}".into() };
        let bytes = sent.to_bytes().unwrap();
        let found = Parcel::from_bytes(&bytes).unwrap();
        assert_eq!((&found.text, found.tensors.len()), (&sent.text, 4));
        for (name, tensor) in &sent.tensors {
            let other = &found.tensors[name];
            assert_eq!((other.size(), other.kind()), (tensor.size(), tensor.kind()), "{name}");
            assert!(other.equal(tensor), "{name}");
        }
        let error = Parcel::from_bytes(&bytes[..bytes.len() - 1]).unwrap_err().to_string();
        assert!(error.contains("another process") && error.contains("damaged"), "{error}");
    }
}
