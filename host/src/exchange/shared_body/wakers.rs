//! The tasks that wait for the next frame of one body.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// A place for each reader's waker. As a waker itself, it wakes all of them.
#[derive(Default)]
pub(crate) struct Wakers(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    wakers: Vec<Slot>,
    /// Places that no reader has.
    free: Vec<usize>,
}

/// A reader's waker, while it waits.
type Slot = Option<Waker>;

impl Wakers {
    /// A place for a reader.
    pub(crate) fn enter(&self) -> usize {
        let mut slots = self.lock();
        slots.free.pop().unwrap_or_else(|| {
            slots.wakers.push(None);
            slots.wakers.len() - 1
        })
    }

    /// The reader is gone. The next reader gets its place.
    pub(crate) fn leave(&self, place: usize) {
        let mut slots = self.lock();
        slots.wakers[place] = None;
        slots.free.push(place);
    }

    /// Registers a waiting reader, in the same time for any number of readers.
    pub(crate) fn wait(&self, place: usize, waker: &Waker) {
        match &mut self.lock().wakers[place] {
            Some(known) => known.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }

    /// Wakes all waiting readers except one, which runs already.
    pub(crate) fn wake_others(&self, place: usize) {
        self.lock().wakers[place] = None;
        self.wake_all();
    }

    /// Wakes and unregisters all waiting readers.
    pub(crate) fn wake_all(&self) {
        // Woken outside the lock, because a waker may do anything.
        let woken: Vec<Waker> = {
            let mut slots = self.lock();
            slots.wakers.iter_mut().filter_map(Option::take).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(tasks: &[Arc<Count>]) -> Vec<usize> {
        let woken = |task: &Arc<Count>| task.0.load(Ordering::Relaxed);
        tasks.iter().map(woken).collect()
    }

    #[test]
    fn each_that_waits_is_woken_once() {
        let wakers = Wakers::default();
        let tasks: Vec<_> = (0..4).map(|_| Arc::new(Count::default())).collect();
        let places: Vec<_> = tasks.iter().map(|_| wakers.enter()).collect();
        for (task, &place) in tasks.iter().zip(&places).take(3) {
            let waker = Waker::from(Arc::clone(task));
            wakers.wait(place, &waker);
            wakers.wait(place, &waker);
        }
        wakers.wake_others(places[1]);
        assert_eq!(count(&tasks), [1, 0, 1, 0]);
        wakers.wake_all();
        assert_eq!(count(&tasks), [1, 0, 1, 0]);
    }

    /// A reader that moves to another task is woken there.
    #[test]
    fn the_last_waker_of_a_reader_counts() {
        let wakers = Wakers::default();
        let tasks = [Arc::new(Count::default()), Arc::new(Count::default())];
        let place = wakers.enter();
        for task in &tasks {
            wakers.wait(place, &Waker::from(Arc::clone(task)));
        }
        wakers.wake_all();
        assert_eq!(count(&tasks), [0, 1]);
    }

    /// Each reader was compared with every other waiting reader, at each frame.
    #[test]
    fn a_herd_takes_one_place_each_and_leaves_none() {
        let wakers = Wakers::default();
        let task = Arc::new(Count::default());
        for _ in 0..3 {
            let places: Vec<_> = (0..1000).map(|_| wakers.enter()).collect();
            for &place in &places {
                wakers.wait(place, &Waker::from(Arc::clone(&task)));
            }
            // A place each, though all have the same waker: nothing was compared.
            assert_eq!(wakers.lock().wakers.len(), 1000);
            assert_eq!(Arc::strong_count(&task), 1001);
            places.into_iter().for_each(|place| wakers.leave(place));
            assert_eq!(Arc::strong_count(&task), 1);
        }
        assert_eq!(wakers.lock().free.len(), 1000);
    }
}
