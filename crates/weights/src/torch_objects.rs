//! Meaning of the nodes of a torch pickle: tensors, dictionaries, plain values.

use std::cell::Cell;
use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use crate::origin::Unsupported;
use crate::pickle::{Id, Node, Object, Pickle};
use crate::source::Entry;
use crate::torch_graph::Graph;
use crate::torch_rebuild::tensor_of;
use crate::torch_tensor::Storage;

type Result<T> = std::result::Result<T, String>;

/// Deeper nesting than this is an attack, or a mistake.
const DEEPEST: usize = 200;
/// Work of one walk: a pickle of n bytes can describe a tree of 2^n nodes.
const MOST_WORK: usize = 1 << 22;
/// Work of all walks.
const MOST_WORK_IN_ALL: usize = 1 << 24;
/// Letters of a name or text that cost as much as a visit.
const LETTERS: usize = 32;

/// Meaning of a node.
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

/// Reason why a walk ended early.
pub(crate) enum Trouble {
    /// A tensor is not what torch.save writes.
    Damaged(String),
    /// The values contain themselves, are nested too deeply, or repeat each other beyond measure.
    Tangled(&'static str),
}

impl From<String> for Trouble {
    fn from(what: String) -> Self {
        Trouble::Damaged(what)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Damaged(what) => f.write_str(what),
            Trouble::Tangled(what) => f.write_str(what),
        }
    }
}

/// Reads the graph of one pickle.
pub(crate) struct Reader<'a> {
    pub graph: Graph<'a>,
    work: Cell<usize>,
    /// Limit of the current walk.
    most_work: Cell<usize>,
}

impl<'a> Reader<'a> {
    pub fn new(pickle: &'a Pickle, storages: HashMap<String, Storage>) -> Self {
        Reader { graph: Graph::new(pickle, storages), work: Cell::new(0), most_work: Cell::new(0) }
    }

    /// The pairs of the outermost dictionary, or of something like it.
    pub fn top(&self) -> Result<Option<Vec<(Id, Id)>>> {
        Ok(match self.meaning(self.graph.pickle.root)? {
            Meaning::Dict(pairs) => Some(pairs),
            Meaning::Object { class: "collections.OrderedDict" | "collections.defaultdict", .. } => None,
            Meaning::Object { object, .. } if !object.items.is_empty() => Some(object.items.clone()),
            _ => None,
        })
    }

    /// The class of an object that is neither a tensor nor a container, in words.
    pub fn object_class(&self, id: Id) -> Option<String> {
        match self.meaning(id) {
            Ok(Meaning::Object { class, object }) if self.is_opaque(object) => {
                Some(self.unsupported_object(class, object).what)
            }
            _ => None,
        }
    }

    /// All tensors below `id`, named by their path from `prefix`. Those that cannot be read are
    /// among them, by what they are.
    pub fn tensors(&self, id: Id, out: &mut Vec<(String, Entry)>) -> std::result::Result<(), Trouble> {
        self.begin();
        self.collect("", id, 0, out)
    }

    fn collect(
        &self,
        prefix: &str,
        id: Id,
        depth: usize,
        out: &mut Vec<(String, Entry)>,
    ) -> std::result::Result<(), Trouble> {
        if !self.graph.holds_tensors(id) {
            return Ok(());
        }
        self.visit(depth, prefix.len())?;
        let name = |leaf: &str| if prefix.is_empty() { leaf.to_owned() } else { format!("{prefix}.{leaf}") };
        let list = |list: &[Id], out: &mut Vec<(String, Entry)>| {
            let mut items = list.iter().enumerate();
            items.try_for_each(|(i, &item)| self.collect(&name(&i.to_string()), item, depth + 1, out))
        };
        let pairs = |pairs: &[(Id, Id)], out: &mut Vec<(String, Entry)>| {
            let mut pairs = pairs.iter().filter(|(_, value)| self.graph.holds_tensors(*value));
            pairs.try_for_each(|&(key, value)| {
                self.collect(&name(&self.graph.key(key)), value, depth + 1, out)
            })
        };
        match self.meaning(id).map_err(|e| format!("`{prefix}`: {e}"))? {
            Meaning::Tensor(entry) => out.push((prefix.to_owned(), entry)),
            Meaning::Scalar(_) => {}
            Meaning::List(items) => list(items, out)?,
            Meaning::Dict(items) => pairs(&items, out)?,
            Meaning::Object { class, object } if self.is_opaque(object) => {
                let unsupported = self.unsupported_object(class, object);
                out.push((prefix.to_owned(), Entry::unsupported(vec![], unsupported)));
            }
            Meaning::Object { object, .. } => {
                list(&object.list, out)?;
                pairs(&object.items, out)?;
            }
        }
        Ok(())
    }

