//! What greenloop takes from std, made of loom's.
//!
//! loom takes sequentially consistent accesses for acquire and release ones, and would report
//! executions that cannot happen; its fences are as strong as they should be. So here such an
//! access has a fence on the side where it would be one on a processor.

pub(crate) use loom::sync::{
    Arc,
    atomic::{Ordering, fence},
};

fn fence_for(order: Ordering) {
    if order == Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
}

macro_rules! atomic {
    ($name:ident $(<$of:ident>)?, $value:ty) => {
        pub(crate) struct $name$(<$of>)?(loom::sync::atomic::$name$(<$of>)?);

        impl$(<$of>)? $name$(<$of>)? {
            pub(crate) fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                fence_for(order);
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, order);
                fence_for(order);
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                fence_for(order);
                let before = self.0.swap(value, order);
                fence_for(order);
                before
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                fence_for(success);
                let before = self.0.compare_exchange(current, new, success, failure);
                fence_for(success);
                before
            }
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
atomic!(AtomicPtr<T>, *mut T);

macro_rules! counter {
    ($name:ident, $value:ty) => {
        impl $name {
            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_add(value, order)
            }

            pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_sub(value, order)
            }
        }
    };
}

counter!(AtomicU32, u32);
counter!(AtomicU64, u64);
