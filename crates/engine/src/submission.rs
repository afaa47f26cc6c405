//! Events of a request, from the engine's threads to whoever asked.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::api::Event;

/// An accepted request. Dropping it cancels, at the next step, those of its images that are not
/// done.
#[derive(Debug)]
pub struct Submission {
    events: UnboundedReceiver<Event>,
}

impl Submission {
    /// Waits for the next event; `None` after the last image is done or failed.
    ///
    /// # Panics
    /// Panics on a thread of an async runtime, which it would block.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }

    /// The next event; `None` after the last image is done or failed.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// The sending end, one for each image.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    events: UnboundedSender<Event>,
}

impl Reply {
    /// Both ends of a request's events.
    pub fn channel() -> (Reply, Submission) {
        let (sender, receiver) = unbounded_channel();
        (Reply { events: sender }, Submission { events: receiver })
    }

    /// Sends an event, which is lost if the request is cancelled.
    pub fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Whether nobody waits for the image any more.
    pub fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }
}
