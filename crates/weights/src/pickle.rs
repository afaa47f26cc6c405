//! A restricted unpickler: bytes → a graph of plain nodes.
//!
//! It builds values and executes nothing. A class or function is its name; calling one gives an
//! [`Object`] that remembers the name and the arguments. Protocols 1 to 5 of binary pickles
//! (Python's `pickletools.py` describes every opcode). Nodes are in one list and refer to each
//! other by number, because pickles share nodes and fill containers after referring to them; so a
//! hostile pickle may contain itself, and a walk of the graph must bound depth and work.

use std::collections::HashMap;

/// A node's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(u32);

/// A pickled value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function: `module.name`.
    Global(String),
    /// Something stored outside of the pickle, by whatever names it.
    Persistent(Id),
    /// The result of a call that was not made.
    Object(Box<Object>),
}

/// An instance of something this program does not run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    /// Callee; a `Global` in ordinary files.
    pub callee: Id,
    /// A tuple; shared, for a few bytes of a pickle can call anything with a million arguments
    /// again.
    pub args: Id,
    /// Argument of `__setstate__`.
    pub state: Option<Id>,
    /// Arguments of `__setitem__`, as for dictionaries.
    pub items: Vec<(Id, Id)>,
    /// Arguments of `append`, as for lists.
    pub list: Vec<Id>,
}

/// A graph of nodes.
#[derive(Debug)]
pub(crate) struct Pickle {
    nodes: Vec<Node>,
    pub root: Id,
}

impl Pickle {
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub fn ids(&self) -> impl Iterator<Item = Id> {
        (0..self.nodes.len() as u32).map(Id)
    }

    /// The items of a tuple or list; empty for anything else.
    pub fn items(&self, id: Id) -> &[Id] {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => items,
            _ => &[],
        }
    }

    /// The name of a class or function.
    pub fn global(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }

    /// For every node, whether one of the `seeds` can be reached from it, by way of any containers
    /// and objects.
    pub fn reaching(&self, seeds: impl Fn(&Node) -> bool) -> Vec<bool> {
        // Edges backwards, in one list: those that lead to node i are at `ends[i]..ends[i + 1]`.
        let mut ends = vec![0u32; self.nodes.len() + 1];
        self.edges(&mut |_, to| ends[to.0 as usize + 1] += 1);
        (1..ends.len()).for_each(|i| ends[i] += ends[i - 1]);
        let mut from = vec![Id(0); ends[self.nodes.len()] as usize];
        let mut filled = ends.clone();
        self.edges(&mut |parent, to| {
            let at = &mut filled[to.0 as usize];
            from[*at as usize] = parent;
            *at += 1;
        });
        let mut reached: Vec<bool> = self.nodes.iter().map(seeds).collect();
        let mut todo: Vec<Id> = self.ids().filter(|id| reached[id.0 as usize]).collect();
        while let Some(Id(at)) = todo.pop() {
            for &Id(parent) in &from[ends[at as usize] as usize..ends[at as usize + 1] as usize] {
                if !std::mem::replace(&mut reached[parent as usize], true) {
                    todo.push(Id(parent));
                }
            }
        }
        reached
    }

    /// Calls `see` with every node and each of the nodes that it refers to.
    fn edges(&self, see: &mut dyn FnMut(Id, Id)) {
        for id in self.ids() {
            match self.node(id) {
                Node::Tuple(items) | Node::List(items) | Node::Set(items) => {
                    items.iter().for_each(|&item| see(id, item));
                }
                Node::Dict(pairs) => pairs.iter().for_each(|&(_, value)| see(id, value)),
                Node::Object(object) => {
                    let Object { callee, args, state, items, list } = object.as_ref();
                    [*callee, *args].iter().chain(state).chain(list).for_each(|&part| see(id, part));
                    items.iter().for_each(|&(_, value)| see(id, value));
                }
                _ => {}
            }
        }
    }
}

