//! Programs with live output, and uploads.

use super::escape::words;
use super::link::{Script, open_arguments};
use super::{LinuxGuest, handle_arguments, limits, script};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flipside_model::MachineId;
use flipside_platform::{ExecOutput, ExecRequest, PortError, PortErrorKind, PortResult};
use flipside_qmp::{AgentClient, AgentError, Exec};
use serde::Deserialize;
use serde_json::{Value, json};

static LAUNCH: Script = script!("start a program", "launch");
static KILL: Script = script!("end a program", "kill");
static CREATE: Script = script!("create a file", "create");
static REMOVE: Script = script!("remove a program's output", "remove");

/// What `launch.sh` runs in the program's own scope.
const RUN: &str = include_str!("scripts/run.sh");

/// The exit status of a program whose end nobody saw.
const LOST: i32 = 137;

/// A stream of a program: the agent's handle of the file and how far it was read.
#[derive(Debug, Default, Clone, Copy)]
struct Stream {
    handle: Option<i64>,
    offset: u64,
}

/// A program that was started.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// The launcher's process as the agent numbers it, until the agent said that it ended.
    launcher: Option<i64>,
    out: Stream,
    err: Stream,
    exit: Option<i32>,
}

impl Program {
    /// A program whose launcher the agent numbers so.
    pub(super) fn launched(launcher: i64) -> Self {
        Self {
            launcher: Some(launcher),
            ..Self::default()
        }
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Upload {
    handle: i64,
    offset: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Read {
    #[serde(default)]
    buf_b64: String,
    eof: bool,
}

#[derive(Deserialize)]
struct Count {
    count: u64,
}

#[derive(Deserialize)]
struct Position {
    position: u64,
}

pub(super) fn scope(handle: u64) -> String {
    format!("flipside-exec-{handle:016x}")
}

pub(super) fn folder(handle: u64) -> String {
    format!("/run/flipside/exec.{handle:016x}")
}

fn no_such_file(error: &AgentError) -> bool {
    matches!(error, AgentError::Command { desc, .. } if desc.contains("No such file"))
}

impl LinuxGuest {
    pub(super) async fn launch(&self, id: MachineId, request: &ExecRequest) -> PortResult<u64> {
        let nul = request
            .argv
            .iter()
            .chain(&request.env)
            .any(|a| a.contains('\0'));
        if request.argv.first().is_none_or(String::is_empty) || nul {
            return Err(PortError::new(
                PortErrorKind::Mismatch,
                "there is no program to run",
            ));
        }
        if let Some(bad) = request.env.iter().find(|e| !is_setting(e)) {
            return Err(PortError::new(
                PortErrorKind::Mismatch,
                format!(
                    "`{}` does not have the form NAME=value",
                    words(bad.as_bytes())
                ),
            ));
        }
        // The number names the folder in the guest, so the program is found again by its handle alone.
        let handle = uuid::Uuid::new_v4().as_u64_pair().0 >> 1;
        let seconds = request.timeout.map_or(0, |t| t.as_secs().max(1));
        let mut arguments: Vec<String> =
            ["-c", LAUNCH.text, "flipside"].map(str::to_owned).to_vec();
        arguments.extend([folder(handle), scope(handle), RUN.to_owned()]);
        arguments.extend([seconds.to_string(), request.env.len().to_string()]);
        arguments.extend(request.env.iter().chain(&request.argv).cloned());
        let client = self.link.reach(id, limits::REACH).await?;
        let launcher = client
            .exec(&Exec::new("/bin/sh", arguments))
            .await
            .map_err(|e| self.link.error(id, LAUNCH.what, &e))?;
        let program = Program::launched(launcher);
        self.programs.lock().await.insert((id, handle), program);
        Ok(handle)
    }

    pub(super) async fn poll(&self, id: MachineId, handle: u64) -> PortResult<ExecOutput> {
        let client = self.link.reach(id, limits::REACH).await?;
        let key = (id, handle);
        // A handle of an earlier life of the server is as good: what it printed is told from the start.
        let mut programs = self.programs.lock().await;
        let mut program = programs.remove(&key).unwrap_or_default();
        drop(programs);
        let outcome = self.advance(id, handle, &client, &mut program).await;
        let ended = matches!(&outcome, Ok(output) if output.exit.is_some());
        if ended {
            let folder = [folder(handle), scope(handle)];
            for stream in [&program.out, &program.err] {
                close(&client, stream.handle).await;
            }
            let removal = self.link.script(id, &REMOVE, &folder, limits::LOOK).await;
            if let Err(error) = removal {
                tracing::debug!(%id, %error, "a program's output stays in the guest until it restarts");
            }
        } else {
            self.programs.lock().await.insert(key, program);
        }
        outcome
    }

    async fn advance(
        &self,
        id: MachineId,
        handle: u64,
        client: &AgentClient,
        program: &mut Program,
    ) -> PortResult<ExecOutput> {
        let folder = folder(handle);
        // First whether it ended, then its output: nothing can be printed after.
        if program.exit.is_none() {
            program.exit = self.exit_of(id, &folder, client, program).await?;
        }
        let (out, out_end) = self
            .increment(id, &format!("{folder}/out"), client, &mut program.out)
            .await?;
        let err = self
            .increment(id, &format!("{folder}/err"), client, &mut program.err)
            .await;
        let (err, err_end) = match err {
            // What was read is not read again: it is told now, the error with the next look.
            Err(error) if !out.is_empty() => {
                tracing::debug!(%id, %error, "standard error is read later");
                (Vec::new(), false)
            }
            err => err?,
        };
        Ok(ExecOutput {
            out,
            err,
            exit: program.exit.filter(|_| out_end && err_end),
        })
    }

    async fn exit_of(
        &self,
        id: MachineId,
        folder: &str,
        client: &AgentClient,
        program: &mut Program,
    ) -> PortResult<Option<i32>> {
        let fail = |error| self.link.error(id, "ask how a program is doing", &error);
        let mut failure = None;
        if let Some(launcher) = program.launcher {
            match client.exec_status(launcher).await {
                Ok(status) if !status.exited => return Ok(None),
                Ok(status) => {
                    program.launcher = None;
                    failure = Some(status);
                }
                // The agent knows it no more: it was restarted, or an answer was lost.
                Err(AgentError::Command { .. }) => program.launcher = None,
                Err(error) => return Err(fail(error)),
            }
        }
        match client.read_file(&format!("{folder}/exit"), 64).await {
            Ok(text) => {
                let code = String::from_utf8_lossy(&text).trim().parse::<u8>();
                return Ok(Some(code.map_or(LOST, i32::from)));
            }
            Err(error) if no_such_file(&error) => {}
            Err(error) => return Err(fail(error)),
        }
        if let Some(status) = failure {
            // Nothing was started, or it was killed with everything around it.
            let begun = client
                .read_file(&format!("{folder}/begun"), 1)
                .await
                .is_ok();
            if begun {
                return Ok(Some(LOST));
            }
            let mut error = super::link::refused(id, LAUNCH.what, &status);
            error.advice = Some("check that /run has space in the guest".to_owned());
            return Err(error);
        }
        // The agent was restarted; the program goes on if its process is there.
        let alive = async {
            let leader = client.read_file(&format!("{folder}/pid"), 32).await?;
            let leader = String::from_utf8_lossy(&leader).trim().to_owned();
            let leader: u32 = leader.parse().unwrap_or(0);
            client.read_file(&format!("/proc/{leader}/comm"), 64).await
        };
        match alive.await {
            Ok(_) => Ok(None),
            Err(error) if no_such_file(&error) => {
                // It may have ended between the two looks.
                let exit = client.read_file(&format!("{folder}/exit"), 64).await;
                let code = exit.ok().map(|text| {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    text.trim().parse::<u8>().map_or(LOST, i32::from)
                });
                if code.is_none()
                    && client
                        .read_file(&format!("{folder}/begun"), 1)
                        .await
                        .is_err()
                {
                    return Err(PortError::absent(format!(
                        "the program is not there any more: the guest of {id} was restarted, or it never ran"
                    ))
                    .about(id.to_string()));
                }
                Ok(Some(code.unwrap_or(LOST)))
            }
            Err(error) => Err(fail(error)),
        }
    }

    /// Reads what came since the last look, and says whether that was all for now.
    async fn increment(
        &self,
        id: MachineId,
        path: &str,
        client: &AgentClient,
        stream: &mut Stream,
    ) -> PortResult<(Vec<u8>, bool)> {
        const WHAT: &str = "read a program's output";
        let mut reopened = false;
        loop {
            let handle = match stream.handle {
                Some(handle) => handle,
                None => {
                    let opened: Result<i64, AgentError> = client
                        .execute_as("guest-file-open", open_arguments(path, "r"))
                        .await;
                    let handle = match opened {
                        Ok(handle) => handle,
                        // Not there yet.
                        Err(error) if no_such_file(&error) => return Ok((Vec::new(), true)),
                        Err(error) => return Err(self.link.error(id, WHAT, &error)),
                    };
                    seek(client, handle, stream.offset)
                        .await
                        .map_err(|e| self.link.error(id, WHAT, &e))?;
                    stream.handle = Some(handle);
                    reopened = true;
                    handle
                }
            };
            let arguments = json!({ "handle": handle, "count": limits::OUTPUT });
            let read: Result<Read, AgentError> =
                client.execute_as("guest-file-read", arguments).await;
            match read {
                Ok(read) => {
                    let bytes = STANDARD.decode(&read.buf_b64).unwrap_or_default();
                    stream.offset += bytes.len() as u64;
                    let end = read.eof || bytes.is_empty();
                    return Ok((bytes, end));
                }
                // A restarted agent has forgotten the handle.
                Err(AgentError::Command { .. }) if !reopened => stream.handle = None,
                Err(error) => {
                    // Nobody knows how far the agent has read.
                    stream.handle = None;
                    return Err(self.link.error(id, WHAT, &error));
                }
            }
        }
    }

    pub(super) async fn kill(&self, id: MachineId, handle: u64) -> PortResult<()> {
        let known = self.programs.lock().await.contains_key(&(id, handle));
        let arguments = [folder(handle), scope(handle)];
        // One that was polled to its end, or never was, is ended.
        if !known {
            let look = Exec::new("test", ["-d", arguments[0].as_str()]);
            let status = self.link.run(id, KILL.what, &look, limits::LOOK).await?;
            if !status.success() {
                return Ok(());
            }
        }
        self.link
            .script(id, &KILL, &arguments, limits::LOOK)
            .await
            .map(drop)
    }

    pub(super) async fn upload(
        &self,
        id: MachineId,
        path: &str,
        offset: u64,
        bytes: &[u8],
    ) -> PortResult<()> {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(PortError::new(
                PortErrorKind::Mismatch,
                format!("`{}` is not an absolute path", words(path.as_bytes())),
            ));
        }
        let client = self.link.reach(id, limits::REACH).await?;
        let key = (id, path.to_owned());
        let fail = |error| {
            let mut error =
                self.link
                    .error(id, &format!("write {}", words(path.as_bytes())), &error);
            if error.causes.iter().any(|c| c.contains("No space left")) {
                error.kind = PortErrorKind::NoSpace;
            }
            error.about(words(path.as_bytes()))
        };
        // Kept open between pieces of one file; anything else than the next piece opens it anew.
        let kept = self.uploads.lock().await.remove(&key);
        let mut upload = match kept {
            Some(kept) if offset > 0 && kept.offset == offset => kept,
            other => {
                close(&client, other.map(|o| o.handle)).await;
                self.open_upload(id, path, offset, &client).await?
            }
        };
        for piece in bytes.chunks(limits::UPLOAD) {
            let mut rest = piece;
            while !rest.is_empty() {
                let arguments =
                    json!({ "handle": upload.handle, "buf-b64": STANDARD.encode(rest) });
                let written: Result<Count, AgentError> =
                    client.execute_as("guest-file-write", arguments).await;
                let count = written.map_err(fail)?.count;
                let count = usize::try_from(count).unwrap_or(0).min(rest.len());
                if count == 0 {
                    return Err(PortError::failed(format!(
                        "the guest of {id} took no more bytes for {}",
                        words(path.as_bytes())
                    )));
                }
                rest = &rest[count..];
                upload.offset += count as u64;
            }
        }
        // The agent buffers: an error of writing shows here.
        let flushed: Result<Value, AgentError> = client
            .execute_as("guest-file-flush", handle_arguments(upload.handle))
            .await;
        flushed.map_err(fail)?;
        if bytes.len() < limits::UPLOAD {
            // Most likely the last piece. Should another follow, the file is opened again.
            close(&client, Some(upload.handle)).await;
        } else {
            self.uploads.lock().await.insert(key, upload);
        }
        Ok(())
    }

    async fn open_upload(
        &self,
        id: MachineId,
        path: &str,
        offset: u64,
        client: &AgentClient,
    ) -> PortResult<Upload> {
        let named = words(path.as_bytes());
        if offset == 0 {
            let argument = [path.to_owned()];
            let status = self
                .link
                .attempt(id, &CREATE, &argument, limits::FLAG)
                .await?;
            if !status.success() {
                let mut error = super::link::refused(id, &format!("create {named}"), &status);
                if status.exitcode == Some(2) {
                    error.kind = PortErrorKind::Absent;
                }
                return Err(error.about(named).advise("check the path in the guest"));
            }
        }
        let fail = |error| {
            self.link
                .error(id, &format!("open {named}"), &error)
                .about(named.clone())
        };
        // Not for appending: a piece that is sent again must land where it was.
        let handle: i64 = self
            .link
            .call(id, client, "guest-file-open", open_arguments(path, "r+"))
            .await
            .map_err(|e| e.about(named.clone()))?;
        let end: Result<Position, AgentError> = client
            .execute_as(
                "guest-file-seek",
                json!({ "handle": handle, "offset": 0, "whence": "end" }),
            )
            .await;
        let end = end.map_err(fail)?.position;
        if end < offset {
            close(client, Some(handle)).await;
            return Err(PortError::new(
                PortErrorKind::Mismatch,
                format!("{named} has {end} bytes in the guest, fewer than were written before"),
            )
            .about(named)
            .advise("copy the file again from the start"));
        }
        seek(client, handle, offset).await.map_err(fail)?;
        Ok(Upload { handle, offset })
    }
}

async fn seek(client: &AgentClient, handle: i64, offset: u64) -> Result<(), AgentError> {
    let arguments = json!({ "handle": handle, "offset": offset, "whence": "set" });
    let _: Position = client.execute_as("guest-file-seek", arguments).await?;
    Ok(())
}

/// Closes a file if there is one; the agent may have forgotten it.
async fn close(client: &AgentClient, handle: Option<i64>) {
    let Some(handle) = handle else { return };
    let closed = client
        .execute(
            "guest-file-close",
            handle_arguments(handle),
            client.call_timeout(),
        )
        .await;
    if let Err(error) = closed {
        tracing::debug!(%error, "closing a file in the guest");
    }
}

/// Whether this has the form `NAME=value`, with a name that a shell can export.
fn is_setting(setting: &str) -> bool {
    let Some((name, _)) = setting.split_once('=') else {
        return false;
    };
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_names() {
        for good in ["A=", "_x1=a=b c\n"] {
            assert!(is_setting(good), "{good:?}");
        }
        for bad in ["", "A", "=x", "1A=x", "A B=x", "A;b=x", "-A=x"] {
            assert!(!is_setting(bad), "{bad:?}");
        }
    }
}