    /// True for an object whose tensors are anywhere but in its items, as a dictionary or list of
    /// another class has them: they would get the names of its insides.
    fn is_opaque(&self, object: &Object) -> bool {
        let inside = std::iter::once(object.args).chain(object.state).any(|id| self.graph.holds_tensors(id));
        inside || (object.items.is_empty() && object.list.is_empty())
    }

    fn unsupported_object(&self, class: &str, object: &Object) -> Unsupported {
        let attributes = self.attributes(object);
        let is = |key: Id, wanted: &str| matches!(self.graph.pickle.node(key), Node::Str(s) if s == wanted);
        let has = |wanted: &str| attributes.iter().any(|&(key, _)| is(key, wanted));
        if has("_parameters") && has("_modules") {
            let advice = "save `module.state_dict()` with `torch.save`, or as safetensors";
            return Unsupported::new(format!("a whole module ({class})"), advice);
        }
        match class.rsplit('.').next() {
            Some("ShardedTensor") => Unsupported::sharded(class),
            Some("OrderedDict" | "defaultdict") => {
                Unsupported::new("a dictionary with tensors among its attributes", "save them as items of it")
            }
            _ => Unsupported::new(format!("an object of class {class}"), "save its tensors as a dictionary"),
        }
    }

    /// Values below `id` that are not tensors; `None` if there are only tensors.
    pub fn json(&self, id: Id) -> std::result::Result<Option<Json>, Trouble> {
        self.begin();
        self.plain(id, 0)
    }

    fn plain(&self, id: Id, depth: usize) -> std::result::Result<Option<Json>, Trouble> {
        self.visit(depth, 0)?;
        Ok(match self.meaning(id)? {
            Meaning::Tensor(_) => None,
            Meaning::Scalar(value) => {
                self.spend(value.as_str().map_or(0, str::len) / LETTERS)?;
                Some(value)
            }
            Meaning::List(list) => self.plain_list(list.iter(), depth)?,
            Meaning::Dict(pairs) => self.plain_map(Map::new(), pairs, depth)?,
            Meaning::Object { class, object } => {
                let mut map = Map::new();
                self.spend(class.len() / LETTERS)?;
                map.insert("__class__".into(), class.into());
                let args = self.graph.pickle.items(object.args).iter().chain(&object.list);
                if let Some(args) = self.plain_list(args, depth)?
                    && args.as_array().is_some_and(|a| !a.is_empty())
                {
                    map.insert("__args__".into(), args);
                }
                self.plain_map(map, self.attributes(object), depth)?
            }
        })
    }

