//! What every command needs to know: where the server is and how to print.

use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;
use clap::ColorChoice;
use flipside_activity::Style;
use flipside_model::{Status, SystemName};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

/// The options of every command, resolved.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) json: bool,
    pub(crate) yes: bool,
    pub(crate) no_wait: bool,
    pub(crate) color: bool,
}

impl Context {
    pub(crate) fn new(global: &Global) -> Self {
        let color = match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            }
        };
        Self {
            client: Client::new(global.socket.clone().unwrap_or_else(default_socket)),
            json: global.json,
            yes: global.yes,
            no_wait: global.no_wait,
            color,
        }
    }

    /// Returns how log lines are shown.
    pub(crate) fn style(&self) -> Style {
        Style {
            color: self.color,
            zone: jiff::tz::TimeZone::system(),
            detail: true,
        }
    }

    /// Prints a line.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", text.trim_end_matches('\n'))?;
        Ok(out.flush()?)
    }

    /// Prints one JSON object.
    pub(crate) fn object(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
        self.line(&text)
    }

    /// Prints a line for people, unless JSON was asked for.
    pub(crate) fn say(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.line(text) }
    }

    /// Finds the system that is meant: the one named, or the only one (never together with `--yes`).
    pub(crate) async fn system(&self, named: Option<&SystemName>) -> Result<SystemName, Failure> {
        if let Some(name) = named {
            return Ok(name.clone());
        }
        if self.yes {
            return Err(Failure::usage("with `--yes` the system must be named")
                .advise("`flipside system list` names them"));
        }
        let all: Vec<Status> = self.client.get("/v1/systems").await?;
        match all.as_slice() {
            [only] => Ok(only.system.clone()),
            [] => Err(Failure::usage("there is no system")
                .advise("make one: `flipside system create NAME --system-disk IMAGE`")),
            many => {
                let names: Vec<&str> = many.iter().map(|s| s.system.as_str()).collect();
                Err(Failure::usage(format!(
                    "there are {} systems, so one must be named",
                    many.len()
                ))
                .advise(format!("name one of: {}", names.join(", "))))
            }
        }
    }

    /// Asks for the status of a system.
    pub(crate) async fn status(&self, system: &SystemName) -> Result<Status, Failure> {
        self.client.get(&format!("/v1/systems/{system}")).await
    }
}

/// Returns the socket used when none is named: of the machine for root, else of the user.
pub(crate) fn default_socket() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/flipside/flipside.sock");
    }
    // Without a login session there is no runtime directory; this is where one would be.
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(
            || PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw())),
            PathBuf::from,
        );
    runtime.join("flipside/flipside.sock")
}