impl Id {
    /// Index of the node in lists with an item for each.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// More values than any checkpoint holds (a large optimizer's has some 100,000), in less than a
/// gigabyte. The stack, its marks and the memo, which opcodes of one byte can fill, have the same
/// bound.
const MOST_NODES: usize = 1 << 23;
/// The longest name of a class or function, module included.
const LONGEST_NAME: usize = 1000;
/// The largest pickle that is read; those of full training states are a few megabytes.
pub(crate) const LARGEST: usize = 1 << 28;

const TOO_MANY: &str = "the pickle holds too many values";

type Result<T> = std::result::Result<T, String>;

/// Reads one pickle from the start of `data`; also returns the number of bytes read.
pub(crate) fn parse(data: &[u8]) -> Result<(Pickle, usize)> {
    let data = &data[..data.len().min(LARGEST)];
    let mut machine =
        Machine { data, at: 0, nodes: vec![], stack: vec![], marks: vec![], memo: HashMap::new() };
    let root = machine.run().map_err(|e| format!("{e} (byte {} of the pickle)", machine.at))?;
    let consumed = machine.at;
    Ok((Pickle { nodes: machine.nodes, root }, consumed))
}

struct Machine<'a> {
    data: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack where MARK was pushed.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id> {
        loop {
            let op = self.bytes(1)?[0];
            if op == b'.' {
                return self.pop();
            }
            self.step(op)?;
            if self.stack.len().max(self.marks.len()).max(self.memo.len()) > MOST_NODES {
                return Err(TOO_MANY.into());
            }
        }
    }

    fn step(&mut self, op: u8) -> Result<()> {
        match op {
            0x80 => self.protocol(),
            0x95 => self.bytes(8).map(drop), // FRAME: only a length
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.since_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => self.number(op),
            b'X' | 0x8c | 0x8d | b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96 => self.text(op),
            b')' | b't' | 0x85..=0x87 | b']' | b'l' | b'}' | b'd' | 0x8f | 0x91 => self.container(op),
            b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(op),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memory(op),
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'b' | b'o' | b'i' | b'Q' => self.call(op),
            0x98 => Ok(()), // READONLY_BUFFER: no difference here
            _ => Err(format!("pickle opcode 0x{op:02x} is not supported")),
        }
    }

    fn protocol(&mut self) -> Result<()> {
        match self.bytes(1)?[0] {
            0..=5 => Ok(()),
            p => Err(format!("pickle protocol {p} is not known")),
        }
    }

    fn number(&mut self, op: u8) -> Result<()> {
        let node = match op {
            b'N' => Node::None,
            0x88 => Node::Bool(true),
            0x89 => Node::Bool(false),
            b'J' => Node::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Node::Int(self.bytes(1)?[0].into()),
            b'M' => Node::Int(u16::from_le_bytes(self.array()?).into()),
            b'G' => Node::Float(f64::from_be_bytes(self.array()?)),
            _ => {
                let length = self.length(if op == 0x8a { 1 } else { 4 })?;
                integer(self.bytes(length)?)
            }
        };
        self.push(node)
    }

    fn text(&mut self, op: u8) -> Result<()> {
        let width = match op {
            b'U' | b'C' | 0x8c => 1,
            b'X' | b'T' | b'B' => 4,
            _ => 8,
        };
        let length = self.length(width)?;
        let bytes = self.bytes(length)?.to_vec();
        let node = match op {
            b'X' | 0x8c | 0x8d => Node::Str(String::from_utf8_lossy(&bytes).into_owned()),
            // Python 2's `str` is either.
            b'T' | b'U' => String::from_utf8(bytes).map_or_else(|e| Node::Bytes(e.into_bytes()), Node::Str),
            _ => Node::Bytes(bytes),
        };
        self.push(node)
    }

    fn container(&mut self, op: u8) -> Result<()> {
        let node = match op {
            b')' => Node::Tuple(vec![]),
            0x85..=0x87 => Node::Tuple(self.pop_many(usize::from(op - 0x84))?),
            b't' => Node::Tuple(self.since_mark()?),
            b']' => Node::List(vec![]),
            b'l' => Node::List(self.since_mark()?),
            b'}' => Node::Dict(vec![]),
            b'd' => Node::Dict(pairs(self.since_mark()?)?),
            0x8f => Node::Set(vec![]),
            _ => Node::Set(self.since_mark()?),
        };
        self.push(node)
    }

    fn fill(&mut self, op: u8) -> Result<()> {
        let new = match op {
            b'a' => self.pop_many(1)?,
            b's' => self.pop_many(2)?,
            _ => self.since_mark()?,
        };
        let target = self.top()?;
        match (op, &mut self.nodes[target.0 as usize]) {
            (b'a' | b'e', Node::List(list)) => list.extend(new),
            (b'a' | b'e', Node::Object(object)) => object.list.extend(new),
            (b's' | b'u', Node::Dict(dict)) => dict.extend(pairs(new)?),
            (b's' | b'u', Node::Object(object)) => object.items.extend(pairs(new)?),
            (0x90, Node::Set(set)) => set.extend(new),
            _ => return Err("items are added to something that holds none".into()),
        }
        Ok(())
    }

