//! The processes of a run, as one of them sees them.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtorch_ext::c10d::{Endpoint, Group, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;
use settings::Launch;
use tch::{Device, Kind, Tensor};

use crate::health::{Health, LINGER, Pulse, Watch, failure, named, publish};
use crate::hello::{self, Hello};
use crate::{Error, Result};

/// Time limits and the program's own words.
pub struct JoinSettings {
    /// Program and version, equal on all processes.
    pub program: String,
    /// Time for all processes to come.
    pub rendezvous: Duration,
    /// Time that an exchange may take.
    pub exchange: Duration,
    /// Prints the last words of a process that ends because another one failed.
    pub last_words: Box<dyn Fn(&str) + Send>,
}

/// The processes of a run. A single process is a world of one.
#[derive(Debug, Default)]
pub struct World {
    many: Option<Many>,
    /// Counters of a single process; those of several are in the store.
    counters: Mutex<BTreeMap<String, i64>>,
}

struct Many {
    launch: Launch,
    store: Store,
    group: Group,
    hellos: Vec<Hello>,
    pulse: Arc<Pulse>,
    health: Mutex<Health>,
    rendezvous: Duration,
}

impl std::fmt::Debug for Many {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Many").field("launch", &self.launch).finish_non_exhaustive()
    }
}

impl World {
    /// Joins the other processes of a launch: connects to the store, checks that all run the same
    /// command, and forms the group.
    ///
    /// # Errors
    /// Returns an error if a process does not arrive in time, cannot be reached, or was started
    /// with other arguments.
    pub fn join(launch: Launch, settings: JoinSettings) -> Result<World> {
        let Launch { rank, world_size, ref host, port, serves, ref prefix, .. } = launch;
        let place = format!("{host}:{port}");
        let join = |source| Error::Join { rank, world: world_size, place: place.clone(), source };
        let timeout = settings.rendezvous;
        let store = Store::tcp(host, port, serves, prefix, timeout).map_err(join)?;
        let own = Hello {
            host: hostname(),
            pid: std::process::id(),
            address: address_towards(host, port),
            program: settings.program,
            arguments: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        };
        let hellos = hello::exchange(&store, &own, rank, world_size, timeout)?;
        let pulse = Arc::new(Pulse::new());
        let watch = Watch {
            store: store.connect_again().map_err(join)?,
            rank,
            serves,
            hellos: hellos.clone(),
            pulse: Arc::clone(&pulse),
            last_words: settings.last_words,
        };
        let health =
            Health::watch(watch).map_err(|source| Error::Start { rank, world: world_size, source })?;
        let endpoint = endpoint(&own.address, &hellos);
        let group = Group::gloo(&store, rank, world_size, settings.exchange, &endpoint).map_err(join)?;
        let health = Mutex::new(health);
        let many = Many { launch, store, group, hellos, pulse, health, rendezvous: timeout };
        Ok(World { many: Some(many), counters: Mutex::default() })
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.many.as_ref().map_or(0, |many| many.launch.rank)
    }

    /// Number of processes, at least 1.
    pub fn size(&self) -> usize {
        self.many.as_ref().map_or(1, |many| many.launch.world_size)
    }

    /// True for the process that writes results: rank 0, or the only one.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Whether the launcher starts the processes again after a failure.
    pub fn is_restart(&self) -> bool {
        self.many.as_ref().is_some_and(|many| many.launch.is_restart())
    }

    /// Sets the phase of the work that others name if this process is not heard of any more.
    pub fn note(&self, phase: &str) {
        self.many.iter().for_each(|many| many.pulse.note(phase));
    }

    /// Adds to a counter that all processes share, from 0, and returns its new value.
    ///
    /// # Errors
    /// Returns an error if the store is unreachable.
    pub fn add(&self, counter: &str, by: i64) -> Result<i64> {
        if let Some(many) = &self.many {
            return many.store.add(counter, by).map_err(|e| many.explain(e));
        }
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let value = counters.entry(counter.to_owned()).or_default();
        *value += by;
        Ok(*value)
    }

