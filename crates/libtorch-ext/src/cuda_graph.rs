//! CUDA graphs: a sequence of kernel launches, captured once and replayed at the cost of one
//! launch.
//!
//! tch does not bind them. The functions are in a small library compiled with this crate and
//! embedded in the program, which opens it after libtorch's CUDA half, so that the program itself
//! does not link to CUDA.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::Error;
use crate::library::{self, FromBytes};

const LIBRARY: &str = "cuda_graph.so";

#[cfg(cuda_graphs)]
const BYTES: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/cuda_graph.so")));
#[cfg(not(cuda_graphs))]
const BYTES: Option<&[u8]> = None;

/// Whether this program was built with the headers that capturing needs.
pub fn built_in() -> bool {
    BYTES.is_some()
}

type OfDevice = unsafe extern "C" fn(c_int, *mut c_char, usize) -> bool;
type CurrentStream = unsafe extern "C" fn(c_int, *mut *mut c_void, *mut c_char, usize) -> bool;
type OfGraph = unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> bool;
type NewGraph = unsafe extern "C" fn(*mut *mut c_void, *mut c_char, usize) -> bool;

struct Functions {
    enter: OfDevice,
    leave: OfDevice,
    current: CurrentStream,
    new: NewGraph,
    begin: OfGraph,
    end: OfGraph,
    replay: OfGraph,
    delete: OfGraph,
    _library: FromBytes, // the functions live as long as it is open
}

impl Functions {
    /// Opened at first use, and never closed.
    fn get() -> Result<&'static Functions, Error> {
        static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
        match FUNCTIONS.get() {
            Some(functions) => Ok(functions),
            None => Functions::open().map(|functions| FUNCTIONS.get_or_init(|| functions)),
        }
    }

    fn open() -> Result<Self, Error> {
        let bytes = BYTES.ok_or(Error::NotBuilt)?;
        let missing = |e: libloading::Error| Error::open(LIBRARY, &e.to_string());
        // SAFETY: the library is built with this crate; it has no initialisers, and the types are
        // those of its source.
        unsafe {
            let library = library::from_bytes(LIBRARY, bytes).map_err(|e| Error::open(LIBRARY, &e))?;
            Ok(Functions {
                enter: *library.get(b"gen_stream_enter").map_err(missing)?,
                leave: *library.get(b"gen_stream_leave").map_err(missing)?,
                current: *library.get(b"gen_stream_current").map_err(missing)?,
                new: *library.get(b"gen_graph_new").map_err(missing)?,
                begin: *library.get(b"gen_graph_begin").map_err(missing)?,
                end: *library.get(b"gen_graph_end").map_err(missing)?,
                replay: *library.get(b"gen_graph_replay").map_err(missing)?,
                delete: *library.get(b"gen_graph_delete").map_err(missing)?,
                _library: library,
            })
        }
    }
}

/// Calls `function` with a buffer for a message, which becomes the error if it returns false.
fn call(name: &'static str, function: impl FnOnce(*mut c_char, usize) -> bool) -> Result<(), Error> {
    let mut message = [0 as c_char; 2048];
    if function(message.as_mut_ptr(), message.len()) {
        return Ok(());
    }
    // SAFETY: the library terminates the message with a zero, and the buffer was zeroed.
    let text = unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy();
    // libtorch appends a C++ backtrace.
    Err(Error::Graph { call: name, message: text.lines().next().unwrap_or_default().to_owned() })
}

/// Capturing on one GPU.
#[derive(Clone)]
pub struct CudaGraphs {
    functions: &'static Functions,
    device: usize,
}

impl CudaGraphs {
    /// Opens the library for capturing. libtorch's CUDA half must be open (see
    /// [`crate::runtime::load_cuda`]).
    ///
    /// # Errors
    /// Returns an error if the program was built without it, or libtorch's CUDA half has another
    /// version.
    pub fn open(device: usize) -> Result<Self, Error> {
        Ok(CudaGraphs { functions: Functions::get()?, device })
    }

