//! A thread pool whose workers run one job in step.
//!
//! A decode step is some fifty pieces of work of a tenth of a millisecond, one after the other.
//! Handing each to a work-stealing pool would cost as much as the work; here every thread runs the
//! whole step (SPMD) and meets the others at barriers.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// Polls of a waiting thread before it yields; a few microseconds.
const SPIN_ITERS: u32 = 1 << 10;
/// Yields of an idle thread before it sleeps; well below a millisecond on an idle machine.
const YIELDS: u32 = 1 << 6;

type JobFn = *const (dyn Fn(&Worker) + Sync);

/// The last job handed out.
struct Job {
    run: JobFn,
    number: usize,
    stop: bool,
}

// SAFETY: the pointer is followed only while `ThreadPool::run`, which owns its target, waits for
// the workers.
unsafe impl Send for Job {}

struct State {
    job: Mutex<Job>,
    wake: Condvar,
    /// The number of the last job, also readable without the lock.
    number: AtomicUsize,
    /// Threads that have finished it.
    finished: AtomicUsize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    panicked: AtomicBool,
    size: usize,
}

/// One thread of the pool, as a job sees it.
pub struct Worker<'a> {
    index: usize,
    state: &'a State,
}

impl Worker<'_> {
    /// Index below [`Worker::count`]; 0 is the caller's own thread.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Workers of the pool.
    pub fn count(&self) -> usize {
        self.state.size
    }

    /// This worker's chunk of `0..n`: contiguous, of even size up to one.
    pub fn chunk(&self, n: usize) -> std::ops::Range<usize> {
        n * self.index / self.state.size..n * (self.index + 1) / self.state.size
    }

    /// Waits for all workers. Their writes before the barrier are visible after it.
    ///
    /// # Panics
    /// Panics if another worker panicked.
    pub fn barrier(&self) {
        let s = self.state;
        let round = s.round.load(Ordering::Acquire);
        if s.arrived.fetch_add(1, Ordering::AcqRel) + 1 == s.size {
            s.arrived.store(0, Ordering::Relaxed);
            s.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        wait(|| {
            assert!(!s.panicked.load(Ordering::Relaxed), "another worker of the pool panicked");
            s.round.load(Ordering::Acquire) != round
        });
    }
}

