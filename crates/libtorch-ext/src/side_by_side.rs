//! Independent jobs on separate threads. An operation on small tensors loses more by synchronising
//! the threads of its parallel loop than it gains; jobs that synchronise only at their end do not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::thread::Builder;

/// A value that threads read concurrently.
struct Shared<'a, S: ?Sized>(&'a S);

// SAFETY: tch's tensors are not `Sync`, since an operation may change one in place; libtorch itself
// lets threads read a tensor, build graphs on it and differentiate them concurrently: reference
// counts are atomic, and the rest is locked. `side_by_side` requires of its callers that nothing
// else is accessed.
unsafe impl<S: ?Sized> Sync for Shared<'_, S> {}

impl<S: ?Sized> Shared<'_, S> {
    fn get(&self) -> &S {
        self.0
    }
}

/// Reorders results into the order of the jobs.
struct InOrder<R, Take> {
    next: usize,
    early: BTreeMap<usize, R>,
    take: Take,
}

impl<R, Take: FnMut(R)> InOrder<R, Take> {
    fn add(&mut self, number: usize, result: R) {
        self.early.insert(number, result);
        while let Some(result) = self.early.remove(&self.next) {
            (self.take)(result);
            self.next += 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Number of workers, at most `wanted` and at most this thread's number of threads, and number of
/// threads per worker.
pub fn split(wanted: usize) -> (usize, i32) {
    let threads = tch::get_num_threads().max(1);
    let workers = wanted.clamp(1, threads as usize);
    (workers, threads / workers as i32)
}

/// Runs `work` on each of `jobs`, with its number, on [`split`]`(workers)` threads, the caller's
/// included, and passes the results to `take` in the order of the jobs. A single worker runs the
/// jobs sequentially, with all threads.
///
/// All threads share `shared`, although it contains tensors: `work` must not change these in place,
/// and must not use anything else in `shared` that is not `Sync`.
pub fn side_by_side<S: ?Sized, J: Send, R: Send>(
    shared: &S,
    workers: usize,
    jobs: Vec<J>,
    work: impl Fn(&S, usize, J) -> R + Sync,
    mut take: impl FnMut(R) + Send,
) {
    let (workers, threads) = split(workers.min(jobs.len()));
    let jobs = jobs.into_iter().enumerate();
    if workers == 1 {
        jobs.for_each(|(number, job)| take(work(shared, number, job)));
        return;
    }
    let shared = Shared(shared);
    let jobs = Mutex::new(jobs);
    let results = Mutex::new(InOrder { next: 0, early: BTreeMap::new(), take });
    let worker = || {
        let _threads = Threads::set(threads);
        loop {
            let Some((number, job)) = lock(&jobs).next() else { break };
            let result = work(shared.get(), number, job);
            lock(&results).add(number, result);
        }
    };
    // The number of threads is thread-local; new threads start with the last one set.
    let _threads = Threads::set(threads);
    std::thread::scope(|scope| {
        for number in 1..workers {
            // If the system cannot start a thread, the others do its work.
            let _ = Builder::new().name(format!("worker-{number}")).spawn_scoped(scope, worker);
        }
        worker();
    });
}

/// Changes the number of threads of this thread's operations, until dropped.
struct Threads {
    before: i32,
}

impl Threads {
    fn set(threads: i32) -> Self {
        let before = tch::get_num_threads();
        tch::set_num_threads(threads);
        Threads { before }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        tch::set_num_threads(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn results_come_in_order_and_each_worker_has_its_share_of_the_threads() {
        let all = tch::get_num_threads();
        tch::set_num_threads(4);
        let weight = Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut taken = vec![];
        let work = |weight: &Tensor, number: usize, job: f64| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(if number == 0 { 40 } else { 10 }));
            let loss = (weight * job).square().sum(Kind::Float);
            let gradient = Tensor::run_backward(&[loss], &[weight], false, false).remove(0);
            now.fetch_sub(1, Ordering::SeqCst);
            (number, tch::get_num_threads(), gradient.double_value(&[0]))
        };
        side_by_side(&weight, 2, vec![1.0, 2.0, 3.0, 4.0], work, |r| taken.push(r));
        assert_eq!(taken, [(0, 2, 2.0), (1, 2, 8.0), (2, 2, 18.0), (3, 2, 32.0)]);
        assert_eq!((most.into_inner(), tch::get_num_threads()), (2, 4));

        tch::set_num_threads(1);
        let mut alone = vec![];
        side_by_side(&(), 2, vec![(), ()], |_, _, ()| std::thread::current().id(), |id| alone.push(id));
        assert_eq!(alone, [std::thread::current().id(); 2]);
        tch::set_num_threads(all);
    }
}
