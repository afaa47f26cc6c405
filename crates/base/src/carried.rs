//! Changes of buffers that a training pass leaves to later ones: running statistics, power
//! iterations, queues.
//!
//! Passes of one step may run side by side, and a step may be given up. [`collect`] therefore holds
//! back what a pass changes: the pass itself sees it, no other does, and it takes place when
//! [`Changes::apply`] says so. Elsewhere changes take place at once.

use std::cell::RefCell;

use tch::{Device, Kind, TchError, Tensor};

/// Change of a buffer.
#[derive(Debug)]
pub enum Change {
    /// Replaces the value.
    Set(Tensor),
    /// Adds a value.
    Add(Tensor),
    /// Interpolates linearly towards a value, by this share.
    Blend(Tensor, f64),
    /// These become its last values, and as many of the first are dropped: (n) into a queue (m), n
    /// ≤ m or not.
    Push(Tensor),
}

impl Change {
    fn apply(&self, buffer: &mut Tensor) {
        let _guard = tch::no_grad_guard();
        match self {
            Change::Set(value) => buffer.copy_(value),
            Change::Add(value) => drop(buffer.g_add_(value)),
            Change::Blend(value, share) => drop(buffer.lerp_(value, *share)),
            Change::Push(new) => {
                let all = Tensor::cat(&[&*buffer, &new.to_kind(buffer.kind())], 0);
                let (kept, length) = (buffer.size()[0], all.size()[0]);
                buffer.copy_(&all.narrow(0, length - kept, kept));
            }
        }
    }
}

/// Changes of a pass, in order.
#[derive(Debug, Default)]
pub struct Changes(Vec<(Tensor, Change)>);

