//! A bounded queue of work with deadlines, and batches out of it.
//!
//! Promises: never more than its capacity in pictures waits, what does not fit is refused at once, and what nobody waits
//! for any longer is dropped before it costs an inference. Work leaves in order of arrival.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Something that waits.
pub trait Waiting {
    /// Pictures it holds, at least 1.
    fn pictures(&self) -> usize;
    /// Whether someone still wants the answer.
    fn wanted(&self, now: Instant) -> bool;
}

/// Why something was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no room.
    Full,
    /// The queue is closed: the service ends.
    Closed,
}

/// How batches are formed.
#[derive(Debug, Clone, Copy)]
pub struct Batching {
    /// Most pictures of a batch.
    pub most: usize,
    /// Longest time the first picture of a batch waits for others.
    pub delay: Duration,
    /// Workers that share what waits.
    pub workers: usize,
}

/// See the module's first paragraph.
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    arrived: Condvar,
    capacity: usize,
}

struct Inner<T> {
    waiting: VecDeque<T>,
    pictures: usize,
    closed: bool,
}

impl<T: Waiting> Queue<T> {
    /// An empty queue for so many pictures.
    pub fn new(capacity: usize) -> Self {
        let inner = Inner { waiting: VecDeque::new(), pictures: 0, closed: false };
        Self { inner: Mutex::new(inner), arrived: Condvar::new(), capacity }
    }

    /// Takes something in. What is larger than the whole queue gets in when nothing else waits.
    ///
    /// # Errors
    /// When there is no room or the queue is closed.
    pub fn push(&self, item: T) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        if inner.pictures > 0 && inner.pictures + item.pictures() > self.capacity {
            return Err(Refused::Full);
        }
        inner.pictures += item.pictures();
        inner.waiting.push_back(item);
        drop(inner);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next batch, waiting for it; none when the queue is closed and empty.
    ///
    /// A batch takes a worker's share of what waits and no more: on cores of their own, two workers with four pictures
    /// each are done before one with eight.
    pub fn batch(&self, batching: &Batching) -> Option<Vec<T>> {
        let mut inner = self.lock();
        loop {
            self.forget_unwanted(&mut inner);
            if !inner.waiting.is_empty() {
                break;
            }
            if inner.closed {
                return None;
            }
            inner = self.arrived.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let first = Instant::now();
        while inner.pictures < batching.most && !inner.closed {
            let left = batching.delay.saturating_sub(first.elapsed());
            if left.is_zero() {
                break;
            }
            inner = self.arrived.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let share = inner.pictures.div_ceil(batching.workers.max(1)).min(batching.most);
        let mut batch = Vec::new();
        let mut taken = 0;
        while let Some(item) = inner.waiting.front() {
            if !batch.is_empty() && taken + item.pictures() > share {
                break;
            }
            taken += item.pictures();
            batch.extend(inner.waiting.pop_front());
        }
        inner.pictures -= taken;
        // The one waking up was this worker; others may have something to do too.
        if !inner.waiting.is_empty() {
            self.arrived.notify_one();
        }
        Some(batch)
    }

    /// Pictures that wait.
    pub fn len(&self) -> usize {
        self.lock().pictures
    }

    /// Takes nothing in any more; what waits is still handed out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn forget_unwanted(&self, inner: &mut Inner<T>) {
        let now = Instant::now();
        inner.waiting.retain(|item| item.wanted(now));
        inner.pictures = inner.waiting.iter().map(T::pictures).sum();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    #[derive(Debug, PartialEq)]
    struct Item(usize, bool);

    impl Waiting for Item {
        fn pictures(&self) -> usize {
            self.0
        }
        fn wanted(&self, _: Instant) -> bool {
            self.1
        }
    }

    const AT_ONCE: Batching = Batching { most: 8, delay: Duration::ZERO, workers: 1 };

    #[test]
    fn it_is_bounded_in_pictures_and_keeps_the_order() {
        let queue = Queue::new(4);
        queue.push(Item(1, true)).unwrap();
        queue.push(Item(3, true)).unwrap();
        assert_eq!(queue.push(Item(1, true)), Err(Refused::Full));
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.batch(&AT_ONCE), Some(vec![Item(1, true), Item(3, true)]));
        queue.push(Item(9, true)).unwrap();
        assert_eq!(queue.batch(&AT_ONCE), Some(vec![Item(9, true)]), "alone, even what is too large gets through");
    }

    #[test]
    fn what_nobody_wants_is_dropped_and_makes_room() {
        let queue = Queue::new(4);
        queue.push(Item(3, false)).unwrap();
        queue.push(Item(1, true)).unwrap();
        assert_eq!(queue.batch(&AT_ONCE), Some(vec![Item(1, true)]));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn workers_share_what_waits() {
        let queue = Queue::new(8);
        (0..8).for_each(|_| queue.push(Item(1, true)).unwrap());
        let two = Batching { workers: 2, ..AT_ONCE };
        assert_eq!(queue.batch(&two).unwrap().len(), 4);
        assert_eq!(queue.batch(&Batching { most: 3, ..AT_ONCE }).unwrap().len(), 3);
    }

    #[test]
    fn a_closed_queue_is_emptied_and_then_ends() {
        let queue = Arc::new(Queue::new(8));
        queue.push(Item(1, true)).unwrap();
        queue.close();
        assert_eq!(queue.push(Item(1, true)), Err(Refused::Closed));
        assert_eq!(queue.batch(&AT_ONCE).unwrap().len(), 1);
        assert_eq!(queue.batch(&AT_ONCE), None);

        let waiting: Arc<Queue<Item>> = Arc::new(Queue::new(1));
        let worker = std::thread::spawn({
            let queue = waiting.clone();
            move || queue.batch(&AT_ONCE)
        });
        waiting.close();
        assert_eq!(worker.join().unwrap(), None);
    }
}