    fn memory(&mut self, op: u8) -> Result<()> {
        let key = match op {
            b'q' | b'h' => self.length(1)? as u64,
            b'r' | b'j' => self.length(4)? as u64,
            _ => self.memo.len() as u64,
        };
        if matches!(op, b'h' | b'j') {
            let id = *self.memo.get(&key).ok_or_else(|| format!("nothing was remembered as {key}"))?;
            self.stack.push(id);
        } else {
            let top = self.top()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    fn call(&mut self, op: u8) -> Result<()> {
        match op {
            b'c' => {
                let name = self.global()?;
                self.push(name)
            }
            0x93 => {
                let parts = self.pop_many(2)?;
                let part = |id: Id| match &self.nodes[id.0 as usize] {
                    Node::Str(s) => Ok(s.as_str()),
                    _ => Err("the name of a class is not a string".to_owned()),
                };
                let (module, name) = (part(parts[0])?, part(parts[1])?);
                if module.len() + name.len() > LONGEST_NAME {
                    return Err("the name of a class is too long".into());
                }
                let name = format!("{module}.{name}");
                self.push(Node::Global(name))
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                // Attributes on plain containers (a state dict's `_metadata`) have no meaning here.
                if let Node::Object(object) = &mut self.nodes[target.0 as usize] {
                    object.state = Some(state);
                }
                Ok(())
            }
            b'o' => {
                let mut args = self.since_mark()?;
                if args.is_empty() {
                    return Err("an object without a class".into());
                }
                let callee = args.remove(0);
                let args = self.add(Node::Tuple(args))?;
                self.push_object(callee, args, None)
            }
            b'i' => {
                let name = self.global()?;
                let args = self.since_mark()?;
                let callee = self.add(name)?;
                let args = self.add(Node::Tuple(args))?;
                self.push_object(callee, args, None)
            }
            _ => {
                let kwargs = if op == 0x92 { Some(self.pop()?) } else { None };
                let args = self.pop()?;
                let callee = self.pop()?;
                let Node::Tuple(_) = &self.nodes[args.0 as usize] else {
                    return Err("the arguments of a call are not a tuple".into());
                };
                self.push_object(callee, args, kwargs)
            }
        }
    }

    fn global(&mut self) -> Result<Node> {
        let module = self.line()?;
        let name = self.line()?;
        Ok(Node::Global(format!("{module}.{name}")))
    }

    fn push_object(&mut self, callee: Id, args: Id, state: Option<Id>) -> Result<()> {
        self.push(Node::Object(Box::new(Object { callee, args, state, items: vec![], list: vec![] })))
    }

    fn push(&mut self, node: Node) -> Result<()> {
        let id = self.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn add(&mut self, node: Node) -> Result<Id> {
        if self.nodes.len() >= MOST_NODES {
            return Err(TOO_MANY.into());
        }
        self.nodes.push(node);
        Ok(Id(self.nodes.len() as u32 - 1))
    }

    /// The height below which nothing may be popped.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".into());
        }
        self.stack.last().copied().ok_or_else(|| "the stack is empty".into())
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, n: usize) -> Result<Vec<Id>> {
        match self.stack.len().checked_sub(n) {
            Some(start) if start >= self.floor() => Ok(self.stack.split_off(start)),
            _ => Err("the stack is empty".into()),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.data.len());
        let end = end.ok_or("the pickle ends too early")?;
        let found = &self.data[self.at..end];
        self.at = end;
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.bytes(N)?.try_into().expect("N bytes were asked for"))
    }

    /// A little-endian length of `width` bytes.
    fn length(&mut self, width: usize) -> Result<usize> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.bytes(width)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|e| e.to_string())
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.data[self.at..];
        let end = rest.iter().take(LONGEST_NAME).position(|&b| b == b'\n').ok_or("a name does not end")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|e| e.to_string())
    }
}

fn pairs(flat: Vec<Id>) -> Result<Vec<(Id, Id)>> {
    if flat.len() % 2 == 1 {
        return Err("a key without a value".into());
    }
    Ok(flat.chunks_exact(2).map(|p| (p[0], p[1])).collect())
}

/// A two's-complement little-endian integer; those beyond 128 bits (states of random generators) as
/// text.
fn integer(bytes: &[u8]) -> Node {
    if bytes.len() > 16 {
        let big_endian: Vec<u8> = bytes.iter().rev().copied().collect();
        return Node::Str(format!("0x{}", base::hash::hex(&big_endian)));
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i128::from_le_bytes(wide))
}
