//! Custom actions in the guest: their files, starting and ending them. They are followed as any program is (`exec.rs`).

use super::blocks::{Survey, is_under};
use super::escape::words;
use super::exec::{Program, folder, scope};
use super::files::number;
use super::link::Script;
use super::{LinuxGuest, limits, records, script};
use crate::action::{ACTION, action_words, check_request};
use flipside_model::{FileKind, FileView, MachineId};
use flipside_platform::{ActionRequest, PortError, PortResult};
use flipside_qmp::Exec;

static LOOK_AT: Script = script!("look at files", "survey", "look_at");
static LAUNCH: Script = script!("start a custom action", "launch_action");
static KILL: Script = script!("end a custom action", "action_kill");

impl LinuxGuest {
    pub(super) async fn describe_files(
        &self,
        id: MachineId,
        paths: &[String],
    ) -> PortResult<Vec<FileView>> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        check_paths(paths)?;
        let out = self
            .link
            .script(id, &LOOK_AT, paths, limits::LOOK_AT)
            .await?;
        let views = read(paths, &String::from_utf8_lossy(&out), &Survey::read(&out));
        views.ok_or_else(|| super::services::nonsense(id, LOOK_AT.what))
    }

    pub(super) async fn launch_action(
        &self,
        id: MachineId,
        request: &ActionRequest,
    ) -> PortResult<()> {
        check_request(request)?;
        let handle = request.handle;
        let mut arguments: Vec<String> =
            ["-c", LAUNCH.text, "flipside"].map(str::to_owned).to_vec();
        arguments.extend([folder(handle), scope(handle), ACTION.to_owned()]);
        arguments.extend(action_words(request));
        let client = self.link.reach(id, limits::REACH).await?;
        let launcher = client
            .exec(&Exec::new("/bin/sh", arguments))
            .await
            .map_err(|e| self.link.error(id, LAUNCH.what, &e))?;
        let program = Program::launched(launcher);
        self.programs.lock().await.insert((id, handle), program);
        Ok(())
    }

    pub(super) async fn kill_action(&self, id: MachineId, handle: u64) -> PortResult<()> {
        let arguments = [folder(handle), scope(handle)];
        let killed = self.link.script(id, &KILL, &arguments, limits::LOOK).await;
        killed.map(drop)
    }
}

/// Refuses what no path of a file is.
pub(super) fn check_paths(paths: &[String]) -> PortResult<()> {
    let bad = paths
        .iter()
        .find(|p| !p.starts_with('/') || p.contains(['\0', '\n']));
    bad.map_or(Ok(()), |path| {
        let text = format!("`{}` is not an absolute path", words(path.as_bytes()));
        Err(PortError::failed(text).about(words(path.as_bytes())))
    })
}

/// Reads the script's lines; none when they do not describe exactly what was asked.
pub(super) fn read(paths: &[String], text: &str, survey: &Survey) -> Option<Vec<FileView>> {
    let mut views = Vec::new();
    for record in records(text).filter(|r| r[0] == "at") {
        let [_, index, kind, executable, writable, sum, real, facts @ ..] = record.as_slice()
        else {
            return None;
        };
        if index.parse() != Ok(views.len()) {
            return None;
        }
        let path = paths.get(views.len())?;
        let kind = match *kind {
            "missing" => FileKind::Missing,
            "regular" => FileKind::Regular,
            "directory" => FileKind::Directory,
            _ => FileKind::Other,
        };
        let (mode, user, group, device) = match facts {
            [mode, user, group, device] => (*mode, *user, *group, *device),
            _ if kind == FileKind::Missing => ("", "", "", ""),
            _ => return None,
        };
        let (serial, filesystem) = match kind {
            FileKind::Missing => (String::new(), ""),
            _ => (
                survey.serial_of(&number(device), real),
                kind_of(survey, real),
            ),
        };
        views.push(FileView {
            path: path.clone(),
            kind,
            executable: *executable == "yes",
            writable: *writable == "yes",
            sha256: words(sum.as_bytes()),
            disk: words(serial.as_bytes()),
            filesystem: words(filesystem.as_bytes()),
            flaw: flaw(kind, mode, user, group),
        });
    }
    (views.len() == paths.len()).then_some(views)
}

/// The kind of the file system that a path lies on.
fn kind_of<'a>(survey: &'a Survey, path: &str) -> &'a str {
    let mounts = survey.mounts.iter().filter(|m| is_under(path, &m.target));
    // Of two on one place the later one is what is seen.
    mounts
        .max_by_key(|m| m.target.len())
        .map_or("", |m| m.kind.as_str())
}