    fn plain_list<'b>(
        &self,
        items: impl Iterator<Item = &'b Id>,
        depth: usize,
    ) -> std::result::Result<Option<Json>, Trouble> {
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
    ) -> std::result::Result<Option<Json>, Trouble> {
        let empty = pairs.is_empty();
        for (key, value) in pairs {
            if let Some(value) = self.plain(value, depth + 1)? {
                let key = self.graph.key(key);
                self.spend(key.len() / LETTERS)?;
                map.insert(key, value);
            }
        }
        Ok((empty || !map.is_empty()).then_some(Json::Object(map)))
    }

    fn begin(&self) {
        self.most_work.set((self.work.get() + MOST_WORK).min(MOST_WORK_IN_ALL));
    }

    fn visit(&self, depth: usize, letters: usize) -> std::result::Result<(), Trouble> {
        if depth > DEEPEST {
            return Err(Trouble::Tangled("values that are nested too deeply, or contain themselves"));
        }
        self.spend(1 + letters / LETTERS)
    }

    fn spend(&self, work: usize) -> std::result::Result<(), Trouble> {
        self.work.set(self.work.get() + work);
        match self.work.get() > self.most_work.get() {
            true => Err(Trouble::Tangled("values that repeat each other beyond measure")),
            false => Ok(()),
        }
    }

    /// Attributes and items that an object got by `__setstate__` and `__setitem__`. A state is a
    /// dictionary, or a pair of one and another for `__slots__`.
    fn attributes(&self, object: &Object) -> Vec<(Id, Id)> {
        let states = object.state.into_iter().flat_map(|s| {
            std::iter::once(s).chain(match self.graph.pickle.node(s) {
                Node::Tuple(both) => both.iter().copied(),
                _ => [].iter().copied(),
            })
        });
        let pairs = states.flat_map(|s| match self.graph.pickle.node(s) {
            Node::Dict(pairs) => pairs.as_slice(),
            _ => &[],
        });
        pairs.chain(&object.items).copied().collect()
    }

    fn meaning(&self, id: Id) -> Result<Meaning<'a>> {
        Ok(match self.graph.pickle.node(id) {
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
            Node::Persistent(_) => {
                let advice = "save the tensor instead of its storage";
                let storage = Unsupported::new("a storage without a tensor", advice);
                Meaning::Tensor(Entry::unsupported(vec![], storage))
            }
            Node::Object(object) => {
                let class = self.graph.pickle.global(object.callee).unwrap_or("(unnamed)");
                self.object(class, object)?
            }
        })
    }

    fn object(&self, class: &'a str, object: &'a Object) -> Result<Meaning<'a>> {
        if let Some(entry) = tensor_of(&self.graph, object)? {
            return Ok(Meaning::Tensor(entry));
        }
        let args = self.graph.pickle.items(object.args);
        let first = args.first().map(|&id| self.graph.pickle.node(id));
        Ok(match class {
            // `_metadata` of a state dictionary is an attribute, and is ignored here.
            "collections.OrderedDict" | "collections.defaultdict"
                if !object.state.is_some_and(|state| self.graph.holds_tensors(state)) =>
            {
                let given =
                    if let Some(Node::List(list)) = first { self.listed_pairs(list)? } else { vec![] };
                Meaning::Dict(given.into_iter().chain(object.items.iter().copied()).collect())
            }
            // The usual bags of options are dictionaries in all but name.
            "argparse.Namespace" | "types.SimpleNamespace" if !self.attributes(object).is_empty() => {
                Meaning::Dict(self.attributes(object))
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

    fn listed_pairs(&self, list: &[Id]) -> Result<Vec<(Id, Id)>> {
        let pair = |&id: &Id| match self.graph.pickle.node(id) {
            Node::Tuple(p) | Node::List(p) if p.len() == 2 => Ok((p[0], p[1])),
            _ => Err("a dictionary's item is not a pair".to_owned()),
        };
        list.iter().map(pair).collect()
    }

    /// `numpy.core.multiarray.scalar(dtype('f8', …), b'…')`.
    fn numpy_scalar(&self, args: &[Id]) -> Option<Json> {
        let [dtype, value] = args else { return None };
        let Node::Object(dtype) = self.graph.pickle.node(*dtype) else { return None };
        let Node::Str(code) = self.graph.pickle.node(*self.graph.pickle.items(dtype.args).first()?) else {
            return None;
        };
        // The state's second item is the byte order; dtypes without one have `|`.
        if let Some(state) = dtype.state
            && let Node::Tuple(state) = self.graph.pickle.node(state)
            && let Some(&order) = state.get(1)
            && let Node::Str(order) = self.graph.pickle.node(order)
            && order == ">"
        {
            return None;
        }
        let bytes = self.raw(*value).filter(|b| b.len() <= 8)?;
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
        match self.graph.pickle.node(id) {
            Node::Bytes(b) if b.len() <= 16 => Some(b.clone()),
            Node::Str(s) if s.len() <= 16 => Some(s.as_bytes().to_vec()),
            Node::Object(object)
                if self.graph.pickle.node(object.callee) == &Node::Global("_codecs.encode".into()) =>
            {
                let text = self.graph.pickle.items(object.args).first()?;
                let Node::Str(text) = self.graph.pickle.node(*text) else { return None };
                text.chars().take(17).map(|c| u8::try_from(u32::from(c)).ok()).collect()
            }
            _ => None,
        }
    }
}

fn float(x: f64) -> Json {
    serde_json::Number::from_f64(x).map_or_else(|| x.to_string().into(), Json::Number)
}
