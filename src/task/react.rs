//! [`react`]: the `main` of a program that is all greenloop.
//!
//! Floor 7. Uses: `hub::try_run`.

use std::process::{ExitCode, Termination};

use crate::{Failure, RunError, try_run};

/// Runs `main` as the main greenlet, and returns the exit code of the process.
///
/// Shape: the code is that of the value: 0 for `()`, its own for an [`ExitCode`]. It is 1 when
/// `main` fails, and the failure is reported (see
/// [`set_unhandled_hook`](crate::set_unhandled_hook); to standard error, if nothing was set). It is
/// 0 when somebody stops the reactor: that is an orderly end. A `main` that ends with a value or a
/// failure after it was stopped keeps it. There is one result and one report, whatever comes first.
///
/// To wait for a Deferred or a future, wait for it: `main` may block.
///
/// # Panics
///
/// When `main` panics, with its payload. When a reactor runs on this thread already.
///
/// # Examples
///
/// ```
/// use greenloop::{Deferred, task, wait_for_deferred};
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     task::react(|| {
///         let answer = wait_for_deferred(Deferred::succeed("all is well"))?;
///         println!("{answer}");
///         Ok(())
///     })
/// }
/// ```
///
/// # Source
///
/// Twisted `task.react`.
#[track_caller]
pub fn react<T: Termination>(main: impl FnOnce() -> Result<T, Failure>) -> ExitCode {
    match try_run(main) {
        Ok(Ok(value)) => value.report(),
        Ok(Err(failure)) => fail(&failure),
        Err(RunError::Stopped) => ExitCode::SUCCESS,
        Err(error) => fail(&Failure::new(error)),
    }
}

/// Reports what ended main. Cancellations too: nobody else will tell the user why the process ends.
fn fail(failure: &Failure) -> ExitCode {
    crate::report::unhandled("the main function", failure, failure);
    ExitCode::FAILURE
}
