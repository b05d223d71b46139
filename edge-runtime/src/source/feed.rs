//! A source on its own thread behind a bounded queue: late frames are left out and counted, never piled up.

use super::{Frame, Item, Source, Stop};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the source's thread waits for room before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// What the queue holds and for how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Frames that may wait, at least 1.
    pub depth: usize,
    /// Takes every frame of a live source too; whoever sends them then waits.
    pub every: bool,
    /// A frame of a live source that is older than this when its turn comes is left out.
    pub deadline: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 4, every: false, deadline: None }
    }
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// A frame or the source's trouble.
    Item(Item),
    /// Nothing in the time given.
    Idle,
    /// The source has ended.
    End,
}

/// See the module's first paragraph.
pub struct Feed {
    shared: Arc<Shared>,
    limits: Limits,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Item>,
    live: bool,
    ended: bool,
    dropped: u64,
    late: u64,
}

impl Feed {
    /// Starts the source's thread. It ends with the source or after `stop`; one that waits in the system for a pipe that
    /// says nothing is left behind.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(mut source: Box<dyn Source>, limits: Limits, stop: Stop) -> Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() });
        let (theirs, depth, every) = (shared.clone(), limits.depth.max(1), limits.every);
        let work = move || {
            let ended = Ended(theirs);
            let theirs = &ended.0;
            while let Some(item) = source.next(&stop) {
                let live = source.live();
                theirs.lock().live = live;
                if !theirs.push(item, live && !every, depth, &stop) {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("source".into()).spawn(work);
        thread
            .map_err(|e| Error::Source { name: "the source".into(), reason: format!("no thread to read on: {e}") })?;
        Ok(Self { shared, limits })
    }

    /// The next item, waiting at most so long.
    pub fn next(&self, wait: Duration) -> Next {
        let mut queue = self.shared.lock();
        loop {
            match queue.waiting.pop_front() {
                Some(Item::Frame(frame)) if queue.live && self.is_late(&frame) => queue.late += 1,
                Some(item) => {
                    drop(queue);
                    self.shared.changed.notify_all();
                    return Next::Item(item);
                }
                None if queue.ended => return Next::End,
                None => {
                    let (back, waited) =
                        self.shared.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner);
                    queue = back;
                    if waited.timed_out() && queue.waiting.is_empty() && !queue.ended {
                        return Next::Idle;
                    }
                }
            }
        }
    }

    /// Whether the source goes on whether or not anyone keeps up; not known before its first frame.
    pub fn live(&self) -> bool {
        self.shared.lock().live
    }

    /// Frames left out because newer ones found no room.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Frames left out because they were older than the deadline.
    pub fn late(&self) -> u64 {
        self.shared.lock().late
    }

    fn is_late(&self, frame: &Frame) -> bool {
        self.limits.deadline.is_some_and(|deadline| frame.arrived.elapsed() > deadline)
    }
}

/// Says that the source has ended, however it did.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With `drops`, the oldest frame makes room; otherwise it waits for some. False when it is to end instead.
    fn push(&self, item: Item, drops: bool, depth: usize, stop: &Stop) -> bool {
        let mut queue = self.lock();
        while queue.waiting.len() >= depth {
            // What is said of the source stays; frames make room, the oldest first.
            let oldest = queue.waiting.iter().position(|i| matches!(i, Item::Frame(_)));
            match oldest.filter(|_| drops) {
                Some(at) => {
                    queue.waiting.remove(at);
                    queue.dropped += 1;
                }
                None if stop.is_set() => return false,
                None => queue = self.changed.wait_timeout(queue, LOOK).unwrap_or_else(PoisonError::into_inner).0,
            }
        }
        queue.waiting.push_back(item);
        drop(queue);
        self.changed.notify_all();
        true
    }
}
