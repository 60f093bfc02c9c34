//! The guard as a process of its own, for the tests of this package; the product's is `flipside guard`.

use flipside_backend_qemu::guard::{GuardOptions, run_blocking};
use flipside_model::SystemName;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [_, "guard", "--state-dir", state_dir, "--system", system] = words[..] else {
        return ExitCode::from(2);
    };
    let Ok(system) = SystemName::new(system) else {
        return ExitCode::from(2);
    };
    let state_dir = state_dir.into();
    match run_blocking(GuardOptions { state_dir, system }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
