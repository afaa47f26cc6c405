//! PyTorch's engine for many processes (c10d): a key-value store for rendezvous, and a Gloo group.

use std::ffi::{CString, c_char};
use std::ptr::{NonNull, null_mut};
use std::time::Duration;

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use crate::Error;
use crate::error::check_message;

#[repr(C)]
struct ExtStore {
    _opaque: [u8; 0],
}

#[repr(C)]
struct ExtGroup {
    _opaque: [u8; 0],
}

#[repr(C)]
struct ExtWork {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn ext_store_tcp(
        out: *mut *mut ExtStore,
        host: *const c_char,
        port: u16,
        server: bool,
        prefix: *const c_char,
        timeout_ms: i64,
    ) -> *mut c_char;
    fn ext_store_port(store: *const ExtStore, port: *mut u16) -> *mut c_char;
    fn ext_store_clone(out: *mut *mut ExtStore, store: *const ExtStore) -> *mut c_char;
    fn ext_store_free(store: *mut ExtStore);
    fn ext_store_set(store: *mut ExtStore, key: *const c_char, value: *const u8, n: usize) -> *mut c_char;
    fn ext_store_get(
        store: *mut ExtStore,
        key: *const c_char,
        timeout_ms: i64,
        value: *mut *mut u8,
        n: *mut usize,
    ) -> *mut c_char;
    fn ext_bytes_free(bytes: *mut u8);
    fn ext_store_check(store: *mut ExtStore, key: *const c_char, there: *mut bool) -> *mut c_char;
    fn ext_store_add(store: *mut ExtStore, key: *const c_char, by: i64, now: *mut i64) -> *mut c_char;
    fn ext_store_first(store: *mut ExtStore, key: *const c_char, value: *const u8, n: usize) -> *mut c_char;
    fn ext_group_gloo(
        out: *mut *mut ExtGroup,
        store: *const ExtStore,
        rank: i32,
        world: i32,
        timeout_ms: i64,
        address: *const c_char,
        interface: bool,
    ) -> *mut c_char;
    fn ext_group_free(group: *mut ExtGroup);
    fn ext_group_send(
        out: *mut *mut ExtWork,
        group: *mut ExtGroup,
        tensor: *const C_tensor,
        to: i32,
        tag: i32,
    ) -> *mut c_char;
    fn ext_group_receive(
        out: *mut *mut ExtWork,
        group: *mut ExtGroup,
        tensor: *const C_tensor,
        from: i32,
        tag: i32,
    ) -> *mut c_char;
    fn ext_group_all_to_all(
        group: *mut ExtGroup,
        out: *const C_tensor,
        input: *const C_tensor,
        out_lengths: *const i64,
        in_lengths: *const i64,
        n: usize,
    ) -> *mut c_char;
    fn ext_group_gather_in_place(
        group: *mut ExtGroup,
        whole: *const C_tensor,
        ends: *const i64,
        n: usize,
    ) -> *mut c_char;
    fn ext_group_barrier(out: *mut *mut ExtWork, group: *mut ExtGroup) -> *mut c_char;
    fn ext_work_wait(work: *mut ExtWork) -> *mut c_char;
    fn ext_work_free(work: *mut ExtWork);
    fn ext_exit(code: i32) -> !;
}

type Result<T> = std::result::Result<T, Error>;

fn checked(call: &'static str, error: *mut c_char) -> Result<()> {
    check_message(error).map_err(|message| Error::Libtorch { call, message })
}

fn text(of: &'static str, value: &str) -> Result<CString> {
    let no_nul = |_| Error::Libtorch { call: of, message: format!("a null byte in {value:?}") };
    CString::new(value).map_err(no_nul)
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Ends the process without libtorch's destructors, which must not run while other threads are
/// inside libtorch.
pub fn exit(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { ext_exit(code) }
}

/// The key-value store of a run, over TCP. One process serves it, all others are clients. A
/// connection serves one thread at a time; [`Store::connect_again`] opens another.
#[derive(Debug)]
pub struct Store(NonNull<ExtStore>);

// SAFETY: c10d's client locks its connection; nothing of it belongs to a thread.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by `ext_store_tcp` or `ext_store_clone`, and freed once.
        unsafe { ext_store_free(self.0.as_ptr()) }
    }
}