/// Polls until `done`, spinning first, then yielding between polls.
fn wait(done: impl Fn() -> bool) {
    loop {
        for _ in 0..SPIN_ITERS {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        std::thread::yield_now();
    }
}

/// A fixed number of threads, the caller's among them. Idle threads sleep.
pub struct ThreadPool {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
    /// Held while a job runs: one at a time.
    exclusive: Mutex<()>,
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ThreadPool({})", self.state.size)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl ThreadPool {
    /// A pool of `size` threads, at least one, or of fewer if the system refuses some.
    pub fn new(size: usize) -> Self {
        let mut size = size.max(1);
        loop {
            match ThreadPool::try_new(size) {
                Some(pool) => return pool,
                None => size -= 1, // 1 always works: it starts no thread
            }
        }
    }

    /// The process-wide pool of `size` threads, created at first use.
    pub fn shared(size: usize) -> Arc<ThreadPool> {
        static SHARED: Mutex<Option<(usize, Arc<ThreadPool>)>> = Mutex::new(None);
        let mut slot = lock(&SHARED);
        match &*slot {
            Some((requested, pool)) if *requested == size => Arc::clone(pool),
            _ => {
                let pool = Arc::new(ThreadPool::new(size));
                *slot = Some((size, Arc::clone(&pool)));
                pool
            }
        }
    }

    fn try_new(size: usize) -> Option<Self> {
        let idle: &'static (dyn Fn(&Worker) + Sync) = &|_| ();
        let state = Arc::new(State {
            job: Mutex::new(Job { run: idle, number: 0, stop: false }),
            wake: Condvar::new(),
            number: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            size,
        });
        let mut pool = ThreadPool { state, threads: vec![], exclusive: Mutex::new(()) };
        for index in 1..size {
            let state = Arc::clone(&pool.state);
            let thread = std::thread::Builder::new().name(format!("kernels-{index}"));
            // Dropping the partial pool ends the threads that did start.
            pool.threads.push(thread.spawn(move || work(index, &state)).ok()?);
        }
        Some(pool)
    }

    /// Number of workers, the caller's thread included.
    pub fn size(&self) -> usize {
        self.state.size
    }

    /// Runs `job` on every worker and waits for all of them.
    ///
    /// # Panics
    /// Panics if the job panics on any of them.
    pub fn run(&self, job: impl Fn(&Worker) + Sync) {
        let _exclusive = lock(&self.exclusive);
        let s = &*self.state;
        s.finished.store(0, Ordering::Relaxed);
        s.arrived.store(0, Ordering::Relaxed);
        s.panicked.store(false, Ordering::Relaxed);
        let job: &(dyn Fn(&Worker) + Sync) = &job;
        if s.size > 1 {
            let mut next = lock(&s.job);
            // SAFETY: only the lifetime changes. `job` outlives this call, and this call outlives
            // every use: it returns or unwinds only after all threads have counted themselves as
            // finished.
            next.run = unsafe { std::mem::transmute::<&(dyn Fn(&Worker) + Sync), JobFn>(job) };
            next.number = next.number.wrapping_add(1);
            s.number.store(next.number, Ordering::Release);
            s.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(&Worker { index: 0, state: s })));
        if own.is_err() {
            s.panicked.store(true, Ordering::Relaxed);
        }
        wait(|| s.finished.load(Ordering::Acquire) == s.size - 1);
        if let Err(payload) = own {
            resume_unwind(payload);
        }
        assert!(!s.panicked.load(Ordering::Relaxed), "a thread of the pool panicked");
    }
}

fn work(index: usize, state: &State) {
    let mut last = 0;
    loop {
        for _ in 0..YIELDS {
            if state.number.load(Ordering::Acquire) != last {
                break;
            }
            for _ in 0..SPIN_ITERS {
                std::hint::spin_loop();
                if state.number.load(Ordering::Relaxed) != last {
                    break;
                }
            }
            std::thread::yield_now();
        }
        let mut next = lock(&state.job);
        while next.number == last && !next.stop {
            next = state.wake.wait(next).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if next.stop {
            return;
        }
        last = next.number;
        let job = next.run;
        drop(next);
        // SAFETY: `ThreadPool::run` keeps the job alive until `finished` has counted this thread.
        let job = unsafe { &*job };
        if catch_unwind(AssertUnwindSafe(|| job(&Worker { index, state }))).is_err() {
            state.panicked.store(true, Ordering::Relaxed);
        }
        state.finished.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        lock(&self.state.job).stop = true;
        self.state.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barriers_make_writes_visible() {
        let pool = ThreadPool::new(3);
        let cells: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..50 {
            pool.run(|m| {
                for round in 1..20 {
                    cells[m.index()].store(round, Ordering::Relaxed);
                    m.barrier();
                    assert!(cells.iter().all(|c| c.load(Ordering::Relaxed) == round));
                    m.barrier();
                }
            });
        }
    }

    #[test]
    fn chunks_cover_everything_once() {
        let pool = ThreadPool::new(3);
        let seen: Vec<AtomicUsize> = (0..10).map(|_| AtomicUsize::new(0)).collect();
        pool.run(|m| {
            for i in m.chunk(10) {
                seen[i].fetch_add(1, Ordering::Relaxed);
            }
        });
        assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_panic_on_any_worker_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = ThreadPool::new(2);
        for bad in 0..2 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(|m| {
                    assert!(m.index() != bad, "on purpose");
                    m.barrier();
                });
            }));
            assert!(caught.is_err());
        }
        pool.run(|m| m.barrier());
    }
}
