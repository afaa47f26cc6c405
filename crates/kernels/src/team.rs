//! Threads that walk through one job in step.
//!
//! A decode step is some fifty pieces of work of a tenth of a millisecond, one after the other. Handing each to a
//! pool would cost as much as the work; here every thread runs the whole step and meets the others at barriers.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// How often a waiting thread looks before it lets others run; a few microseconds.
const LOOKS: u32 = 1 << 10;
/// How often an idle worker lets others run before it sleeps; well below a millisecond on an idle machine.
const YIELDS: u32 = 1 << 6;

type Job = *const (dyn Fn(&Member) + Sync);

struct Order {
    job: Job,
    number: usize,
    stop: bool,
}

// SAFETY: the pointer is followed only while `Team::run`, which owns what it points at, waits for the workers.
unsafe impl Send for Order {}

struct State {
    order: Mutex<Order>,
    wake: Condvar,
    /// The number of the last order, also readable without the lock.
    number: AtomicUsize,
    /// Workers that are through with it.
    finished: AtomicUsize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    panicked: AtomicBool,
    size: usize,
}

/// One thread's place in the team.
pub struct Member<'a> {
    index: usize,
    state: &'a State,
}

impl Member<'_> {
    /// Which of [`Member::count`] it is; 0 is the caller's own thread.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Members of the team.
    pub fn count(&self) -> usize {
        self.state.size
    }

    /// This member's share of `0..n`: contiguous, and as even as can be.
    pub fn share(&self, n: usize) -> std::ops::Range<usize> {
        n * self.index / self.state.size..n * (self.index + 1) / self.state.size
    }

    /// Waits for all members; what they wrote before is seen after.
    ///
    /// # Panics
    /// If another member panicked.
    pub fn barrier(&self) {
        let s = self.state;
        let round = s.round.load(Ordering::Acquire);
        if s.arrived.fetch_add(1, Ordering::AcqRel) + 1 == s.size {
            s.arrived.store(0, Ordering::Relaxed);
            s.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        wait(|| {
            assert!(!s.panicked.load(Ordering::Relaxed), "another member of the team panicked");
            s.round.load(Ordering::Acquire) != round
        });
    }
}

/// Looks until `done`, first busily, then letting others run in between.
fn wait(done: impl Fn() -> bool) {
    loop {
        for _ in 0..LOOKS {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        std::thread::yield_now();
    }
}

/// A fixed number of threads, the caller's among them. The others sleep while there is nothing to do.
pub struct Team {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    /// One job at a time.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({})", self.state.size)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Team {
    /// A team of `size` threads, at least one. Where the system gives fewer, the team is smaller.
    pub fn new(size: usize) -> Self {
        let mut size = size.max(1);
        loop {
            match Team::of(size) {
                Some(team) => return team,
                None => size -= 1, // 1 always works: it starts no thread
            }
        }
    }

    /// The team of `size` threads that kernels without one of their own share; made when first asked for.
    pub fn shared(size: usize) -> Arc<Team> {
        static TEAM: Mutex<Option<(usize, Arc<Team>)>> = Mutex::new(None);
        let mut place = lock(&TEAM);
        match &*place {
            Some((asked, team)) if *asked == size => Arc::clone(team),
            _ => {
                let team = Arc::new(Team::new(size));
                *place = Some((size, Arc::clone(&team)));
                team
            }
        }
    }

    fn of(size: usize) -> Option<Self> {
        let nothing: &'static (dyn Fn(&Member) + Sync) = &|_| ();
        let state = Arc::new(State {
            order: Mutex::new(Order { job: nothing, number: 0, stop: false }),
            wake: Condvar::new(),
            number: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            size,
        });
        let mut team = Team { state, workers: vec![], turn: Mutex::new(()) };
        for index in 1..size {
            let state = Arc::clone(&team.state);
            let worker = std::thread::Builder::new().name(format!("kernels-{index}"));
            // Dropping the smaller team ends the workers that did start.
            team.workers.push(worker.spawn(move || work(index, &state)).ok()?);
        }
        Some(team)
    }

    /// Members, the caller's thread among them.
    pub fn size(&self) -> usize {
        self.state.size
    }

    /// Runs `job` on every member and waits for all.
    ///
    /// # Panics
    /// If the job panics on any of them.
    pub fn run(&self, job: impl Fn(&Member) + Sync) {
        let _turn = lock(&self.turn);
        let s = &*self.state;
        s.finished.store(0, Ordering::Relaxed);
        s.arrived.store(0, Ordering::Relaxed);
        s.panicked.store(false, Ordering::Relaxed);
        let job: &(dyn Fn(&Member) + Sync) = &job;
        if s.size > 1 {
            let mut order = lock(&s.order);
            // SAFETY: only the lifetime changes. `job` outlives this call, and this call outlives every use: it
            // returns or unwinds only after all workers have said that they are through.
            order.job = unsafe { std::mem::transmute::<&(dyn Fn(&Member) + Sync), Job>(job) };
            order.number = order.number.wrapping_add(1);
            s.number.store(order.number, Ordering::Release);
            s.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(&Member { index: 0, state: s })));
        if own.is_err() {
            s.panicked.store(true, Ordering::Relaxed);
        }
        wait(|| s.finished.load(Ordering::Acquire) == s.size - 1);
        if let Err(payload) = own {
            resume_unwind(payload);
        }
        assert!(!s.panicked.load(Ordering::Relaxed), "a thread of the team panicked");
    }
}

fn work(index: usize, state: &State) {
    let mut last = 0;
    loop {
        for _ in 0..YIELDS {
            if state.number.load(Ordering::Acquire) != last {
                break;
            }
            for _ in 0..LOOKS {
                std::hint::spin_loop();
                if state.number.load(Ordering::Relaxed) != last {
                    break;
                }
            }
            std::thread::yield_now();
        }
        let mut order = lock(&state.order);
        while order.number == last && !order.stop {
            order = state.wake.wait(order).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if order.stop {
            return;
        }
        last = order.number;
        let job = order.job;
        drop(order);
        // SAFETY: `Team::run` keeps the job alive until `finished` has counted this worker.
        let job = unsafe { &*job };
        if catch_unwind(AssertUnwindSafe(|| job(&Member { index, state }))).is_err() {
            state.panicked.store(true, Ordering::Relaxed);
        }
        state.finished.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        lock(&self.state.order).stop = true;
        self.state.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_meet_at_barriers_and_see_what_others_wrote() {
        let team = Team::new(3);
        let cells: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..50 {
            team.run(|m| {
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
    fn shares_cover_everything_once() {
        let team = Team::new(3);
        let seen: Vec<AtomicUsize> = (0..10).map(|_| AtomicUsize::new(0)).collect();
        team.run(|m| {
            for i in m.share(10) {
                seen[i].fetch_add(1, Ordering::Relaxed);
            }
        });
        assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_panic_on_any_member_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(2);
        for bad in 0..2 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                team.run(|m| {
                    assert!(m.index() != bad, "on purpose");
                    m.barrier();
                });
            }));
            assert!(caught.is_err());
        }
        team.run(|m| m.barrier());
    }
}
