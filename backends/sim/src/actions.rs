//! Custom actions and log backup in the simulated guest and on the simulated host.
//!
//! The program of an action is a file of the guest's system disk (so each side has its own) or of the host. Its text is a
//! script of one word a line: `out TEXT`, `err TEXT`, `sleep SECONDS`, `exit VALUE`; `mode 644` and `owner other` say
//! what can be seen of the file. The programs of `flipside run` can be actions too.

use crate::guest_model::Exec;
use crate::state::{Part, State};
use flipside_model::{DiskRole, FileKind, FileView, LogCopy, LogSelection, LogSource, MachineId};
use flipside_platform::{
    ActionRequest, DiskSource, ExecOutput, ExecRequest, LogRequest, PortError, PortResult,
};
use std::time::Duration;
use tokio::time::Instant;

/// Programs that every guest and the host have.
const BUILT_IN: [&str; 6] = ["true", "false", "echo", "cat", "env", "sleep"];

/// A custom action that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimAction {
    /// Its number.
    pub handle: u64,
    /// The machine in which it ran; none for the host.
    pub machine: Option<MachineId>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Whether two machines ran at that moment.
    pub two_run: bool,
    /// The version of the software on the disk of the machine.
    pub version: String,
    /// Whether it was ended from outside.
    pub killed: bool,
}