impl Changes {
    /// All their values as fp64, one after the other: codes and fp32 without loss.
    ///
    /// # Errors
    /// Returns an error if libtorch cannot convert a value.
    pub fn values(&self) -> Result<Vec<f64>, TchError> {
        let number = |(_, change): &(Tensor, Change)| {
            Vec::<f64>::try_from(change.value().to_device(Device::Cpu).to_kind(Kind::Double).reshape([-1]))
        };
        Ok(self.0.iter().map(number).collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// The same changes with the values of another pass, as [`Changes::values`] gives them.
    ///
    /// # Panics
    /// Panics if there are fewer values.
    pub fn with_values(&self, mut values: &[f64]) -> Changes {
        let mut one = |(buffer, change): &(Tensor, Change)| {
            let like = change.value();
            let (own, rest) = values.split_at(like.numel());
            values = rest;
            let value = Tensor::from_slice(own).reshape(like.size());
            (buffer.shallow_clone(), change.with(value.to_kind(like.kind()).to_device(like.device())))
        };
        Changes(self.0.iter().map(&mut one).collect())
    }

    /// Applies the changes.
    pub fn apply(self) {
        self.0.into_iter().for_each(|(mut buffer, change)| change.apply(&mut buffer));
    }
}

thread_local! {
    static COLLECTED: RefCell<Option<Changes>> = const { RefCell::new(None) };
}

impl Change {
    fn value(&self) -> &Tensor {
        match self {
            Change::Set(value) | Change::Add(value) | Change::Blend(value, _) | Change::Push(value) => value,
        }
    }

    fn with(&self, value: Tensor) -> Change {
        match self {
            Change::Set(_) => Change::Set(value),
            Change::Add(_) => Change::Add(value),
            Change::Blend(_, share) => Change::Blend(value, *share),
            Change::Push(_) => Change::Push(value),
        }
    }
}

/// Runs a pass of this thread, and returns what it would have changed.
pub fn collect<R>(pass: impl FnOnce() -> R) -> (R, Changes) {
    struct Outer(Option<Changes>);
    impl Drop for Outer {
        fn drop(&mut self) {
            COLLECTED.replace(self.0.take());
        }
    }
    let _outer = Outer(COLLECTED.replace(Some(Changes::default())));
    let result = pass();
    (result, COLLECTED.take().unwrap_or_default())
}

/// Changes a buffer, now or when the pass's changes are applied.
pub fn change(buffer: &Tensor, change: Change) {
    let buffer = buffer.shallow_clone();
    let now = COLLECTED.with_borrow_mut(|collected| match collected {
        None => Some((buffer, change)),
        Some(changes) => {
            changes.0.push((buffer, change));
            None
        }
    });
    if let Some((mut buffer, change)) = now {
        change.apply(&mut buffer);
    }
}

/// A buffer as this pass sees it: with its own changes.
pub fn value(buffer: &Tensor) -> Tensor {
    COLLECTED.with_borrow(|collected| {
        let all = collected.iter().flat_map(|c| &c.0);
        let mut own = all.filter(|(changed, _)| changed.data_ptr() == buffer.data_ptr()).peekable();
        if own.peek().is_none() {
            return buffer.shallow_clone();
        }
        let mut seen = buffer.detach().copy();
        own.for_each(|(_, change)| change.apply(&mut seen));
        seen
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t.to_kind(tch::Kind::Double)).unwrap()
    }

    #[test]
    fn a_pass_sees_its_own_changes_and_others_only_what_was_applied() {
        let buffer = Tensor::from_slice(&[1.0f32, 2.0, 3.0]);
        let pass = |to: f32| {
            collect(|| {
                change(&buffer, Change::Add(Tensor::from(1f32)));
                change(&buffer, Change::Push(Tensor::from_slice(&[to])));
                change(&buffer, Change::Blend(Tensor::from(0f32), 0.5));
                numbers(&value(&buffer))
            })
        };
        let ((first, one), (second, two)) = (pass(8.0), pass(6.0));
        assert_eq!((first, second), (vec![1.5, 2.0, 4.0], vec![1.5, 2.0, 3.0]));
        assert_eq!(numbers(&buffer), [1.0, 2.0, 3.0]);
        one.apply();
        assert_eq!(numbers(&value(&buffer)), [1.5, 2.0, 4.0]);
        two.apply();
        assert_eq!(numbers(&buffer), [1.5, 2.5, 3.0]);
        change(&buffer, Change::Set(Tensor::from_slice(&[7.0f32, 7.0, 7.0])));
        assert_eq!(numbers(&buffer), [7.0; 3]);
    }

    #[test]
    fn changes_travel_as_numbers() {
        let (buffer, queue) = (Tensor::from_slice(&[0.5f32, 2.0]), Tensor::from_slice(&[1i64, 2, 3]));
        let pass = |x: f32, code: i64| {
            let ((), changes) = collect(|| {
                change(&buffer, Change::Blend(Tensor::from_slice(&[x, 1.0 / 3.0]), 0.5));
                change(&queue, Change::Push(Tensor::from_slice(&[code])));
            });
            changes
        };
        let (own, other) = (pass(1.5, 7), pass(0.1, 1 << 40));
        assert_eq!(
            other.values().unwrap(),
            [f64::from(0.1f32), f64::from(1.0f32 / 3.0), (1u64 << 40) as f64]
        );
        own.with_values(&other.values().unwrap()).apply();
        assert_eq!(numbers(&queue), [2.0, 3.0, (1u64 << 40) as f64]);
        assert_eq!(numbers(&buffer)[0], f64::from((0.5f32 + 0.1) / 2.0));
    }

    #[test]
    fn a_pass_that_panics_changes_nothing_and_ends_its_collecting() {
        let buffer = Tensor::from(1f32);
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            collect(|| {
                change(&buffer, Change::Add(Tensor::from(1f32)));
                panic!("as libtorch does");
            })
        }));
        assert!(failed.is_err() && buffer.double_value(&[]) == 1.0);
        change(&buffer, Change::Add(Tensor::from(1f32)));
        assert_eq!(buffer.double_value(&[]), 2.0);
    }
}
