//! What threads share, by the names of std: the models (`models/`) put loom's in its place.
//!
//! Floor 0. Used by: `reactor::inbox`, `hub::waker`, `interpose::queue`.

pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence},
};
