//! What the nodes of a torch pickle mean: tensors, dictionaries, plain values.

use std::cell::Cell;
use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use crate::pickle::{Id, Node, Object, Pickle};
use crate::source::Entry;
use crate::torch_tensor::{Element, Storage, dtype_element, tensor};

type Result<T> = std::result::Result<T, String>;

/// Deeper nesting than this is an attack, or a mistake.
const DEEPEST: usize = 200;
/// Visits of nodes in one walk; a pickle of n bytes can describe a tree of 2^n nodes.
const MOST_VISITS: usize = 1 << 22;

/// What a node means.
enum Meaning<'a> {
    Dict(Vec<(Id, Id)>),
    List(&'a [Id]),
    Tensor(Entry),
    Scalar(Json),
    /// Anything else, with what it was made of.
    Object {
        class: &'a str,
        object: &'a Object,
    },
}

/// Reads the graph of one pickle.
pub(crate) struct Reader<'a> {
    pub pickle: &'a Pickle,
    pub storages: HashMap<String, Storage>,
    visits: Cell<usize>,
}

impl<'a> Reader<'a> {
    pub fn new(pickle: &'a Pickle, storages: HashMap<String, Storage>) -> Self {
        Reader { pickle, storages, visits: Cell::new(0) }
    }

    /// The pairs of the outermost dictionary, if it is one.
    pub fn top(&self) -> Result<Option<Vec<(Id, Id)>>> {
        Ok(match self.meaning(self.pickle.root)? {
            Meaning::Dict(pairs) => Some(pairs),
            Meaning::Object { object, .. } => Some(self.attributes(object)),
            _ => None,
        })
    }

    /// All tensors below `id`, named by their path from `prefix`.
    pub fn tensors(&self, prefix: &str, id: Id, out: &mut Vec<(String, Entry)>) -> Result<()> {
        self.collect(prefix, id, 0, out)
    }

    fn collect(&self, prefix: &str, id: Id, depth: usize, out: &mut Vec<(String, Entry)>) -> Result<()> {
        self.visit(depth)?;
        let name = |leaf: &str| if prefix.is_empty() { leaf.to_owned() } else { format!("{prefix}.{leaf}") };
        match self.meaning(id).map_err(|e| format!("`{prefix}`: {e}"))? {
            Meaning::Tensor(entry) => out.push((prefix.to_owned(), entry)),
            Meaning::Scalar(_) => {}
            Meaning::List(list) => {
                for (i, &item) in list.iter().enumerate() {
                    self.collect(&name(&i.to_string()), item, depth + 1, out)?;
                }
            }
            Meaning::Dict(pairs) => self.collect_pairs(&name, pairs, depth, out)?,
            Meaning::Object { object, .. } => {
                for (i, &item) in object.args.iter().chain(&object.list).enumerate() {
                    self.collect(&name(&i.to_string()), item, depth + 1, out)?;
                }
                self.collect_pairs(&name, self.attributes(object), depth, out)?;
            }
        }
        Ok(())
    }

    fn collect_pairs(
        &self,
        name: &dyn Fn(&str) -> String,
        pairs: Vec<(Id, Id)>,
        depth: usize,
        out: &mut Vec<(String, Entry)>,
    ) -> Result<()> {
        pairs
            .into_iter()
            .try_for_each(|(key, value)| self.collect(&name(&self.key(key)), value, depth + 1, out))
    }

    /// Everything below `id` that is not a tensor; `None` where only tensors are.
    pub fn json(&self, id: Id) -> Result<Option<Json>> {
        self.plain(id, 0)
    }

    fn plain(&self, id: Id, depth: usize) -> Result<Option<Json>> {
        self.visit(depth)?;
        Ok(match self.meaning(id)? {
            Meaning::Tensor(_) => None,
            Meaning::Scalar(value) => Some(value),
            Meaning::List(list) => self.plain_list(list.iter(), depth)?,
            Meaning::Dict(pairs) => self.plain_map(Map::new(), pairs, depth)?,
            Meaning::Object { class, object } => {
                let mut map = Map::new();
                let attributes = self.attributes(object);
                // The usual bags of options are dictionaries in all but name.
                if !matches!(class, "argparse.Namespace" | "types.SimpleNamespace") || attributes.is_empty() {
                    map.insert("__class__".into(), class.into());
                }
                if let Some(args) = self.plain_list(object.args.iter().chain(&object.list), depth)?
                    && args.as_array().is_some_and(|a| !a.is_empty())
                {
                    map.insert("__args__".into(), args);
                }
                self.plain_map(map, attributes, depth)?
            }
        })
    }

