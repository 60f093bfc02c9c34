//! The guard as a process of its own: its limits, and its one line to whoever started it.

use super::error::GuardError;
use super::limits::DESCRIPTORS;
use super::wire::{Started, line};
use flipside_model::Problem;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write;

/// Prepares the process: enough descriptors for its connections, and no core dumps, for clients' data pass through
/// it. Both are best effort.
pub(super) fn prepare() {
    let files = getrlimit(Resource::Nofile);
    let enough = files.current.is_none_or(|now| now >= DESCRIPTORS);
    if !enough {
        let current = Some(
            files
                .maximum
                .map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS)),
        );
        let wanted = Rlimit {
            current,
            maximum: files.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let dumps = setrlimit(Resource::Core, none)
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = dumps {
        tracing::warn!(%error, "core dumps could not be turned off");
    }
}

/// Tells whoever started the process how it went, then gives standard output up.
pub(super) fn report(started: Result<(), &GuardError>) {
    let message = match started {
        Ok(()) => Started::Ready,
        Err(error) => Started::Failed(Problem::from(error)),
    };
    let mut out = std::io::stdout().lock();
    // Whoever started it may have gone: then nobody wants to know.
    let _ = out.write_all(&line(&message)).and_then(|()| out.flush());
    let _ = rustix::stdio::dup2_stdout(std::io::stderr());
}
