//! Runs our own binary as an administrator would: the command is shown, its output is live, its time is bounded.

use super::limits::Limit;
use super::teller::{Teller, typed};
use super::trouble::{Trouble, cannot};
use crate::live::Live;
use flipside_activity::clean;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Lines of a failed command that are repeated.
const TAIL: usize = 30;

/// Lines left of the output of a long installation.
const SUMMARY: usize = 6;

/// Without a terminal, how often a long installation shows the line it is at.
const REMIND_EVERY: Duration = Duration::from_secs(15);

/// After a command has ended, its last lines are there at once.
const DRAIN: Duration = Duration::from_secs(5);

/// How a command's output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// By the command itself when there is a terminal, with its moving line; else line by line.
    Live,
    /// Line by line.
    Lines,
    /// The line it is at, and at the end the last ones.
    Progress,
    /// Not at all, and neither is the command.
    Nothing,
}

/// A command that ended well.
#[derive(Debug)]
pub(super) struct Done {
    /// Lines of its standard output, unless it printed them itself.
    pub(super) out: Vec<String>,
}

impl Done {
    /// Returns the first line that holds something.
    pub(super) fn first(&self) -> &str {
        let line = self.out.iter().find(|line| !line.trim().is_empty());
        line.map_or("", |line| line.trim())
    }
}

/// Runs commands.
#[derive(Debug, Clone)]
pub(super) struct Runner {
    pub(super) exe: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) teller: Teller,
}

impl Runner {
    /// Runs `flipside` with these arguments. A status other than 0, or the end of the time, is trouble.
    pub(super) async fn flipside(
        &self,
        argv: &[&str],
        limit: Limit,
        show: Show,
    ) -> Result<Done, Trouble> {
        let line = format!("flipside {}", typed(argv));
        if show != Show::Nothing {
            self.teller.line("")?;
            self.teller.command(&line)?;
        }
        let mut command = self.command(argv);
        let alone = show == Show::Live && self.teller.is_terminal();
        if !alone {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let failed = cannot(format!("run `{}`", self.exe.display()));
        let mut child = command.spawn().map_err(failed)?;
        let deadline = Instant::now() + limit.after;
        let mut lines = Lines::new(&mut child);
        let ended = self.follow(&mut child, &mut lines, show, deadline).await?;
        let trouble = match ended {
            Some(status) if status.success() => {
                return Ok(Done { out: lines.out });
            }
            Some(status) => Trouble::new(format!("the command ended with {status}")),
            None => Trouble::new(format!(
                "the {} did not end within {} minutes",
                limit.what,
                limit.after.as_secs() / 60
            )),
        };
        // What was shown line by line need not be repeated.
        let shown = show == Show::Live || show == Show::Lines;
        let tail = if shown { Vec::new() } else { lines.tail.into() };
        Err(trouble.of(&line, tail))
    }

    fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .args(argv)
            .current_dir(&self.dir)
            .env("FLIPSIDE_SOCKET", &self.socket)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Waits for the end; none when the deadline passed first.
    async fn follow(
        &self,
        child: &mut Child,
        lines: &mut Lines,
        show: Show,
        deadline: Instant,
    ) -> Result<Option<ExitStatus>, Trouble> {
        let live = match show {
            Show::Progress if self.teller.is_terminal() => Live::new(false, self.teller.color()),
            _ => Live::still(false),
        };
        let mut remind = Instant::now() + REMIND_EVERY;
        let mut ended = None;
        let mut until = deadline;
        loop {
            tokio::select! {
                biased;
                line = lines.receive.recv(), if !lines.over => {
                    let Some(line) = line else {
                        lines.over = true;
                        continue;
                    };
                    let text = lines.keep(line);
                    match show {
                        Show::Live | Show::Lines => self.teller.line(&text)?,
                        Show::Progress if live.moves() => live.message(text),
                        Show::Progress if Instant::now() >= remind => {
                            remind = Instant::now() + REMIND_EVERY;
                            self.teller.line(&format!("… {text}"))?;
                        }
                        Show::Progress | Show::Nothing => {}
                    }
                }
                status = child.wait(), if ended.is_none() => {
                    ended = Some(status.map_err(cannot("wait for the command"))?);
                    until = Instant::now() + DRAIN;
                }
                () = sleep_until(until) => break,
            }
            if lines.over && ended.is_some() {
                break;
            }
        }
        drop(live);
        if show == Show::Progress && ended.is_some_and(|status| status.success()) {
            let skip = lines.out.len().saturating_sub(SUMMARY);
            for line in &lines.out[skip..] {
                self.teller.line(line)?;
            }
        }
        Ok(ended)
    }
}

/// The output of a command, both streams in the order in which they arrive.
struct Lines {
    receive: mpsc::Receiver<(bool, String)>,
    over: bool,
    out: Vec<String>,
    tail: VecDeque<String>,
}

impl Lines {
    fn new(child: &mut Child) -> Self {
        let (send, receive) = mpsc::channel(256);
        if let Some(out) = child.stdout.take() {
            tokio::spawn(read(out, true, send.clone()));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(read(err, false, send));
        }
        Self {
            receive,
            over: false,
            out: Vec::new(),
            tail: VecDeque::new(),
        }
    }

