//! Released models that a checkpoint looks like.

use weights::{Signature, TensorSource};

/// The released models whose names and shapes are these.
pub fn looks_like(source: &dyn TensorSource) -> Vec<String> {
    let known: Vec<Signature> =
        tokenizer::released::signatures().into_iter().chain(ar_model::released::signatures()).collect();
    weights::likely(source, &known).into_iter().map(|s| s.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// A file that holds a configuration's variables, by name and shape.
    struct Described {
        tensors: Vec<(String, Vec<i64>)>,
        origin: weights::Origin,
    }

    impl TensorSource for Described {
        fn names(&self) -> Vec<&str> {
            self.tensors.iter().map(|(name, _)| name.as_str()).collect()
        }

        fn info(&self, name: &str) -> Option<weights::TensorInfo> {
            let (_, shape) = self.tensors.iter().find(|(n, _)| n == name)?;
            Some(weights::TensorInfo { shape: shape.clone(), kind: Kind::Float, bytes: 0 })
        }

        fn bytes(&self, _: &str) -> weights::Result<std::borrow::Cow<'_, [u8]>> {
            Ok(std::borrow::Cow::Borrowed(&[]))
        }

        fn origin(&self) -> &weights::Origin {
            &self.origin
        }
    }

    fn file_of(known: &[Signature], name: &str) -> Described {
        let tensors = known.iter().find(|s| s.name == name).unwrap().tensors.clone();
        Described { tensors, origin: weights::Origin { path: "x.pt".into(), section: None } }
    }

    #[test]
    fn a_file_looks_like_the_models_whose_names_and_shapes_it_has() {
        let mut names = looks_like(&file_of(&tokenizer::released::signatures(), "gigatok-bl256"));
        names.sort();
        assert_eq!(names, ["gigatok-bl256", "gigatok-bl256-dino-disc"], "trained differently, of one form");
        // LlamaGen's transformers are GigaTok's without the learned positions.
        let mut file = file_of(&ar_model::released::signatures(), "gigatok-gpt-b");
        assert_eq!(looks_like(&file), ["gigatok-gpt-b"]);
        file.tensors.retain(|(name, _)| name != "positional_embedding");
        assert_eq!(looks_like(&file), ["llamagen-b-256", "llamagen-b-384"]);
        file.tensors[0].1 = vec![1];
        assert!(looks_like(&file).is_empty());
    }
}
