//! The guide: pages to read, no code to call.
//!
//! Floor 9. Used by: people.
//!
//! | page | for whom |
//! |---|---|
//! | [`coming_from_gevent`] | who knows gevent: its names, ours, and what differs |

#[doc = include_str!("coming_from_gevent.md")]
pub mod coming_from_gevent {}
