//! What a Failure tells and keeps.

use super::super::{Abandoned, Cancelled, Failure};
use std::error::Error;
use std::fmt;
use std::io;

#[derive(Debug)]
struct Outer(io::Error);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot load")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn outer() -> Outer {
    Outer(io::Error::new(io::ErrorKind::NotFound, "no file"))
}

/// It crosses threads, and is one pointer.
#[test]
fn a_failure_is_send_and_sync_and_one_pointer() {
    fn check<T: Send + Sync>() {}
    check::<Failure>();
    assert_eq!(size_of::<Failure>(), size_of::<usize>());
    assert_eq!(size_of::<Result<(), Failure>>(), size_of::<usize>());
}

/// D10: the value and its type.
#[test]
fn a_failure_keeps_the_type_and_the_value_of_its_error() {
    let failure = Failure::from(outer());
    assert!(failure.is::<Outer>() && !failure.is::<io::Error>() && !failure.is_cancelled());
    assert!(failure.downcast_ref::<Outer>().is_some_and(|e| e.0.kind() == io::ErrorKind::NotFound));
    assert!(failure.error().is_some() && failure.panic_message().is_none());
    let failure = failure.downcast::<io::Error>().expect_err("it is another type");
    assert_eq!(failure.downcast::<Outer>().expect("its type").0.to_string(), "no file");
}

#[test]
fn display_is_one_line_with_the_causes() {
    assert_eq!(Failure::new(outer()).to_string(), "cannot load: no file");
    assert_eq!(Failure::msg(format_args!("{} left", 3)).to_string(), "3 left");
    assert!(format!("{:?}", Failure::msg("x")).starts_with("Failure(x"));
    for text in [Cancelled.to_string(), Abandoned.to_string()] {
        assert!(text.starts_with(char::is_lowercase) && !text.ends_with('.'), "{text}");
    }
}

#[test]
fn a_panic_keeps_its_text_its_place_and_its_payload() {
    let place = Some("src/x.rs:1:2".to_owned());
    let failure = Failure::from_panic(Box::new("static"), place, Some("frames".to_owned()));
    assert_eq!(failure.panic_message(), Some("static"));
    assert_eq!(failure.place(), Some("src/x.rs:1:2"));
    assert!(failure.error().is_none() && !failure.is::<Cancelled>());
    assert_eq!(format!("{failure:?}"), "Failure(panicked: static, at src/x.rs:1:2\nframes)");
    assert_eq!(failure.into_panic().expect("a panic").downcast_ref(), Some(&"static"));
    let failure = Failure::from_panic(Box::new("owned".to_owned()), None, None);
    assert_eq!(failure.panic_message(), Some("owned"));
    let failure = Failure::from_panic(Box::new(17), None, None);
    assert_eq!(failure.to_string(), "panicked: a payload that is not text");
    assert!(Failure::new(Cancelled).into_panic().is_err());
}

#[test]
fn a_failure_leaves_as_a_boxed_error() {
    fn fails() -> Result<(), Box<dyn Error + Send + Sync>> {
        Err(Failure::new(outer()))?
    }
    assert!(fails().expect_err("it fails").is::<Outer>());
    let panic: Box<dyn Error + Send + Sync> = Failure::from_panic(Box::new("p"), None, None).into();
    assert_eq!(panic.to_string(), "panicked: p");
}