impl Store {
    /// Connects to the store at `host:port`, and serves it if `server` is set (port 0 takes any
    /// free one). All keys of this handle are under `prefix`.
    ///
    /// # Errors
    /// Returns an error if the port is taken, or nobody serves it within `timeout`.
    pub fn tcp(host: &str, port: u16, server: bool, prefix: &str, timeout: Duration) -> Result<Store> {
        const CALL: &str = "connecting to the store";
        let [host, prefix] = [text(CALL, host)?, text(CALL, prefix)?];
        let mut out = null_mut();
        // SAFETY: texts that outlive the call, and a place for the handle.
        let error = unsafe {
            ext_store_tcp(&mut out, host.as_ptr(), port, server, prefix.as_ptr(), milliseconds(timeout))
        };
        checked(CALL, error)?;
        Ok(Store(NonNull::new(out).expect("made without an error")))
    }

    fn raw(&self) -> *mut ExtStore {
        self.0.as_ptr()
    }

    /// Port of the store.
    ///
    /// # Errors
    /// Returns an error if the store is no TCP store.
    pub fn port(&self) -> Result<u16> {
        let mut port = 0;
        // SAFETY: a live store, and a place for the number.
        checked("port of the store", unsafe { ext_store_port(self.raw(), &mut port) })?;
        Ok(port)
    }

    /// A connection of its own to the same keys, for another thread.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    pub fn connect_again(&self) -> Result<Store> {
        let mut out = null_mut();
        // SAFETY: a live store, and a place for the handle.
        checked("connecting to the store", unsafe { ext_store_clone(&mut out, self.raw()) })?;
        Ok(Store(NonNull::new(out).expect("made without an error")))
    }

    /// Sets a key.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let name = text("store", key)?;
        // SAFETY: a live store, and bytes with their number.
        checked("store", unsafe { ext_store_set(self.raw(), name.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Sets a key that nobody has set; otherwise leaves it.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    pub fn set_if_absent(&self, key: &str, value: &[u8]) -> Result<()> {
        let name = text("store", key)?;
        // SAFETY: a live store, and bytes with their number.
        checked("store", unsafe { ext_store_first(self.raw(), name.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Value of a key, as soon as it is set.
    ///
    /// # Errors
    /// Returns an error if it is not set within `timeout`, or the store does not answer.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let name = text("store", key)?;
        let (mut value, mut n) = (null_mut(), 0);
        // SAFETY: a live store, and places for the bytes and their number; the bytes are ours to
        // free.
        checked("store", unsafe {
            ext_store_get(self.raw(), name.as_ptr(), milliseconds(timeout), &mut value, &mut n)
        })?;
        Ok(unsafe {
            let bytes = std::slice::from_raw_parts(value, n).to_vec();
            ext_bytes_free(value);
            bytes
        })
    }

    /// True if a key is set. Does not wait.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    pub fn has(&self, key: &str) -> Result<bool> {
        let name = text("store", key)?;
        let mut there = false;
        // SAFETY: a live store, and a place for the answer.
        checked("store", unsafe { ext_store_check(self.raw(), name.as_ptr(), &mut there) })?;
        Ok(there)
    }

    /// Adds to a counter that begins at 0, and returns its new value.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    pub fn add(&self, key: &str, by: i64) -> Result<i64> {
        let name = text("store", key)?;
        let mut now = 0;
        // SAFETY: a live store, and a place for the number.
        checked("store", unsafe { ext_store_add(self.raw(), name.as_ptr(), by, &mut now) })?;
        Ok(now)
    }
}

/// Address at which the processes of a group reach one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// At an address, or a host's name.
    Address(String),
    /// Through the network interface of this name.
    Interface(String),
}

/// Processes that exchange tensors on CPUs through Gloo. Every operation involves all processes, in
/// the same order, except [`Group::send`] and [`Group::receive`].
#[derive(Debug)]
pub struct Group(NonNull<ExtGroup>);

// SAFETY: c10d's groups are used from several threads in PyTorch itself.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by `ext_group_gloo`, and freed once.
        unsafe { ext_group_free(self.0.as_ptr()) }
    }
}

impl Group {
    /// Forms the group of the `world` processes that connect to `store`; this one has number
    /// `rank`. Waits for all of them, for at most `timeout`, as every operation does.
    ///
    /// # Errors
    /// Returns an error if a process does not come, or cannot be reached.
    pub fn gloo(store: &Store, rank: usize, world: usize, timeout: Duration, at: &Endpoint) -> Result<Group> {
        const CALL: &str = "forming a Gloo group";
        let (name, interface) = match at {
            Endpoint::Address(name) => (name, false),
            Endpoint::Interface(name) => (name, true),
        };
        let name = text(CALL, name)?;
        let mut out = null_mut();
        // SAFETY: a live store, a text that outlives the call, and a place for the handle.
        checked(CALL, unsafe {
            let (rank, world) = (number(rank), number(world));
            let timeout = milliseconds(timeout);
            ext_group_gloo(&mut out, store.raw(), rank, world, timeout, name.as_ptr(), interface)
        })?;
        Ok(Group(NonNull::new(out).expect("made without an error")))
    }

