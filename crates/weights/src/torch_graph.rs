//! The graph of one torch pickle, with its storages.

use std::cell::OnceCell;
use std::collections::HashMap;

use crate::pickle::{Id, Node, Pickle};
use crate::torch_tensor::Storage;

/// Nodes of a pickle and the storages that its tensors share.
pub(crate) struct Graph<'a> {
    pub pickle: &'a Pickle,
    pub storages: HashMap<String, Storage>,
    /// Whether values of tensors are below a node, for each.
    holds: OnceCell<Vec<bool>>,
}

impl<'a> Graph<'a> {
    pub fn new(pickle: &'a Pickle, storages: HashMap<String, Storage>) -> Self {
        Graph { pickle, storages, holds: OnceCell::new() }
    }

    /// True if values of tensors, known or not, are below `id`.
    pub fn holds_tensors(&self, id: Id) -> bool {
        // All values are in storages or arrays; tensors without storage are recognised by their
        // calls.
        let seed = |node: &Node| match node {
            Node::Persistent(_) => true,
            Node::Global(name) => array(name).is_some() || name.starts_with("torch._utils._rebuild_"),
            _ => false,
        };
        self.holds.get_or_init(|| self.pickle.reaching(seed))[id.index()]
    }

    /// True for an empty state.
    pub fn is_empty(&self, id: Id) -> bool {
        match self.pickle.node(id) {
            Node::None => true,
            Node::Dict(pairs) => pairs.is_empty(),
            // Of a class with `__slots__` it is a pair.
            Node::Tuple(parts) => parts.iter().all(|&part| match self.pickle.node(part) {
                Node::Dict(pairs) => pairs.is_empty(),
                node => node == &Node::None,
            }),
            _ => false,
        }
    }

    /// A dictionary's key as text; the end of a long one is cut off.
    pub fn key(&self, id: Id) -> String {
        const LONGEST: usize = 1000;
        const PARTS: usize = 16; // of a tuple
        match self.pickle.node(id) {
            Node::Str(s) | Node::Global(s) => s.chars().take(LONGEST).collect(),
            Node::Int(i) => i.to_string(),
            Node::Float(x) => x.to_string(),
            Node::Bool(b) => b.to_string(),
            Node::None => "None".into(),
            Node::Tuple(parts) => {
                let part = |&id: &Id| match self.pickle.node(id) {
                    Node::Tuple(_) => "(…)".to_owned(),
                    _ => self.key(id),
                };
                format!("({})", parts.iter().take(PARTS).map(part).collect::<Vec<_>>().join(", "))
            }
            Node::Bytes(_) => "(bytes)".into(),
            _ => "(…)".into(),
        }
    }
}

/// Name of an array without a storage of torch that a call makes, and advice on its replacement.
pub(crate) fn array(call: &str) -> Option<(&'static str, &'static str)> {
    match call {
        "torch.storage._load_from_bytes" => {
            Some(("a tensor's storage in a pickle of its own", "save the tensor with `torch.save`"))
        }
        "array.array" | "array._array_reconstructor" => {
            Some(("an array of Python's", "save `torch.tensor(array)`"))
        }
        _ if !call.starts_with("numpy") => None,
        _ if call.ends_with("._mareconstruct") => {
            Some(("a masked numpy array", "save `torch.from_numpy(array.filled())`"))
        }
        _ if call.ends_with("._reconstruct") || call.ends_with("._frombuffer") => {
            Some(("a numpy array", "save `torch.from_numpy(array)`"))
        }
        _ => None,
    }
}
