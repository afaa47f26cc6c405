//! Named variables of a model.
//!
//! tch's `VarStore` renames duplicates, casts to the file's dtype and always allocates; here a
//! duplicate name is a bug, the dtype is the caller's, and a 7B model can be described without
//! memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tch::{Device, Kind, Tensor};

/// Initialisation of variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Drawn from their initial distribution with libtorch's global generator.
    Random,
    /// Allocated, not filled: a checkpoint follows.
    Empty,
    /// Names and shapes only; every tensor is one element, expanded. Cannot be run.
    Meta,
}

/// The distribution a variable starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All equal.
    Const(f64),
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Normal around another mean.
    NormalAround {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Uniform on [-bound, bound].
    Uniform {
        /// Half the width.
        bound: f64,
    },
}

impl Init {
    /// Xavier-uniform for a matrix of `fan_in` inputs and `fan_out` outputs.
    pub fn xavier(fan_in: i64, fan_out: i64) -> Init {
        Init::Uniform { bound: (6.0 / (fan_in + fan_out) as f64).sqrt() }
    }

    /// PyTorch's default for linear and convolution weights and biases: U(±1/sqrt(fan_in)).
    pub fn torch_default(fan_in: i64) -> Init {
        Init::Uniform { bound: 1.0 / (fan_in as f64).sqrt() }
    }

    fn draw(self, shape: &[i64], device: Device) -> Tensor {
        let options = (Kind::Float, device);
        match self {
            Init::Const(c) => Tensor::full(shape, c, options),
            Init::Normal { std } => Tensor::randn(shape, options) * std,
            Init::NormalAround { mean, std } => Tensor::randn(shape, options) * std + mean,
            Init::Uniform { bound } => Tensor::rand(shape, options) * (2.0 * bound) - bound,
        }
    }
}

/// A named tensor of a model.
#[derive(Debug)]
pub struct Var {
    /// Full dotted name, as in the official state dict.
    pub name: String,
    /// The tensor; cloning it shallowly shares the storage with the model.
    pub tensor: Tensor,
    /// True for buffers: saved and loaded, never trained.
    pub buffer: bool,
}

impl Var {
    /// The same variable: the tensor is shared.
    pub fn shallow_clone(&self) -> Var {
        Var { name: self.name.clone(), tensor: self.tensor.shallow_clone(), buffer: self.buffer }
    }
}

#[derive(Debug, Default)]
struct Table {
    vars: Vec<Var>,
    index: HashMap<String, usize>,
}

/// All variables of one model, in the order of construction.
#[derive(Debug, Clone)]
pub struct Vars {
    table: Arc<Mutex<Table>>,
    device: Device,
    kind: Kind,
    build: Build,
}

impl Vars {
    /// An empty store for parameters of the dtype `kind` on `device`.
    pub fn new(device: Device, kind: Kind, build: Build) -> Self {
        Vars { table: Arc::default(), device, kind, build }
    }

    /// The scope with no prefix.
    pub fn root(&self) -> Scope {
        Scope { vars: self.clone(), prefix: String::new() }
    }

    /// Device of the variables.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Whether variables are drawn from their initial distributions.
    pub fn is_random(&self) -> bool {
        self.build == Build::Random
    }

    /// Dtype of floating parameters.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Every variable: name, tensor (shared with the model), and whether it is a buffer.
    pub fn all(&self) -> Vec<Var> {
        let copy = |v: &Var| Var { name: v.name.clone(), tensor: v.tensor.shallow_clone(), buffer: v.buffer };
        self.table().vars.iter().map(copy).collect()
    }

    /// Trainable variables only.
    pub fn parameters(&self) -> Vec<Var> {
        self.all().into_iter().filter(|v| !v.buffer).collect()
    }

