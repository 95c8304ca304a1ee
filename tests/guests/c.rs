//! What tests take of C's, and what lets others run.

use crate::of::Of;

pub(crate) type Mutex = Of<libc::pthread_mutex_t>;

impl Mutex {
    /// A mutex as C initialises it statically.
    pub(crate) fn new() -> Mutex {
        Of::zeroed()
    }

    pub(crate) fn lock(self) {
        // SAFETY: a mutex.
        assert_eq!(unsafe { libc::pthread_mutex_lock(self.get()) }, 0);
    }

    pub(crate) fn unlock(self) {
        // SAFETY: a mutex.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(self.get()) }, 0);
    }
}

pub(crate) type Semaphore = Of<libc::sem_t>;

impl Semaphore {
    pub(crate) fn new(value: u32) -> Semaphore {
        let semaphore = Semaphore::zeroed();
        // SAFETY: room for one.
        assert_eq!(unsafe { libc::sem_init(semaphore.get(), 0, value) }, 0);
        semaphore
    }

    pub(crate) fn wait(self) {
        // SAFETY: a semaphore.
        assert_eq!(unsafe { libc::sem_wait(self.get()) }, 0);
    }

    pub(crate) fn post(self) {
        // SAFETY: a semaphore.
        assert_eq!(unsafe { libc::sem_post(self.get()) }, 0);
    }
}

/// Lets all virtual threads of this hub run until they wait. From a greenlet.
pub(crate) fn settle() {
    for _ in 0..10 {
        greenloop::yield_now();
    }
}
