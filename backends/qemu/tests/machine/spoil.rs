//! Spoils every command of an operation in turn, and says what has to come of it.

use super::proxy::{Proxy, Spoil, is_query};
use flipside_platform::{PortError, PortErrorKind, PortResult};
use std::time::Instant;

/// More commands than any operation has.
const ENDLESS: usize = 200;

/// A reply cut in half ends a connection as one that is lost; it is tried with one operation only.
const ALL: [Spoil; 3] = [Spoil::Refuse, Spoil::LoseReply, Spoil::CutReply];

/// An operation whose commands are spoiled one by one.
pub(crate) struct Operation<'a> {
    pub(crate) name: &'a str,
    /// What may be sent after a failure: it takes back what was done, or leads on where that is right.
    pub(crate) undo: &'a [&'a str],
    /// Commands whose failure does not fail the operation.
    pub(crate) harmless: &'a [&'a str],
}

pub(crate) fn named(error: &PortError, command: &str) -> bool {
    let said = |text: &String| text.contains(command);
    said(&error.message) || error.causes.iter().any(said)
}

/// Spoils the Nth command of an operation for every N until there is none; returns how many cases that were.
pub(crate) async fn spoil_each(
    proxy: &Proxy,
    operation: Operation<'_>,
    arrange: impl AsyncFn(),
    act: impl AsyncFn() -> PortResult<()>,
    check: impl AsyncFn(),
) -> usize {
    let mut cases = 0;
    let spoils: &[Spoil] = if operation.name == "pause" {
        &ALL
    } else {
        &ALL[..2]
    };
    for spoil in spoils.iter().copied() {
        for number in 0..ENDLESS {
            let begun = Instant::now();
            arrange().await;
            proxy.arm(number, spoil);
            let outcome = act().await;
            let Some((command, later)) = proxy.disarm() else {
                outcome.unwrap_or_else(|e| panic!("{} without a fault: {e:?}", operation.name));
                check().await;
                break;
            };
            cases += 1;
            let case = format!("{}, {spoil:?} {number} `{command}`", operation.name);
            match &outcome {
                Ok(()) => assert!(operation.harmless.contains(&command.as_str()), "{case}"),
                Err(error) if spoil == Spoil::Refuse => {
                    assert!(named(error, &command), "{case}: {error:?}");
                }
                Err(error) => assert_eq!(error.kind, PortErrorKind::TimedOut, "{case}: {error:?}"),
            }
            // Fault 30: after a failure nothing of the step is done any more.
            if outcome.is_err() {
                let on =
                    |later: &&String| !is_query(later) && !operation.undo.contains(&later.as_str());
                assert_eq!(later.iter().find(on), None, "{case}: {later:?}");
            }
            // Fault 31: what was done already is found, not done twice.
            if let Err(again) = act().await {
                panic!("{case}, then again: {again:?}\nfirst: {outcome:?}");
            }
            check().await;
            println!("{case}: {} ms", begun.elapsed().as_millis());
        }
    }
    println!("{}: {cases} cases", operation.name);
    assert!(cases > 0);
    cases
}
