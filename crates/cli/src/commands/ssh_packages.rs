//! `flipside ssh --packages`: carries connections of the guest to the server's package proxy, as long as `ssh` runs.
//!
//! The Upgrade Side has no way to any network. `ssh` listens in the guest, on its loopback only, and each connection made
//! there comes out of a socket here and goes on to the server, which reaches the named hosts and no others. When `ssh` ends
//! nothing of it is left in the guest.

use crate::context::Context;
use crate::failure::Failure;
use crate::terminal;
use crate::url;
use flipside_model::SystemName;
use hyper_util::rt::TokioIo;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use tokio::net::{UnixListener, UnixStream};

/// Where the guest's programs find the proxy: a port that proxies usually have.
const GUEST: &str = "127.0.0.1:3128";

/// A socket for the connections of the guest.
pub(super) struct Packages {
    uri: String,
    folder: PathBuf,
    listener: UnixListener,
}

impl Packages {
    /// Asks whether the server allows it, then opens the socket, for this user only.
    pub(super) async fn open(
        ctx: &Context,
        system: &SystemName,
        hosts: &str,
    ) -> Result<Self, Failure> {
        let mut uri = format!("/v1/systems/{system}/package-proxy");
        url::add(&mut uri, "allow", hosts);
        drop(terminal::upgraded(ctx, &uri, "flipside-proxy", "package proxy").await?);
        let parent = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute() && dir.is_dir())
            .unwrap_or_else(std::env::temp_dir);
        let folder = parent.join(format!("flipside-packages-{}", std::process::id()));
        let failed = |error: std::io::Error| {
            let text = format!("no socket can be made in `{}`: {error}", folder.display());
            Failure::failed(text)
        };
        // One that is there already is not ours, and is not used.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(failed)?;
        let listener = UnixListener::bind(folder.join("proxy"));
        let listener = listener.inspect_err(|_| drop(std::fs::remove_dir(&folder)));
        Ok(Self {
            uri,
            listener: listener.map_err(failed)?,
            folder,
        })
    }

    /// The options of `ssh` that let the guest reach the socket.
    pub(super) fn options(&self) -> Vec<String> {
        let socket = self.folder.join("proxy");
        let words = ["-o", "ExitOnForwardFailure=yes", "-R"];
        let mut options: Vec<String> = words.map(str::to_owned).to_vec();
        options.push(format!("{GUEST}:{}", socket.display()));
        options
    }

    /// Says how the guest uses it.
    pub(super) fn hint() -> String {
        format!(
            "packages: in the guest, `apt-get -o Acquire::http::Proxy=http://{GUEST}/ …`, or `export http_proxy=http://{GUEST} \
             https_proxy=http://{GUEST}`; it ends with this connection"
        )
    }

    /// Carries connections for ever.
    pub(super) async fn carry(&self, ctx: &Context) -> Failure {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (ctx, uri) = (ctx.clone(), self.uri.clone());
                    tokio::spawn(async move { one(&ctx, &uri, stream).await });
                }
                Err(error) => {
                    return Failure::failed(format!("the package socket failed: {error}"));
                }
            }
        }
    }
}

impl Drop for Packages {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("proxy"));
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// Carries one connection. One that the server refuses is closed; why stands in the activity log, or is said here.
async fn one(ctx: &Context, uri: &str, mut stream: UnixStream) {
    match terminal::upgraded(ctx, uri, "flipside-proxy", "package proxy").await {
        Ok(server) => {
            let mut server = TokioIo::new(server);
            let ended = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            tracing::debug!(?ended, "a connection of the package proxy ended");
        }
        Err(failure) => tracing::warn!(?failure, "the package proxy was not opened"),
    }
}
