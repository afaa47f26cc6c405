//! Heartbeats: a thread in each process that sends heartbeats, watches the others, and names the
//! one that stopped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libtorch_ext::c10d::{Store, exit};

use crate::hello::Hello;

/// Seconds without a heartbeat after which a process counts as dead, to override the default.
pub const LIMIT_VARIABLE: &str = "GEN_HEARTBEAT_S";

const INTERVAL: Duration = Duration::from_secs(1);
/// Time for other processes to read the verdict from a store that ends with this process.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
const FAILURE: &str = "failure";
/// Heartbeat of a process that ended in good order.
const LEFT: &str = "left";

/// Shared by the thread and the process.
#[derive(Debug)]
pub(crate) struct Pulse {
    phase: Mutex<String>,
    stop: AtomicBool,
    /// Whether this process has reported its own end; it is reported once.
    told: Mutex<bool>,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Pulse { phase: Mutex::new("starting".into()), stop: AtomicBool::new(false), told: Mutex::new(false) }
    }

    /// Sets the phase that others name if this process is not heard of any more.
    pub(crate) fn note(&self, phase: &str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase.to_owned();
    }

    /// Runs `tell` unless the end of this process has been reported already.
    pub(crate) fn tell_once(&self, tell: impl FnOnce()) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *told, true) {
            tell();
        }
    }
}

/// One process's view of the run.
pub(crate) struct Watch {
    pub(crate) store: Store,
    pub(crate) rank: usize,
    pub(crate) serves: bool,
    pub(crate) hellos: Vec<Hello>,
    pub(crate) pulse: Arc<Pulse>,
    /// Prints the last words of this process.
    pub(crate) last_words: Box<dyn Fn(&str) + Send>,
}

/// The text that some process left as the cause of the end, if one did.
pub(crate) fn failure(store: &Store) -> Option<String> {
    let there = store.has(FAILURE).unwrap_or(false);
    let bytes = there.then(|| store.get(FAILURE, INTERVAL).ok()).flatten()?;
    String::from_utf8(bytes).ok()
}

/// Leaves the cause of the end for the others. The first one stays.
pub(crate) fn publish(store: &Store, text: &str) {
    // A closed store has no readers either.
    let _ = store.set_if_absent(FAILURE, text.as_bytes());
}

/// A process's name in messages.
pub(crate) fn named(rank: usize, hello: &Hello) -> String {
    format!("rank {rank} ({}, process {})", hello.host, hello.pid)
}

pub(crate) struct Health {
    thread: Option<JoinHandle<Store>>,
    pulse: Arc<Pulse>,
}

impl Health {
    pub(crate) fn watch(watch: Watch) -> std::io::Result<Self> {
        let pulse = Arc::clone(&watch.pulse);
        let thread = std::thread::Builder::new().name("heartbeat".into()).spawn(move || beat(watch))?;
        Ok(Health { thread: Some(thread), pulse })
    }

    /// Ends the thread; the others see a process that ended in good order.
    pub(crate) fn leave(&mut self, rank: usize) {
        self.pulse.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().inspect(|thread| thread.thread().unpark());
        if let Some(store) = thread.and_then(|thread| thread.join().ok()) {
            let _ = store.set(&alive(rank), LEFT.as_bytes());
        }
    }
}

fn alive(rank: usize) -> String {
    format!("alive/{rank}")
}

fn limit() -> Duration {
    const SECONDS: f64 = 15.0;
    let asked = std::env::var(LIMIT_VARIABLE).ok().and_then(|text| text.parse().ok());
    Duration::try_from_secs_f64(asked.unwrap_or(SECONDS)).unwrap_or(Duration::from_secs_f64(SECONDS))
}

/// Another process as last heard of.
struct Heard {
    beat: Vec<u8>,
    at: Instant,
}

fn beat(watch: Watch) -> Store {
    let limit = limit();
    let mut heard: BTreeMap<usize, Heard> = BTreeMap::new();
    for count in 0u64.. {
        if watch.pulse.stop.load(Ordering::Relaxed) {
            break;
        }
        if let Err(verdict) = round(&watch, count, limit, &mut heard) {
            end(&watch, &verdict);
        }
        std::thread::park_timeout(INTERVAL.min(limit / 3));
    }
    watch.store
}

/// Says that this process is alive, and looks at the others. The error is the verdict.
fn round(
    watch: &Watch,
    count: u64,
    limit: Duration,
    heard: &mut BTreeMap<usize, Heard>,
) -> Result<(), String> {
    let Watch { store, rank, hellos, pulse, .. } = watch;
    let gone = |_| format!("{}, which holds the store, is gone", named(0, &hellos[0]));
    let phase = pulse.phase.lock().unwrap_or_else(PoisonError::into_inner).clone();
    store.set(&alive(*rank), format!("{count} {phase}").as_bytes()).map_err(gone)?;
    if let Some(text) = failure(store) {
        return Err(text);
    }
    for (other, hello) in hellos.iter().enumerate().filter(|(other, _)| other != rank) {
        let beat = match store.has(&alive(other)).map_err(gone)? {
            true => store.get(&alive(other), INTERVAL).map_err(gone)?,
            false => vec![],
        };
        if beat == LEFT.as_bytes() {
            continue;
        }
        let last = heard.entry(other).or_insert_with(|| Heard { beat: vec![], at: Instant::now() });
        if last.beat != beat {
            *last = Heard { beat, at: Instant::now() };
        } else if last.at.elapsed() > limit {
            let text = String::from_utf8_lossy(&last.beat);
            let phase = text.split_once(' ').map_or("starting", |(_, phase)| phase);
            let seconds = last.at.elapsed().as_secs_f64();
            let who = named(other, hello);
            return Err(format!("{who} has not been heard of for {seconds:.0} s; it was at: {phase}"));
        }
    }
    Ok(())
}

/// Tells the verdict and ends the process.
fn end(watch: &Watch, verdict: &str) -> ! {
    publish(&watch.store, verdict);
    watch.pulse.tell_once(|| (watch.last_words)(verdict));
    if watch.serves {
        std::thread::sleep(LINGER);
    }
    exit(2)
}
