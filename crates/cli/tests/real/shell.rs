//! A shell on a side, typed at by a program.

use super::{Lab, NAME, until};
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A shell starts in two seconds in an emulated guest.
const ANSWERS: Duration = Duration::from_secs(90);

/// Types at a shell, reads its answer, and leaves it. US-01, US-03: it needs no network in the guest.
#[track_caller]
pub(crate) fn answers(lab: &Lab, side: &str) {
    let mut child = lab
        .command(&["shell", NAME, "--side", side])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("started");
    let (mut typed, mut shown) = (
        child.stdin.take().expect("piped"),
        child.stdout.take().expect("piped"),
    );
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = {
        let heard = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = shown.read(&mut chunk) {
                heard.lock().expect("whole").extend(&chunk[..read]);
            }
        })
    };
    // The terminal echoes what is typed: the answer must be something else.
    typed
        .write_all(b"echo $((6*7))-$(id -un)\n")
        .expect("typed");
    until("the shell answers", ANSWERS, || {
        let heard = heard.lock().expect("whole");
        String::from_utf8_lossy(&heard)
            .contains("42-root")
            .then_some(())
    });
    typed.write_all(b"exit\n").expect("typed");
    until("the shell ends", ANSWERS, || {
        child.try_wait().expect("known").map(|status| {
            assert!(status.success(), "{status}");
        })
    });
    ear.join().expect("heard");
}
