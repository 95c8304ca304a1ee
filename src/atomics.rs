//! What threads share, by the names of std: the models (`models/`) put loom's in its place.
//!
//! Floor 0. Used by: `reactor::inbox`, `hub::waker`.

pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
};
