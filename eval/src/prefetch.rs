//! Reading while computing: the next batches are read and decoded on other threads while the
//! network looks at this one.

use std::sync::mpsc::sync_channel;

/// Batches that may wait to be computed on: memory is bounded by these, one that is read and one
/// that is computed on.
const AHEAD: usize = 2;

/// Hands each of `batches` (numbers of images) with what `read` makes of it to `take`, in order.
/// `read` runs on a thread of its own, ahead of `take`. Ends early when `take` returns false or
/// fails; true if it never did.
///
/// # Errors
/// Those of `take`.
pub fn prefetch<T: Send, E>(
    batches: impl Iterator<Item = Vec<u64>> + Send,
    read: impl Fn(&[u64]) -> T + Send,
    mut take: impl FnMut(Vec<u64>, T) -> Result<bool, E>,
) -> Result<bool, E> {
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel(AHEAD);
        scope.spawn(move || {
            for indices in batches {
                let read = read(&indices);
                if send.send((indices, read)).is_err() {
                    return; // nobody listens any more
                }
            }
        });
        while let Ok((indices, read)) = receive.recv() {
            if !take(indices, read)? {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn batches() -> impl Iterator<Item = Vec<u64>> + Send {
        (0..50u64).map(|i| vec![2 * i, 2 * i + 1])
    }

    #[test]
    fn batches_come_in_order_and_no_more_is_read_than_may_wait() {
        let read = AtomicUsize::new(0);
        let mut taken = vec![];
        let complete = prefetch(
            batches(),
            |indices| {
                read.fetch_add(1, Ordering::SeqCst);
                indices.iter().sum::<u64>()
            },
            |indices, sum| {
                taken.extend(indices.clone());
                assert_eq!(sum, indices.iter().sum::<u64>());
                assert!(read.load(Ordering::SeqCst) <= taken.len() / 2 + AHEAD + 1);
                Ok::<bool, ()>(true)
            },
        );
        assert_eq!(complete, Ok(true));
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn it_stops_when_told_to_and_when_something_fails() {
        let stop_at = |n: u64, end: Result<bool, &'static str>| {
            prefetch(batches(), |i| i[0], |_, first| if first == n { end } else { Ok(true) })
        };
        assert_eq!(stop_at(10, Ok(false)), Ok(false));
        assert_eq!(stop_at(10, Err("broken")), Err("broken"));
        assert_eq!(stop_at(101, Ok(false)), Ok(true));
    }
}