impl SimAction {
    /// Returns a variable of its environment.
    pub fn var(&self, name: &str) -> &str {
        let found = self.env.iter().find(|(n, _)| n == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Logs that were saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimLogs {
    /// From which machine.
    pub machine: MachineId,
    /// Where to.
    pub target: String,
    /// Which.
    pub logs: Vec<LogSelection>,
    /// Whether the moment of the split was known.
    pub marked: bool,
}

fn script(bytes: &[u8]) -> (Vec<u8>, Vec<u8>, u64, i32) {
    let (mut out, mut err, mut seconds, mut exit) = (Vec::new(), Vec::new(), 0, 0);
    for line in String::from_utf8_lossy(bytes).lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "out" => out.extend(format!("{rest}\n").bytes()),
            "err" => err.extend(format!("{rest}\n").bytes()),
            "sleep" => seconds = rest.parse().unwrap_or(0),
            "exit" => exit = rest.parse().unwrap_or(0),
            _ => {}
        }
    }
    (out, err, seconds, exit)
}

/// Enough of a fingerprint for a simulation.
fn fingerprint(bytes: &[u8]) -> String {
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    format!("{sum:064x}")
}

fn built_in(path: &str) -> bool {
    let name = path.strip_prefix("/usr").unwrap_or(path);
    name.strip_prefix("/bin/")
        .is_some_and(|name| BUILT_IN.contains(&name))
}

fn file_view(path: &str, bytes: &[u8]) -> FileView {
    let text = String::from_utf8_lossy(bytes);
    let says = |line: &str| text.lines().any(|l| l == line);
    FileView {
        kind: FileKind::Regular,
        executable: !says("mode 644"),
        writable: true,
        sha256: fingerprint(bytes),
        filesystem: "ext4".to_owned(),
        flaw: says("owner other").then(|| "it belongs to user 1000".to_owned()),
        ..FileView::missing(path)
    }
}

fn is_under(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl State {
    pub(crate) fn look_at(
        &mut self,
        id: MachineId,
        paths: &[String],
        part: &mut Part,
    ) -> PortResult<Vec<FileView>> {
        let config = self.guest_config(id)?;
        let mounts = self.guest(id, part)?.mounts.clone();
        let root = self.root_disk().map(String::from).unwrap_or_default();
        let view = |path: &String| {
            let mount = mounts.iter().find(|(target, _)| is_under(path, target));
            let disk = mount.map_or(root.clone(), |(_, m)| m.disk.as_str().to_owned());
            let log = self.options.logs.iter().any(|l| l.log.to_string() == *path);
            let mut view = match config.files.get(path) {
                Some(bytes) => file_view(path, bytes),
                None if built_in(path) => file_view(path, path.as_bytes()),
                None if log => file_view(path, b""),
                None if mount.is_some() => FileView {
                    kind: FileKind::Directory,
                    executable: true,
                    writable: true,
                    filesystem: "ext4".to_owned(),
                    ..FileView::missing(path)
                },
                None => return FileView::missing(path),
            };
            view.disk = disk;
            view
        };
        Ok(paths.iter().map(view).collect())
    }

    pub(crate) fn look_at_host(&self, paths: &[String]) -> Vec<FileView> {
        let view = |path: &String| match self.host_files.get(path) {
            Some(bytes) => file_view(path, bytes),
            None if built_in(path) => file_view(path, path.as_bytes()),
            None => FileView::missing(path),
        };
        paths.iter().map(view).collect()
    }

    /// Notes a start, and what must never be: two actions at once (CA-21), an application stopped while clients are let
    /// in, a backup without the data disks or under running applications (MG-06).
    fn note(&mut self, machine: Option<MachineId>, request: &ActionRequest) {
        let running = self
            .machines
            .values()
            .filter(|m| m.run == flipside_platform::RunState::Running && m.guest.is_some());
        let version = machine
            .and_then(|id| self.config(id))
            .map_or(String::new(), |c| c.version.clone());
        let action = SimAction {
            handle: request.handle,
            machine,
            argv: request.argv.clone(),
            env: request.env.clone(),
            two_run: running.count() > 1,
            version,
            killed: false,
        };
        if self.options.check_every_call {
            for why in self.wrong_with(&action) {
                self.violate(format!("{}: {why}", action.argv.join(" ")));
            }
        }
        self.actions.push(action);
    }

    fn wrong_with(&self, action: &SimAction) -> Vec<String> {
        let mut wrong = Vec::new();
        let busy = |exec: &Exec| exec.action && !exec.over();
        let guests = self.machines.values().filter_map(|m| m.guest.as_ref());
        let in_guests = guests.flat_map(|g| g.execs.values());
        if in_guests.chain(self.host_execs.values()).any(busy) {
            wrong.push("it was started while another action ran".to_owned());
        }
        let Some(id) = action.machine else {
            return wrong;
        };
        let request = action.var("ACTIVE_UPGRADE_REQUEST");
        let moving = matches!(action.var("ACTIVE_UPGRADE_STATE"), "Merge" | "Abort");
        if request == "Stop" && moving && self.door.open_to == Some(id) {
            wrong.push("it stops applications while the door lets clients in".to_owned());
        }
        if request == "Backup" {
            let guest = self.machines.get(&id).and_then(|m| m.guest.as_ref());
            let mounted = self
                .options
                .mounts
                .iter()
                .all(|m| guest.is_some_and(|g| g.mounts.contains_key(&m.target)));
            if !mounted {
                wrong.push("it saves files after the data was unmounted".to_owned());
            }
        }
        let split = action.var("ACTIVE_UPGRADE_HW_SPLIT") == "Yes";
        if split != action.two_run {
            wrong.push(format!(
                "it was told {split} for two systems, and two run: {}",
                action.two_run
            ));
        }
        wrong
    }

    pub(crate) fn action_start(
        &mut self,
        id: MachineId,
        request: &ActionRequest,
        part: &mut Part,
    ) -> PortResult<()> {
        let config = self.guest_config(id)?;
        if self.guest(id, part)?.execs.contains_key(&request.handle) {
            return Ok(());
        }
        let program = request.argv.first().cloned().unwrap_or_default();
        self.note(Some(id), request);
        let exec = match config.files.get(&program) {
            Some(bytes) => Exec::script(bytes),
            None if built_in(&program) => {
                let request = ExecRequest {
                    argv: request.argv.clone(),
                    env: request
                        .env
                        .iter()
                        .map(|(n, v)| format!("{n}={v}"))
                        .collect(),
                    timeout: None,
                };
                let handle = self.exec(id, &request, part)?;
                let mut exec = self.guest(id, part)?.execs.remove(&handle);
                if let Some(exec) = &mut exec {
                    exec.action = true;
                }
                exec.unwrap_or_else(|| Exec::script(b"exit 127"))
            }
            None => Exec::script(b"exit 127"),
        };
        self.guest(id, part)?.execs.insert(request.handle, exec);
        Ok(())
    }

    pub(crate) fn action_kill(
        &mut self,
        id: MachineId,
        handle: u64,
        part: &mut Part,
    ) -> PortResult<()> {
        let killed = match self.guest(id, part)?.execs.get_mut(&handle) {
            Some(exec) => exec.kill(),
            None => false,
        };
        self.note_kill(handle, killed);
        Ok(())
    }

    fn note_kill(&mut self, handle: u64, killed: bool) {
        let noted = self.actions.iter_mut().filter(|a| a.handle == handle);
        noted.for_each(|a| a.killed |= killed);
    }

    pub(crate) fn host_action_start(&mut self, request: &ActionRequest) -> PortResult<()> {
        if self.host_execs.contains_key(&request.handle) {
            return Ok(());
        }
        let program = request.argv.first().cloned().unwrap_or_default();
        self.note(None, request);
        let exec = match self.host_files.get(&program) {
            Some(bytes) => Exec::script(bytes),
            None if program.ends_with("/true") => Exec::script(b""),
            None if program.ends_with("/env") => {
                let lines = request.env.iter().map(|(n, v)| format!("out {n}={v}\n"));
                Exec::script(lines.collect::<String>().as_bytes())
            }
            None if program.ends_with("/sleep") => {
                let seconds = request.argv.get(1).map_or("0", String::as_str);
                Exec::script(format!("sleep {seconds}").as_bytes())
            }
            None if program.ends_with("/echo") => {
                Exec::script(format!("out {}", request.argv[1..].join(" ")).as_bytes())
            }
            None => Exec::script(b"exit 1"),
        };
        self.host_execs.insert(request.handle, exec);
        Ok(())
    }

    pub(crate) fn host_action_poll(&mut self, handle: u64) -> PortResult<ExecOutput> {
        match self.host_execs.get_mut(&handle) {
            Some(exec) => Ok(exec.told()),
            None => Err(PortError::absent(format!("There is no action {handle}."))),
        }
    }

    pub(crate) fn host_action_kill(&mut self, handle: u64) {
        let killed = self.host_execs.get_mut(&handle).is_some_and(Exec::kill);
        self.note_kill(handle, killed);
    }

    pub(crate) fn back_up_logs(
        &mut self,
        id: MachineId,
        request: &LogRequest,
        part: &mut Part,
    ) -> PortResult<Vec<LogCopy>> {
        let guest = self.guest(id, part)?;
        let marked = guest.logs_marked;
        let mount = guest
            .mounts
            .iter()
            .find(|(target, _)| is_under(&request.directory, target))
            .map(|(_, mounted)| mounted.clone());
        let Some(mount) = mount else {
            return Err(PortError::absent(format!(
                "The directory {} is not there.",
                request.directory
            )));
        };
        if mount.overlay && self.options.check_every_call {
            self.violate("logs were saved on a throw-away copy".to_owned());
        }
        let sources = self.options.logs.clone();
        let copy = |log: &LogSelection| {
            let source = sources.iter().find(|s| s.log == *log);
            let broken = source.is_some_and(|s| s.kind == "broken");
            let failure = match source {
                None => Some("it does not exist"),
                Some(_) if broken => Some("input/output error"),
                Some(_) => None,
            };
            LogCopy {
                log: log.clone(),
                files: u32::from(failure.is_none()),
                bytes: source.filter(|_| failure.is_none()).map_or(0, |s| s.bytes),
                failure: failure.map(str::to_owned),
            }
        };
        let copies = request.logs.iter().map(copy).collect();
        self.saved_logs.push(SimLogs {
            machine: id,
            target: request.target.clone(),
            logs: request.logs.clone(),
            marked,
        });
        Ok(copies)
    }

    /// Lists the logs of the guest.
    pub(crate) fn log_sources(&self) -> Vec<LogSource> {
        self.options.logs.clone()
    }
}

impl Exec {
    /// Makes the run of a script.
    pub(crate) fn script(bytes: &[u8]) -> Self {
        let (out, err, seconds, exit) = script(bytes);
        Self {
            out,
            err,
            until: (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds)),
            exit,
            action: true,
        }
    }

    /// Says whether it has ended.
    pub(crate) fn over(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }

    /// Tells what it printed since the last time, and its exit value once it has ended.
    pub(crate) fn told(&mut self) -> ExecOutput {
        ExecOutput {
            out: std::mem::take(&mut self.out),
            err: std::mem::take(&mut self.err),
            exit: self.over().then_some(self.exit),
        }
    }

    /// Ends it; says whether it ran until then.
    pub(crate) fn kill(&mut self) -> bool {
        let ran = !self.over();
        if ran {
            self.until = None;
            self.exit = 128 + 15;
        }
        ran
    }
}

/// For tests.
impl crate::SimWorld {
    /// Returns every custom action that was started so far, in order.
    pub fn actions(&self) -> Vec<SimAction> {
        self.with(|s| s.actions.clone())
    }