    fn raw(&self) -> *mut ExtGroup {
        self.0.as_ptr()
    }

    /// Sends a contiguous tensor on the CPU to a process that receives one of the same shape and
    /// dtype under the same tag.
    ///
    /// # Errors
    /// Returns an error if the other process has exited or does not receive it in time.
    pub fn send(&self, tensor: &Tensor, to: usize, tag: i32) -> Result<()> {
        on_cpu(tensor)?;
        let start =
            |out: &mut _| unsafe { ext_group_send(out, self.raw(), tensor.as_ptr(), number(to), tag) };
        finished("sending to another process", start)
    }

    /// Fills a contiguous tensor on the CPU with what another process sends.
    ///
    /// # Errors
    /// Returns an error if the other process has exited or does not send in time.
    pub fn receive(&self, into: &mut Tensor, from: usize, tag: i32) -> Result<()> {
        on_cpu(into)?;
        let start =
            |out: &mut _| unsafe { ext_group_receive(out, self.raw(), into.as_ptr(), number(from), tag) };
        finished("receiving from another process", start)
    }

    /// Sends slices of `input` (n), of these lengths, to the processes in order, and fills `out`
    /// with theirs, one after the other. Both are contiguous, on the CPU and of one dtype.
    ///
    /// # Errors
    /// Returns an error if lengths do not add up, or a process has exited or does not come in time.
    pub fn all_to_all(
        &self,
        out: &mut Tensor,
        input: &Tensor,
        out_lengths: &[i64],
        in_lengths: &[i64],
    ) -> Result<()> {
        const CALL: &str = "all-to-all exchange";
        on_cpu(input)?;
        on_cpu(out)?;
        let fits = |tensor: &Tensor, lengths: &[i64]| tensor.size() == [lengths.iter().sum::<i64>()];
        if out_lengths.len() != in_lengths.len()
            || !fits(out, out_lengths)
            || !fits(input, in_lengths)
            || out.kind() != input.kind()
        {
            let found = format!("{:?} {out_lengths:?}, {:?} {in_lengths:?}", out.size(), input.size());
            return Err(Error::Libtorch { call: CALL, message: found });
        }
        // SAFETY: live tensors, and as many lengths as stated.
        checked(CALL, unsafe {
            let (out_lengths, in_lengths, n) = (out_lengths.as_ptr(), in_lengths.as_ptr(), in_lengths.len());
            ext_group_all_to_all(self.raw(), out.as_ptr(), input.as_ptr(), out_lengths, in_lengths, n)
        })
    }

    /// Fills in `whole` (n), contiguous and on the CPU, the slices of the other processes; that of
    /// process r ends at `ends[r]`.
    ///
    /// # Errors
    /// Returns an error if the ends do not fit, or a process has exited or does not come in time.
    pub fn gather_in_place(&self, whole: &mut Tensor, ends: &[i64]) -> Result<()> {
        const CALL: &str = "gathering slices";
        on_cpu(whole)?;
        if whole.size() != [ends.last().copied().unwrap_or(0)] || !ends.is_sorted() {
            let found = format!("{:?} for slices that end at {ends:?}", whole.size());
            return Err(Error::Libtorch { call: CALL, message: found });
        }
        // SAFETY: a live tensor whose length is the last of as many ends as stated.
        checked(CALL, unsafe {
            ext_group_gather_in_place(self.raw(), whole.as_ptr(), ends.as_ptr(), ends.len())
        })
    }

    /// Waits until every process is here.
    ///
    /// # Errors
    /// Returns an error if a process has exited or does not come in time.
    pub fn barrier(&self) -> Result<()> {
        finished("barrier", |out| unsafe { ext_group_barrier(out, self.raw()) })
    }
}

fn number(of: usize) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX)
}

fn on_cpu(tensor: &Tensor) -> Result<()> {
    if tensor.device() == Device::Cpu && tensor.is_contiguous() {
        return Ok(());
    }
    let found = format!("{:?} on {:?}, strides {:?}", tensor.size(), tensor.device(), tensor.stride());
    Err(Error::Libtorch { call: "Gloo takes contiguous tensors on the CPU", message: found })
}

/// Starts an operation and waits for its end.
fn finished(call: &'static str, start: impl FnOnce(&mut *mut ExtWork) -> *mut c_char) -> Result<()> {
    let mut work = null_mut();
    checked(call, start(&mut work))?;
    // SAFETY: made by the call above, waited for, and freed once.
    unsafe {
        let ended = checked(call, ext_work_wait(work));
        ext_work_free(work);
        ended
    }
}