    /// Returns the next of `units` that no process has taken yet, for work that any process can do.
    /// `None` after the last.
    ///
    /// # Errors
    /// Same as [`World::add`].
    pub fn take<'a, T>(&self, counter: &str, units: &'a [T]) -> Result<Option<&'a T>> {
        let number = self.add(counter, 1)? - 1;
        Ok(usize::try_from(number).ok().and_then(|number| units.get(number)))
    }

    /// Waits for all processes.
    ///
    /// # Errors
    /// Returns an error if one has exited, with its own message if it left one.
    pub fn barrier(&self) -> Result<()> {
        let Some(many) = &self.many else { return Ok(()) };
        many.group.barrier().map_err(|e| many.explain(e))
    }

    /// The bytes of every process, in the order of ranks, at rank 0; elsewhere nothing.
    ///
    /// # Errors
    /// Same as [`World::barrier`].
    pub fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let Some(many) = &self.many else { return Ok(vec![bytes]) };
        let explain = |e| many.explain(e);
        if many.launch.rank > 0 {
            many.send(&bytes, 0).map_err(explain)?;
            return Ok(vec![]);
        }
        let mut all = vec![bytes];
        for rank in 1..many.launch.world_size {
            all.push(many.receive(rank).map_err(explain)?);
        }
        Ok(all)
    }

    /// The bytes of rank 0 at every process.
    ///
    /// # Errors
    /// Same as [`World::barrier`].
    pub fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let Some(many) = &self.many else { return Ok(bytes) };
        let explain = |e| many.explain(e);
        if many.launch.rank > 0 {
            return many.receive(0).map_err(explain);
        }
        for rank in 1..many.launch.world_size {
            many.send(&bytes, rank).map_err(explain)?;
        }
        Ok(bytes)
    }

    /// The numbers of every process, in the order of ranks, at every process; all have as many.
    ///
    /// # Errors
    /// Same as [`World::barrier`], and if a process has another number of them.
    pub fn all_gather(&self, numbers: &[f64]) -> Result<Vec<Vec<f64>>> {
        let Some(many) = &self.many else { return Ok(vec![numbers.to_vec()]) };
        let own: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let length = own.len();
        let all = self.gather(own)?;
        if let Some(other) = all.iter().position(|bytes| bytes.len() != length) {
            let found = format!("{} and {}", length / 8, all[other].len() / 8);
            return Err(Error::Mismatch { first: 0, second: other, what: "numbers to exchange", found });
        }
        let all = self.broadcast(all.concat())?;
        let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap_or_default());
        let numbers: Vec<f64> = all.chunks_exact(8).map(number).collect();
        let each = numbers.len() / many.launch.world_size;
        Ok((0..many.launch.world_size).map(|r| numbers[r * each..(r + 1) * each].to_vec()).collect())
    }

    /// The values of every process, in the order of ranks, at every process.
    ///
    /// # Errors
    /// Same as [`World::barrier`].
    pub fn all_gather_values<T: Serialize + DeserializeOwned>(&self, value: T) -> Result<Vec<T>> {
        if self.many.is_none() {
            return Ok(vec![value]);
        }
        let all = self.gather_values(&value)?;
        let bytes = self.broadcast(serde_json::to_vec(&all).expect("plain data"))?;
        read(&bytes)
    }

    /// Sends slices of `input` (n) that end at `ends[r]` to the processes r in order; returns the
    /// slices of all processes for this one, (R, own length), in the order of ranks.
    ///
    /// # Errors
    /// Same as [`World::barrier`].
    pub fn exchange_slices(&self, input: Tensor, ends: &[i64]) -> Result<Tensor> {
        let Some(many) = &self.many else { return Ok(input.view([1, -1])) };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let lengths: Vec<i64> = ends.iter().zip(starts).map(|(end, start)| end - start).collect();
        let own = vec![lengths[many.launch.rank]; ends.len()];
        let input = input.to_device(Device::Cpu);
        let shape = [ends.len() as i64, own[0]];
        let mut received = Tensor::empty([shape[0] * shape[1]], (input.kind(), Device::Cpu));
        many.group.all_to_all(&mut received, &input, &own, &lengths).map_err(|e| many.explain(e))?;
        Ok(received.view(shape))
    }

    /// Fills in `whole` (n), on the CPU, the slices of the other processes; that of process r ends
    /// at `ends[r]`.
    ///
    /// # Errors
    /// Same as [`World::barrier`].
    pub fn gather_in_place(&self, whole: &mut Tensor, ends: &[i64]) -> Result<()> {
        let Some(many) = &self.many else { return Ok(()) };
        many.group.gather_in_place(whole, ends).map_err(|e| many.explain(e))
    }

    /// The value of every process, in the order of ranks, at rank 0; elsewhere nothing.
    ///
    /// # Errors
    /// Same as [`World::barrier`].
    pub fn gather_values<T: Serialize + DeserializeOwned>(&self, value: &T) -> Result<Vec<T>> {
        let all = self.gather(serde_json::to_vec(value).expect("plain data"))?;
        all.iter().map(|bytes| read(bytes)).collect()
    }

    /// The values of a round in the order of ranks, at rank 0; elsewhere nothing. Those of the other
    /// processes travel as bytes.
    ///
    /// # Errors
    /// Same as [`World::barrier`], and those of `pack` and `unpack`.
    pub fn gather_packed<T, E: From<Error>>(
        &self,
        own: T,
        pack: impl FnOnce(&T) -> std::result::Result<Vec<u8>, E>,
        unpack: impl Fn(&[u8]) -> std::result::Result<T, E>,
    ) -> std::result::Result<Vec<T>, E> {
        if !self.is_first() {
            self.gather(pack(&own)?)?;
            return Ok(vec![]);
        }
        let all = self.gather(vec![])?;
        let others = all.iter().skip(1).map(|bytes| unpack(bytes));
        std::iter::once(Ok(own)).chain(others).collect()
    }

    /// The value of rank 0 at every process: only rank 0 makes it.
    ///
    /// # Errors
    /// Returns rank 0's error there, and elsewhere that rank 0 failed.
    pub fn from_first<T, E>(
        &self,
        make: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<Error>,
    {
        let Some(many) = &self.many else { return make() };
        if many.launch.rank > 0 {
            return Ok(read(&self.broadcast(vec![])?)?);
        }
        let value = make()?;
        self.broadcast(serde_json::to_vec(&value).expect("plain data"))?;
        Ok(value)
    }

    /// Reports to the other processes that this one ends with an error. Returns true if the error
    /// should be reported here too: if this one ended because another process failed, the
    /// heartbeats have already reported that failure.
    pub fn fail(&self, text: &str) -> bool {
        let Some(many) = &self.many else { return true };
        let who = named(many.launch.rank, &many.hellos[many.launch.rank]);
        publish(&many.store, &format!("{who} failed: {text}"));
        let mut first = false;
        many.pulse.tell_once(|| first = true);
        if many.launch.serves {
            std::thread::sleep(LINGER);
        }
        first
    }

    /// Returns the exit code of a failed process. One of several processes exits here, since its
    /// heartbeats are inside libtorch.
    pub fn end(&self, code: u8) -> ExitCode {
        if self.many.is_some() {
            libtorch_ext::c10d::exit(code.into());
        }
        ExitCode::from(code)
    }

    /// Leaves in good order: the process that serves the store waits for the others.
    pub fn leave(&self) {
        let Some(many) = &self.many else { return };
        many.health.lock().unwrap_or_else(PoisonError::into_inner).leave(many.launch.rank);
        let others = i64::try_from(many.launch.world_size).unwrap_or(i64::MAX);
        let mut left = many.store.add("left", 1).unwrap_or(others);
        let end = Instant::now() + many.rendezvous;
        while many.launch.serves && left < others && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            left = many.store.add("left", 0).unwrap_or(others);
        }
    }
}