    /// Returns every log backup so far.
    pub fn saved_logs(&self) -> Vec<SimLogs> {
        self.with(|s| s.saved_logs.clone())
    }

    /// Puts a file on the host.
    pub fn put_host_file(&self, path: &str, bytes: &[u8]) {
        self.with(|s| s.host_files.insert(path.to_owned(), bytes.to_vec()));
    }

    /// Puts a file onto the system disk of a running machine, as an administrator in the guest would.
    pub fn put_guest_file(&self, id: MachineId, path: &str, bytes: &[u8]) {
        self.with(|s| {
            let put = s.change_config(id, |c| {
                c.files.insert(path.to_owned(), bytes.to_vec());
            });
            debug_assert!(put.is_ok(), "{put:?}");
        });
    }

    /// Removes a file from the system disk of a running machine.
    pub fn remove_guest_file(&self, id: MachineId, path: &str) {
        self.with(|s| {
            let removed = s.change_config(id, |c| {
                c.files.remove(path);
            });
            debug_assert!(removed.is_ok(), "{removed:?}");
        });
    }

    /// Returns the bound of each throw-away copy of a machine, in bytes.
    pub fn copy_limit(&self, id: MachineId) -> Option<u64> {
        self.with(|s| s.machines.get(&id)?.plan.copy_limit)
    }

    /// Says whether a guest is still on its overlays: its data are throw-away copies.
    pub fn on_overlays(&self, id: MachineId) -> bool {
        self.with(|s| {
            let data = s.spec.disks_of(DiskRole::Data);
            s.machines.get(&id).is_some_and(|m| {
                data.filter_map(|d| m.disks.get(&d.name))
                    .any(|d| matches!(d.source, DiskSource::Overlay(_)))
            })
        })
    }
}