    fn keep(&mut self, (is_out, line): (bool, String)) -> String {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        if is_out {
            self.out.push(line.clone());
        }
        line
    }
}

/// What a guest wrote is made harmless for the terminal; a carriage return begins its line anew.
async fn read(
    from: impl AsyncRead + Unpin,
    is_out: bool,
    send: mpsc::Sender<(bool, String)>,
) -> Option<()> {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end().rsplit('\r').next().unwrap_or_default();
        let text = clean(&text.replace('\t', "    "));
        send.send((is_out, text)).await.ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Global;
    use crate::context::Context;

    const SOON: Limit = Limit {
        what: "test",
        after: Duration::from_millis(300),
    };

    fn runner(exe: &str) -> Runner {
        let global = Global {
            socket: None,
            json: true,
            yes: false,
            no_wait: false,
            color: clap::ColorChoice::Never,
        };
        Runner {
            exe: exe.into(),
            dir: "/".into(),
            socket: "/nowhere".into(),
            teller: Teller::new(&Context::new(&global)),
        }
    }

    #[tokio::test]
    async fn output_is_kept_and_made_harmless() {
        let script = "printf 'a\\033[2Jb\\nold\\rnew\\n'; echo err >&2; echo $FLIPSIDE_SOCKET";
        let sh = runner("/bin/sh");
        let done = sh
            .flipside(&["-c", script], super::super::limits::SHORT, Show::Nothing)
            .await
            .expect("ends well");
        assert_eq!(done.out, ["a\\u{1b}[2Jb", "new", "/nowhere"]);
        assert_eq!(done.first(), "a\\u{1b}[2Jb");
    }

    #[tokio::test]
    async fn a_failed_command_is_named_with_its_last_lines() {
        let sh = runner("/bin/sh");
        let argv = ["-c", "seq 40; echo no >&2; exit 3"];
        let limit = super::super::limits::SHORT;
        let trouble = sh
            .flipside(&argv, limit, Show::Nothing)
            .await
            .expect_err("failed");
        assert!(trouble.message.contains('3'), "{trouble:?}");
        assert_eq!(
            trouble.command.as_deref(),
            Some("flipside -c 'seq 40; echo no >&2; exit 3'")
        );
        assert_eq!(trouble.tail.len(), TAIL);
        assert!(trouble.tail.contains(&"no".to_owned()));
    }

    #[tokio::test]
    async fn what_hangs_is_ended_at_its_deadline() {
        let sleep = runner("/bin/sleep");
        let trouble = sleep
            .flipside(&["60"], SOON, Show::Nothing)
            .await
            .expect_err("late");
        assert!(
            trouble.message.starts_with("the test did not end"),
            "{trouble:?}"
        );
    }
}