impl Many {
    fn send(&self, bytes: &[u8], to: usize) -> std::result::Result<(), libtorch_ext::Error> {
        let length = Tensor::from_slice(&[i64::try_from(bytes.len()).unwrap_or(i64::MAX)]);
        self.group.send(&length, to, 0)?;
        self.group.send(&Tensor::from_slice(bytes), to, 1)
    }

    fn receive(&self, from: usize) -> std::result::Result<Vec<u8>, libtorch_ext::Error> {
        let mut length = Tensor::zeros([1], (Kind::Int64, Device::Cpu));
        self.group.receive(&mut length, from, 0)?;
        let n = length.int64_value(&[0]);
        let mut bytes = Tensor::zeros([n], (Kind::Uint8, Device::Cpu));
        self.group.receive(&mut bytes, from, 1)?;
        let mut copied = vec![0; usize::try_from(n).unwrap_or(0)];
        let whole = copied.len();
        bytes.copy_data_u8(&mut copied, whole);
        Ok(copied)
    }

    /// The failed process's own message for an exchange that failed here, as soon as it or the
    /// heartbeats publish one.
    fn explain(&self, error: libtorch_ext::Error) -> Error {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if let Some(text) = failure(&self.store) {
                return Error::Peer(text);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Error::Exchange(error)
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let not_understood =
        |e: serde_json::Error| Error::Peer(format!("another process sent something else: {e}"));
    serde_json::from_slice(bytes).map_err(not_understood)
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown host".into(),
        name => name.into(),
    }
}

/// Own address on the way to a host.
fn address_towards(host: &str, port: u16) -> String {
    let route = |any: &str| {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((host, port))?;
        socket.local_addr()
    };
    let found = route("0.0.0.0").or_else(|_| route("::"));
    found.map_or_else(|_| "127.0.0.1".into(), |address| address.ip().to_string())
}

/// Endpoint at which the others reach this process. The host of the store sees itself at loopback;
/// if others connect from outside, it takes the address of its interface towards them.
fn endpoint(own: &str, all: &[Hello]) -> Endpoint {
    if let Ok(interface) = std::env::var("GLOO_SOCKET_IFNAME") {
        return Endpoint::Interface(interface);
    }
    let local = |address: &str| address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let outside = all.iter().map(|hello| hello.address.as_str()).find(|address| !local(address));
    Endpoint::Address(match outside {
        Some(other) if local(own) => address_towards(other, 9),
        _ => own.to_owned(),
    })
}
