//! Turns at the processor.
//!
//! On the CPU, a step of the transformer and the tokenizer's decoding both use all threads that the
//! program may have, and their loops wait for one another at every barrier: side by side they take
//! more than twice the time of one after the other. So they take turns, in the order in which they
//! ask. A GPU orders the work itself.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A lock that is given in the order of asking.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    tickets: Mutex<Tickets>,
    next: Condvar,
}

#[derive(Debug, Default)]
struct Tickets {
    given: u64,
    served: u64,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for a turn.
    pub fn take(&self) -> Turn<'_> {
        let mut tickets = self.tickets();
        let own = tickets.given;
        tickets.given += 1;
        while tickets.served < own {
            tickets = self.next.wait(tickets).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.tickets().served += 1;
        self.0.next.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_at_a_time_and_nobody_is_passed_over() {
        let (turns, inside, most) = (Turns::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let taken = Mutex::new(vec![]);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (turns, inside, most, taken) = (&turns, &inside, &most, &taken);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let _turn = turns.take();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_micros(300));
                        taken.lock().unwrap().push(thread);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 1);
        let changes = taken.into_inner().unwrap().windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes > 20, "{changes} changes in 100 turns");
    }
}
