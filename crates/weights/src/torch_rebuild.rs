//! The calls that make tensors in a torch pickle (`torch/_utils.py`, `torch/_tensor.py`): those
//! that are understood, and the names of those that are not. Every argument counts, or is refused.

use crate::origin::Unsupported;
use crate::pickle::{Id, Node, Object};
use crate::source::Entry;
use crate::torch_graph::{Graph, array};
use crate::torch_tensor::{dtype_element, shape_of, tensor};

type Result<T> = std::result::Result<T, String>;

/// Parameters of parameters of tensors: more than ordinary files have.
const MOST_WRAPPERS: usize = 8;

/// The tensor that a call makes; `None` for another object.
pub(crate) fn tensor_of(graph: &Graph, object: &Object) -> Result<Option<Entry>> {
    let mut call = (object.callee, object.args);
    for _ in 0..MOST_WRAPPERS {
        let (Some(class), args) = (graph.pickle.global(call.0), graph.pickle.items(call.1)) else {
            return Ok(None);
        };
        call = match (class, args) {
            // (data, requires_grad, backward_hooks[, state]): nothing but the data is a value,
            // unless the state has some.
            ("torch._utils._rebuild_parameter_with_state", [.., state]) if graph.holds_tensors(*state) => {
                let what = "a parameter with tensors among its attributes";
                let unsupported = Unsupported::new(what, "save them under names of their own");
                return Ok(Some(Entry::unsupported(vec![], unsupported)));
            }
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                [data, ..],
            ) => match graph.pickle.node(*data) {
                Node::Object(inner) => (inner.callee, inner.args),
                _ => return Err("a parameter without a tensor".into()),
            },
            // (function, class, arguments, state)
            (
                "torch._tensor._rebuild_from_type_v2"
                | "torch._tensor._rebuild_from_type"
                | "torch.tensor._rebuild_from_type",
                &[function, class, args, ref state @ ..],
            ) => {
                let plain = graph.pickle.global(class).is_some_and(is_plain);
                if state.iter().any(|&s| graph.holds_tensors(s) || !plain && !graph.is_empty(s)) {
                    return Ok(Some(subclass(graph, class, graph.pickle.items(args).get(2))));
                }
                (function, args)
            }
            _ => return plain(graph, class, args),
        };
    }
    Err("parameters are nested too deeply".into())
}

/// A call that wraps no other.
fn plain(graph: &Graph, class: &str, args: &[Id]) -> Result<Option<Entry>> {
    let pickle = graph.pickle;
    let unsupported = |shape: Option<&Id>, what: &str, advice: &str| {
        let shape = shape.and_then(|&id| shape_of(pickle, id).ok()).unwrap_or_default();
        Ok(Some(Entry::unsupported(shape, Unsupported::new(what, advice))))
    };
    let read = |dtype| tensor(pickle, &graph.storages, args, dtype).map(Some);
    let Some(call) = class.strip_prefix("torch._utils._rebuild_") else {
        return match array(class) {
            Some((what, advice)) => unsupported(None, what, advice),
            None => Ok(None),
        };
    };
    match call {
        "tensor" => read(None),
        // (storage, offset, size, stride, requires_grad, backward_hooks[, metadata])
        "tensor_v2" => match view_bits(graph, args.get(6))? {
            Some(view) => unsupported(args.get(2), &view, RESOLVE),
            None => read(None),
        },
        // The same with the dtype before the metadata.
        "tensor_v3" => {
            let dtype = args.get(6).and_then(|&id| pickle.global(id)).ok_or("a tensor without a dtype")?;
            match view_bits(graph, args.get(7))? {
                Some(view) => unsupported(args.get(2), &view, RESOLVE),
                None => read(Some(dtype_element(dtype))),
            }
        }
        "qtensor" => unsupported(args.get(2), "a quantized tensor", "save `tensor.dequantize()`"),
        "sparse_tensor" | "sparse_csr_tensor" => {
            unsupported(None, "a sparse tensor", "save `tensor.to_dense()`")
        }
        "nested_tensor" => unsupported(
            None,
            "a nested tensor",
            "save the tensors that it is made of under names of their own",
        ),
        "meta_tensor_no_storage" => {
            let advice = "the file holds its shape and no values; save it from the device that has them";
            unsupported(args.get(1), "a tensor of the meta device", advice)
        }
        "device_tensor_from_numpy" | "device_tensor_from_cpu_tensor" | "xla_tensor" | "mlc_tensor" => {
            unsupported(None, "a tensor of another kind of device (XLA)", "save `tensor.cpu()`")
        }
        "wrapper_subclass" => {
            let class = args.first().copied().ok_or("a tensor without a class")?;
            Ok(Some(subclass(graph, class, args.get(2))))
        }
        _ => unsupported(None, &format!("what {class} makes"), "save a plain, dense tensor"),
    }
}

/// Classes that are nothing but tensors: what else one of them holds changes no value.
fn is_plain(class: &str) -> bool {
    let last = class.rsplit('.').next();
    class.starts_with("torch.") && matches!(last, Some("Tensor" | "Parameter" | "Buffer"))
}

const RESOLVE: &str = "save `tensor.resolve_neg().resolve_conj()`";

/// The bits of a view (negative, conjugate) that a tensor's metadata sets.
fn view_bits(graph: &Graph, metadata: Option<&Id>) -> Result<Option<String>> {
    let pairs = match metadata.map(|&id| graph.pickle.node(id)) {
        None | Some(Node::None) => return Ok(None),
        Some(Node::Dict(pairs)) => pairs,
        Some(_) => return Err("a tensor's metadata are not a dictionary".into()),
    };
    let set = pairs.iter().find(|&&(_, value)| graph.pickle.node(value) != &Node::Bool(false));
    Ok(set.map(|&(key, _)| format!("a view with the bit `{}`", graph.key(key))))
}

fn subclass(graph: &Graph, class: Id, size: Option<&Id>) -> Entry {
    let class = graph.pickle.global(class).unwrap_or("(unnamed)");
    let shape = size.and_then(|&id| shape_of(graph.pickle, id).ok()).unwrap_or_default();
    let unsupported = match class.rsplit('.').next() {
        Some("DTensor") => Unsupported::sharded(class),
        _ => Unsupported::new(format!("a tensor of class {class}"), "save it as a plain tensor"),
    };
    Entry::unsupported(shape, unsupported)
}