    /// One variable by its full name.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        let table = self.table();
        table.index.get(name).map(|&i| table.vars[i].tensor.shallow_clone())
    }

    /// The number of trained values (buffers not counted).
    pub fn num_parameters(&self) -> i64 {
        self.table().vars.iter().filter(|v| !v.buffer).map(|v| v.tensor.numel() as i64).sum()
    }

    /// Records gradients for every parameter from now on, or stops doing so.
    pub fn set_requires_grad(&self, yes: bool) {
        for v in &mut self.table().vars {
            if !v.buffer {
                let _ = v.tensor.set_requires_grad(yes);
            }
        }
    }

    fn add(&self, name: String, tensor: Tensor, buffer: bool) -> Tensor {
        let mut table = self.table();
        let at = table.vars.len();
        let previous = table.index.insert(name.clone(), at);
        assert!(previous.is_none(), "variable `{name}` is defined twice");
        let shared = tensor.shallow_clone();
        table.vars.push(Var { name, tensor, buffer });
        shared
    }

    fn make(&self, shape: &[i64], kind: Kind, init: Init) -> Tensor {
        match self.build {
            Build::Random => init.draw(shape, self.device).to_kind(kind),
            Build::Empty => Tensor::empty(shape, (kind, self.device)),
            Build::Meta => {
                Tensor::zeros(vec![1; shape.len()].as_slice(), (kind, self.device)).expand(shape, false)
            }
        }
    }
}

/// Scope in the tree of names: `root / "layers" / 0 / "attention"`.
#[derive(Debug, Clone)]
pub struct Scope {
    vars: Vars,
    prefix: String,
}

impl Scope {
    /// The full name of a variable of this scope.
    pub fn name(&self, leaf: &str) -> String {
        if self.prefix.is_empty() { leaf.to_owned() } else { format!("{}.{leaf}", self.prefix) }
    }

    /// A trained variable of the store's dtype.
    pub fn var(&self, leaf: &str, shape: &[i64], init: Init) -> Tensor {
        self.var_of(leaf, shape, self.vars.kind, init)
    }

    /// A trained variable of its own dtype (a codebook stays fp32).
    pub fn var_of(&self, leaf: &str, shape: &[i64], kind: Kind, init: Init) -> Tensor {
        let _guard = tch::no_grad_guard();
        let tensor = self.vars.make(shape, kind, init);
        self.vars.add(self.name(leaf), tensor, false)
    }

    /// A saved but untrained variable of any dtype.
    pub fn buffer(&self, leaf: &str, shape: &[i64], kind: Kind, init: Init) -> Tensor {
        let _guard = tch::no_grad_guard();
        let tensor = self.vars.make(shape, kind, init);
        self.vars.add(self.name(leaf), tensor, true)
    }

    /// The store this scope writes to.
    pub fn vars(&self) -> &Vars {
        &self.vars
    }
}

impl<T: std::fmt::Display> std::ops::Div<T> for &Scope {
    type Output = Scope;

    fn div(self, part: T) -> Scope {
        Scope { vars: self.vars.clone(), prefix: self.name(&part.to_string()) }
    }
}

impl<T: std::fmt::Display> std::ops::Div<T> for Scope {
    type Output = Scope;

    fn div(self, part: T) -> Scope {
        &self / part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describing_costs_no_memory_and_keeps_names_and_shapes() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
        let p = &vars.root() / "layers" / 0;
        let _ = p.var("weight", &[1 << 20, 1 << 20], Init::Const(0.0));
        let all = vars.all();
        assert_eq!(all[0].name, "layers.0.weight");
        assert_eq!(all[0].tensor.size(), [1 << 20, 1 << 20]);
        assert_eq!(vars.num_parameters(), 1 << 40);
    }

    #[test]
    #[should_panic(expected = "defined twice")]
    fn a_name_cannot_be_used_twice() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Empty);
        let _ = vars.root().var("w", &[1], Init::Const(0.0));
        let _ = vars.root().var("w", &[1], Init::Const(0.0));
    }
}