/// Security checklist 25: who else could change a program that runs as root.
fn flaw(kind: FileKind, mode: &str, user: &str, group: &str) -> Option<String> {
    if kind != FileKind::Regular {
        return None;
    }
    let mode = u32::from_str_radix(mode, 8).unwrap_or(0o777);
    if mode & 0o002 != 0 {
        Some("everybody may write to it".to_owned())
    } else if user != "0" {
        Some(format!("it belongs to user {}", words(user.as_bytes())))
    } else if mode & 0o020 != 0 && group != "0" {
        Some(format!("group {} may write to it", words(group.as_bytes())))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SURVEY: &str = "block\tsda\t8:0\t\t\t\t\tsystem0\t\nblock\tsda1\t8:1\tsda\t\t\t\t\t\n\
        block\tsdb\t8:16\t\t\t\t\tdata0\t\n\
        mount\t26 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
        mount\t90 26 8:16 / /srv/data rw shared:2 - ext4 /dev/sdb rw\n\
        mount\t91 26 0:50 / /mnt/share rw shared:3 - nfs4 server:/x rw\n\
        mount\t92 26 0:51 / /run rw shared:4 - tmpfs tmpfs rw\n";

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|p| (*p).to_owned()).collect()
    }

    // RC-33, RC-34, RC-37: kind, disk, file system, and who else could change it.
    #[test]
    fn files_are_described_with_the_disk_they_lie_on() {
        let text = format!(
            "at\t0\tregular\tyes\tyes\tabc\t/usr/local/sbin/x\t755\t0\t0\t2049\n\
             at\t1\tdirectory\tyes\tyes\t\t/srv/data/logs\t700\t0\t0\t2064\n\
             at\t2\tmissing\tno\tno\t\t\t\n\
             at\t3\tregular\tno\tno\t\t/mnt/share/y\t644\t0\t0\t50\n\
             at\t4\tother\tno\tyes\t\t/run/fifo\t600\t0\t0\t51\n{SURVEY}"
        );
        let asked = paths(&[
            "/usr/local/sbin/x",
            "/srv/data/logs",
            "/no",
            "/mnt/share/y",
            "/run/fifo",
        ]);
        let views = read(&asked, &text, &Survey::read(text.as_bytes())).expect("makes sense");
        let told: Vec<_> = views
            .iter()
            .map(|v| {
                (
                    v.kind,
                    v.disk.as_str(),
                    v.filesystem.as_str(),
                    v.executable,
                    v.writable,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (FileKind::Regular, "system0", "ext4", true, true),
                (FileKind::Directory, "data0", "ext4", true, true),
                (FileKind::Missing, "", "", false, false),
                (FileKind::Regular, "", "nfs4", false, false),
                (FileKind::Other, "", "tmpfs", false, true),
            ]
        );
        assert_eq!(views[0].sha256, "abc");
        assert!(views.iter().all(|v| v.flaw.is_none()));
    }

    #[test]
    fn an_answer_that_is_not_what_was_asked_is_refused() {
        let survey = Survey::read(SURVEY.as_bytes());
        let asked = paths(&["/a", "/b"]);
        for text in [
            "",
            "at\t0\tmissing\tno\tno\t\t\t\n",
            "at\t1\tmissing\tno\tno\t\t\t\nat\t0\tmissing\tno\tno\t\t\t\n",
            "at\t0\tregular\tyes\tyes\tx\t/a\nat\t1\tmissing\tno\tno\t\t\t\n",
            "at\t0\n",
        ] {
            assert_eq!(read(&asked, text, &survey), None, "{text:?}");
        }
    }

    // Security checklist 25.
    #[test]
    fn what_others_can_change_is_told() {
        let regular = FileKind::Regular;
        for (mode, user, group) in [("755", "0", "0"), ("750", "0", "33"), ("775", "0", "0")] {
            assert_eq!(flaw(regular, mode, user, group), None, "{mode}");
        }
        for (mode, user, group) in [
            ("757", "0", "0"),
            ("775", "0", "33"),
            ("755", "1000", "0"),
            ("nonsense", "0", "0"),
        ] {
            assert!(flaw(regular, mode, user, group).is_some(), "{mode}");
        }
        assert_eq!(flaw(FileKind::Directory, "777", "1", "1"), None);
    }

    #[test]
    fn only_absolute_paths_are_asked_about() {
        assert!(check_paths(&paths(&["/a", "/b c"])).is_ok());
        for bad in ["a", "", "/a\0b", "/a\nb"] {
            assert!(check_paths(&paths(&[bad])).is_err(), "{bad:?}");
        }
    }
}
