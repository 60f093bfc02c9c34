//! A demo that is there already: ended, its own processes only, and removed.

use super::place::{Place, SYSTEM};
use super::process::Process;
use super::trouble::{Trouble, cannot};
use crate::client::Client;
use flipside_model::Status;
use flipside_model::api::{PowerAction, PowerRequest};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What marks a directory as one of the demo's.
const MARKER: &str = "demo.json";

/// How long the server may take to end its system.
const SERVER_ENDS_SYSTEM: Duration = Duration::from_secs(30);

/// How long a process may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// What a later demo needs to know of this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) version: u32,
    pub(super) server: Option<Process>,
    pub(super) http: u16,
    pub(super) postgres: u16,
}

impl Marker {
    const VERSION: u32 = 1;

    /// Writes it; also before there is a server, so that the directory is known as the demo's.
    pub(super) fn write(mut self, place: &Place) -> Result<(), Trouble> {
        self.version = Self::VERSION;
        let path = place.path(MARKER);
        let what = format!("write `{}`", path.display());
        let text = serde_json::to_vec_pretty(&self)
            .map_err(|error| Trouble::new(format!("cannot {what}: {error}")))?;
        std::fs::write(&path, text).map_err(cannot(what))
    }

    fn read(place: &Place) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(place.path(MARKER)).ok()?).ok()
    }
}

/// Says whether there is a demo; a directory with other things in it is refused.
pub(super) fn is_there(place: &Place) -> Result<bool, Trouble> {
    if place.path(MARKER).exists() {
        return Ok(true);
    }
    let listed = std::fs::read_dir(&place.dir);
    let mut entries = listed.map_err(cannot(format!("list `{}`", place.dir.display())))?;
    if entries.any(|entry| entry.is_ok_and(|e| e.file_name() != "demo.lock")) {
        return Err(Trouble::new(format!(
            "`{}` holds files that are not the demo's",
            place.dir.display()
        ))
        .advise("choose an empty or a new directory: `--dir DIR`"));
    }
    Ok(false)
}

/// Ends every process of the demo that is there. Returns the process ids, for the story.
pub(super) async fn end_processes(place: &Place) -> Result<Vec<i32>, Trouble> {
    let dir = &place.dir;
    let server = Marker::read(place)
        .and_then(|marker| marker.server)
        .filter(|server| server.is_alive() && server.names(dir));
    let mut ours: Vec<Process> = server.iter().cloned().collect();
    ours.extend(recorded(place));
    if server.is_some() {
        // The server does it in good order; what it leaves is ended below.
        let client = Client::new(place.socket());
        let path = format!("/v1/systems/{SYSTEM}/power");
        let kill = PowerRequest {
            action: PowerAction::Kill,
        };
        let asked = client.post::<Status>(&path, &kill);
        let _ = tokio::time::timeout(SERVER_ENDS_SYSTEM, asked).await;
    }
    // First the server, then the guard, so that nobody starts again what is ended; then what came meanwhile.
    for process in ours.iter().chain(&recorded(place)) {
        if !process.end(GRACE).await {
            return Err(Trouble::new(format!(
                "process {} of the earlier demo cannot be ended",
                process.pid()
            ))
            .advise(format!("look at it: `ps -fp {}`", process.pid())));
        }
    }
    Ok(ours.iter().map(Process::pid).collect())
}

/// Ends the server alone; a machine that is stopped has no other process.
pub(super) async fn end_server(place: &Place) -> bool {
    match Marker::read(place).and_then(|marker| marker.server) {
        Some(server) => server.end(GRACE).await,
        None => true,
    }
}

/// Finds the guard and the machines by their pid files: `systems/NAME/guard.pid` and `systems/NAME/m<N>/pid`.
fn recorded(place: &Place) -> Vec<Process> {
    let mut files = Vec::new();
    for system in directories(&place.state().join("systems")) {
        files.push(system.join("guard.pid"));
        files.extend(directories(&system).iter().map(|dir| dir.join("pid")));
    }
    files
        .iter()
        .filter_map(|file| Process::from_pid_file(file, &place.dir))
        .collect()
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Removes everything in the directory but the lock that is held, the marker last.
pub(super) fn remove_files(place: &Place) -> Result<(), Trouble> {
    let fail = |path: &Path| cannot(format!("remove `{}`", path.display()));
    let entries = std::fs::read_dir(&place.dir).map_err(fail(&place.dir))?;
    for entry in entries {
        let entry = entry.map_err(fail(&place.dir))?;
        let (name, path) = (entry.file_name(), entry.path());
        if name == "demo.lock" || name == MARKER {
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.map_err(fail(&path))?;
    }
    let marker = place.path(MARKER);
    match std::fs::remove_file(&marker) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(fail(&marker)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place::take(Some(dir.path())).expect("free");
        (dir, place)
    }

    #[test]
    fn only_a_directory_of_the_demo_is_cleared() {
        let (_dir, place) = place();
        assert!(!is_there(&place).expect("empty"));
        std::fs::write(place.path("thesis.txt"), "x").expect("written");
        let refused = is_there(&place).expect_err("somebody else's");
        assert!(refused.message.contains("not the demo's"), "{refused:?}");
        Marker::default().write(&place).expect("marked");
        assert!(is_there(&place).expect("ours"));
        remove_files(&place).expect("removed");
        assert!(!is_there(&place).expect("empty"));
        assert!(place.path("demo.lock").exists());
    }

    #[tokio::test]
    async fn what_the_pid_files_name_is_ended_and_nothing_else() {
        let (_dir, place) = place();
        let machine = place.state().join("systems/shop/m1");
        std::fs::create_dir_all(&machine).expect("made");
        // The argument after the script is where a real one has the path of its socket.
        let ours = machine.join("qmp.sock");
        let sleep = |arg: &Path| {
            tokio::process::Command::new("/bin/sh")
                .args(["-c", "while :; do sleep 1; done", "sh"])
                .arg(arg)
                .kill_on_drop(true)
                .spawn()
                .expect("sh starts")
        };
        let (mut qemu, mut stranger) = (sleep(&ours), sleep(Path::new("/other")));
        let pid = |child: &tokio::process::Child| child.id().expect("running").to_string();
        std::fs::write(machine.join("pid"), pid(&qemu)).expect("written");
        // A stale file whose number another program has now.
        let guard = machine.with_file_name("guard.pid");
        std::fs::write(guard, pid(&stranger)).expect("written");
        let ended = end_processes(&place).await.expect("ended");
        assert_eq!(ended.len(), 1);
        qemu.wait().await.expect("reaped");
        assert!(stranger.try_wait().expect("asked").is_none());
    }
}