    /// libtorch's current stream of this thread, a `cudaStream_t`.
    pub(crate) fn current_stream(&self) -> Result<*mut c_void, Error> {
        let mut stream = std::ptr::null_mut();
        // SAFETY: a device number, and `stream` receives a handle that stays libtorch's.
        call("current stream", |text, size| unsafe {
            (self.functions.current)(self.device as c_int, &mut stream, text, size)
        })?;
        Ok(stream)
    }

    /// Runs `work` on a stream that allows capturing, after all earlier and before all later work
    /// of the device.
    ///
    /// # Errors
    /// Returns an error if the stream is not available, and the errors of `work`.
    pub fn on_stream<T, E: From<Error>>(&self, work: impl FnOnce(&Stream) -> Result<T, E>) -> Result<T, E> {
        let (f, device) = (self.functions, self.device as c_int);
        tch::Cuda::synchronize(self.device as i64);
        // SAFETY: a device number and a buffer with its size.
        call("stream", |text, size| unsafe { (f.enter)(device, text, size) })?;
        let leave = Leave(self);
        let result = work(&Stream { graphs: self, _thread: PhantomData });
        tch::Cuda::synchronize(self.device as i64);
        drop(leave);
        result
    }
}

/// Returns to the default stream when dropped, also if the work panics.
struct Leave<'a>(&'a CudaGraphs);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let (f, device) = (self.0.functions, self.0.device as c_int);
        // SAFETY: as for entering. A failure leaves the other stream current, which changes no
        // result.
        let _ = call("stream", |text, size| unsafe { (f.leave)(device, text, size) });
    }
}

/// This thread's current stream.
pub struct Stream<'a> {
    graphs: &'a CudaGraphs,
    _thread: PhantomData<*const ()>, // streams are current in one thread
}

impl Stream<'_> {
    /// Captures the launches of `work` without running them. The tensors that it reads and writes
    /// must live as long as the graph; those that it allocates and drops belong to the graph. The
    /// same work must have run once before on this stream, so that libraries are initialised.
    ///
    /// # Errors
    /// Returns libtorch's message, for example if the work synchronises with the host.
    pub fn capture(&self, work: impl FnOnce()) -> Result<Graph, Error> {
        let functions = self.graphs.functions;
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` receives a graph that only [`Graph`] owns.
        call("new graph", |text, size| unsafe { (functions.new)(&mut handle, text, size) })?;
        let graph = Graph { functions, handle };
        let f = functions;
        // SAFETY: the handle is a live graph.
        call("begin", |text, size| unsafe { (f.begin)(handle, text, size) })?;
        work();
        // SAFETY: as above.
        call("end", |text, size| unsafe { (f.end)(handle, text, size) })?;
        Ok(graph)
    }

    /// Replays the captured work after all earlier work of the stream, without waiting for it.
    ///
    /// # Errors
    /// Returns libtorch's message.
    pub fn replay(&self, graph: &Graph) -> Result<(), Error> {
        // SAFETY: the handle is a live graph, whose capture is complete.
        call("replay", |text, size| unsafe { (graph.functions.replay)(graph.handle, text, size) })
    }
}

/// A captured graph. It may be replayed on any stream of its device.
pub struct Graph {
    functions: &'static Functions,
    handle: *mut c_void,
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the handle is a live graph, and this is its end.
        let _ = call("delete", |text, size| unsafe { (self.functions.delete)(self.handle, text, size) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Missing symbols of libtorch's CUDA half must be an error, not a crash.
    #[test]
    fn without_cuda_it_says_what_is_missing() {
        if tch::Cuda::is_available() {
            return;
        }
        let error = CudaGraphs::open(0).err().expect("there is no CUDA here").to_string();
        let expected = if built_in() { "cannot open `cuda_graph.so`" } else { "built without" };
        assert!(error.contains(expected), "{error}");
    }
}