    fn plain_list<'b>(&self, items: impl Iterator<Item = &'b Id>, depth: usize) -> Result<Option<Json>> {
        let mut list = vec![];
        let mut any = false;
        for &item in items {
            any = true;
            list.extend(self.plain(item, depth + 1)?);
        }
        Ok((!any || !list.is_empty()).then_some(Json::Array(list)))
    }

    fn plain_map(
        &self,
        mut map: Map<String, Json>,
        pairs: Vec<(Id, Id)>,
        depth: usize,
    ) -> Result<Option<Json>> {
        let empty = pairs.is_empty();
        for (key, value) in pairs {
            if let Some(value) = self.plain(value, depth + 1)? {
                map.insert(self.key(key), value);
            }
        }
        Ok((empty || !map.is_empty()).then_some(Json::Object(map)))
    }

    fn visit(&self, depth: usize) -> Result<()> {
        self.visits.set(self.visits.get() + 1);
        if depth > DEEPEST {
            return Err("values are nested too deeply, or contain themselves".into());
        }
        if self.visits.get() > MOST_VISITS {
            return Err("the values repeat each other beyond measure".into());
        }
        Ok(())
    }

    /// A dictionary's key as text.
    pub fn key(&self, id: Id) -> String {
        match self.pickle.node(id) {
            Node::Str(s) | Node::Global(s) => s.clone(),
            Node::Int(i) => i.to_string(),
            Node::Float(x) => x.to_string(),
            Node::Bool(b) => b.to_string(),
            Node::None => "None".into(),
            Node::Tuple(parts) => {
                let part = |&id: &Id| match self.pickle.node(id) {
                    Node::Tuple(_) => "(…)".to_owned(),
                    _ => self.key(id),
                };
                format!("({})", parts.iter().map(part).collect::<Vec<_>>().join(", "))
            }
            other => format!("{other:?}"),
        }
    }

    /// What an object got by `__setstate__` and `__setitem__`.
    fn attributes(&self, object: &Object) -> Vec<(Id, Id)> {
        let state = object.state.map(|s| self.pickle.node(s));
        let state = if let Some(Node::Dict(pairs)) = state { pairs.as_slice() } else { &[] };
        state.iter().chain(&object.items).copied().collect()
    }

    fn meaning(&self, id: Id) -> Result<Meaning<'a>> {
        Ok(match self.pickle.node(id) {
            Node::None => Meaning::Scalar(Json::Null),
            Node::Bool(b) => Meaning::Scalar((*b).into()),
            Node::Int(i) => {
                Meaning::Scalar(i64::try_from(*i).map_or_else(|_| i.to_string().into(), Json::from))
            }
            Node::Float(x) => Meaning::Scalar(float(*x)),
            Node::Str(s) | Node::Global(s) => Meaning::Scalar(s.as_str().into()),
            Node::Bytes(b) => Meaning::Scalar(format!("{} bytes", b.len()).into()),
            Node::Tuple(list) | Node::List(list) | Node::Set(list) => Meaning::List(list),
            Node::Dict(pairs) => Meaning::Dict(pairs.clone()),
            Node::Persistent(_) => Meaning::Scalar("a storage".into()),
            Node::Object(object) => {
                let Node::Global(class) = self.pickle.node(object.callee) else {
                    return Err("something is called that has no name".into());
                };
                self.object(class, object)?
            }
        })
    }

    fn object(&self, class: &'a str, object: &'a Object) -> Result<Meaning<'a>> {
        let args = object.args.as_slice();
        let first = args.first().map(|&id| self.pickle.node(id));
        Ok(match class {
            "collections.OrderedDict" | "collections.defaultdict" => {
                let given =
                    if let Some(Node::List(list)) = first { self.listed_pairs(list)? } else { vec![] };
                Meaning::Dict(given.into_iter().chain(object.items.iter().copied()).collect())
            }
            "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor" => {
                Meaning::Tensor(self.tensor(args, None)?)
            }
            "torch._utils._rebuild_tensor_v3" => {
                let dtype = args.get(6).map(|&id| self.pickle.node(id));
                let Some(Node::Global(dtype)) = dtype else { return Err("a tensor without a dtype".into()) };
                Meaning::Tensor(self.tensor(args, Some(dtype_element(dtype)))?)
            }
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => match first {
                Some(Node::Object(inner)) if inner.callee != object.callee => self.meaning(args[0])?,
                _ => return Err("a parameter without a tensor".into()),
            },
            "torch._tensor._rebuild_from_type_v2" => {
                match (first, args.get(2).map(|&id| self.pickle.node(id))) {
                    (Some(Node::Global(function)), Some(Node::Tuple(inner)))
                        if function.starts_with("torch._utils._rebuild_tensor") =>
                    {
                        Meaning::Tensor(self.tensor(inner, None)?)
                    }
                    _ => Meaning::Object { class, object },
                }
            }
            "torch.Size"
            | "builtins.set"
            | "__builtin__.set"
            | "builtins.frozenset"
            | "__builtin__.frozenset" => match first {
                Some(Node::Tuple(list) | Node::List(list)) => Meaning::List(list),
                _ => Meaning::Object { class, object },
            },
            "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar" => {
                match self.numpy_scalar(args) {
                    Some(value) => Meaning::Scalar(value),
                    None => Meaning::Object { class, object },
                }
            }
            _ => Meaning::Object { class, object },
        })
    }

    fn tensor(&self, args: &[Id], dtype: Option<Element>) -> Result<Entry> {
        tensor(self.pickle, &self.storages, args, dtype)
    }

    fn listed_pairs(&self, list: &[Id]) -> Result<Vec<(Id, Id)>> {
        let pair = |&id: &Id| match self.pickle.node(id) {
            Node::Tuple(p) | Node::List(p) if p.len() == 2 => Ok((p[0], p[1])),
            _ => Err("a dictionary's item is not a pair".to_owned()),
        };
        list.iter().map(pair).collect()
    }

    /// `numpy.core.multiarray.scalar(dtype('f8', …), b'…')`.
    fn numpy_scalar(&self, args: &[Id]) -> Option<Json> {
        let [dtype, value] = args else { return None };
        let Node::Object(dtype) = self.pickle.node(*dtype) else { return None };
        let Node::Str(code) = self.pickle.node(*dtype.args.first()?) else { return None };
        // The state's second item is the byte order; dtypes without one have `|`.
        if let Some(state) = dtype.state
            && let Node::Tuple(state) = self.pickle.node(state)
            && let Some(&order) = state.get(1)
            && let Node::Str(order) = self.pickle.node(order)
            && order == ">"
        {
            return None;
        }
        let bytes = self.raw(*value)?;
        Some(match code.as_str() {
            "f8" => float(f64::from_le_bytes(bytes.try_into().ok()?)),
            "f4" => float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            "i8" => i64::from_le_bytes(bytes.try_into().ok()?).into(),
            "u8" => u64::from_le_bytes(bytes.try_into().ok()?).into(),
            "i4" => i32::from_le_bytes(bytes.try_into().ok()?).into(),
            "u4" => u32::from_le_bytes(bytes.try_into().ok()?).into(),
            "b1" => (bytes.first()? != &0).into(),
            _ => return None,
        })
    }

    /// Bytes, or `_codecs.encode(text, 'latin1')`, which protocol 2 writes for them.
    fn raw(&self, id: Id) -> Option<Vec<u8>> {
        match self.pickle.node(id) {
            Node::Bytes(b) => Some(b.clone()),
            Node::Str(s) => Some(s.as_bytes().to_vec()),
            Node::Object(object)
                if self.pickle.node(object.callee) == &Node::Global("_codecs.encode".into()) =>
            {
                let Node::Str(text) = self.pickle.node(*object.args.first()?) else { return None };
                text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
            }
            _ => None,
        }
    }
}

fn float(x: f64) -> Json {
    serde_json::Number::from_f64(x).map_or_else(|| x.to_string().into(), Json::Number)
}
