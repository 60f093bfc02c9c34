//! The web console's door: the same API as on the Unix socket, behind a login, and the files of the pages.
//!
//! What is asked goes through [`guard`] first: our own name as `Host`, our own page as `Origin`, a header that no other page
//! can send, a login, a role. Only then does it reach the routes that every client uses.

mod accounts;
mod address;
mod audit;
mod files;
mod guard;
mod limits;
mod listen;
mod login;
mod sessions;
mod tls;
mod user_routes;

use crate::registry::Registry;
use crate::routes;
use accounts::Accounts;
use address::Names;
use anyhow::bail;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use limits::Limits;
use sessions::Sessions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{error, info, warn};

pub(crate) use guard::Lease;
pub(crate) use user_routes::router as user_router;

/// How long until the console's address is tried again when somebody else has it. The API and every machine go on
/// meanwhile: a page is not worth a system that is not taken up.
const BIND_PAUSE: Duration = Duration::from_secs(5);

/// The largest body of a login in bytes; name and password are far shorter.
const MAX_LOGIN: usize = 4096;

/// How the console is served.
#[derive(Debug, Clone)]
pub struct WebOptions {
    /// Where to listen; port 0 is any free one.
    pub listen: SocketAddr,
    /// The files of the pages.
    pub directory: PathBuf,
    /// Certificate chain and key in PEM; needed for an address that is no loopback one.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Further names under which the console may be opened.
    pub names: Vec<String>,
}

/// What all requests of the console share.
pub(crate) struct Web {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) sessions: Arc<Sessions>,
    limits: Limits,
    names: Names,
    tls: bool,
    files: files::Files,
    audit: audit::Audit,
    /// One password is hashed at a time: it takes a processor and 19 MiB.
    hashing: Semaphore,
}

/// A console that is ready to listen.
pub(crate) struct Console {
    options: WebOptions,
    tls: Option<tls::Acceptor>,
    accounts: Arc<Accounts>,
    sessions: Arc<Sessions>,
    state_dir: PathBuf,
}

impl Console {
    /// Checks everything that can be checked before the server runs.
    pub(crate) fn prepare(options: WebOptions, state_dir: PathBuf) -> anyhow::Result<Self> {
        address::check(options.listen, options.tls.is_some())?;
        for name in &options.names {
            let fine = |c: char| c.is_ascii_alphanumeric() || "-.[]:".contains(c);
            if name.is_empty() || !name.chars().all(fine) {
                bail!("`{}` is no name of a host", name.escape_debug());
            }
        }
        let tls = match &options.tls {
            Some((certificate, key)) => Some(tls::acceptor(certificate, key)?),
            None => None,
        };
        let accounts = Arc::new(Accounts::open(&state_dir)?);
        Ok(Self {
            options,
            tls,
            accounts,
            sessions: Arc::default(),
            state_dir,
        })
    }

    /// The routes about users, for the Unix socket: who may use that may do everything.
    pub(crate) fn user_routes(&self) -> Router {
        user_router(self.accounts.clone(), self.sessions.clone())
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self, registry: Arc<Registry>) {
        let listener = self.bind().await;
        let listen = listener.local_addr().unwrap_or(self.options.listen);
        let tls = self.tls.is_some();
        let url = address::url(listen, tls);
        // For `flipside` itself and for tests, who may have asked for any free port.
        if let Err(error) = self.accounts.write_file("url", &format!("{url}\n")) {
            warn!(%error, "the console's address is not written down");
        }
        match self.accounts.first_password() {
            Some(file) => info!(
                "the console is on {url} for user `{}`, with the password in `{}`",
                accounts::FIRST,
                file.display()
            ),
            None => info!("the console is on {url}"),
        }
        let web = Arc::new(Web {
            names: Names::new(listen, tls, &self.options.names),
            files: files::Files::load(&self.options.directory),
            audit: audit::Audit::open(&self.state_dir.join("console/audit.jsonl")),
            accounts: self.accounts,
            sessions: self.sessions,
            limits: Limits::default(),
            tls,
            hashing: Semaphore::new(1),
        });
        listen::serve(listener, self.tls, app(web, registry)).await;
    }

    async fn bind(&self) -> TcpListener {
        loop {
            match TcpListener::bind(self.options.listen).await {
                Ok(listener) => return listener,
                Err(error) => error!(
                    "the console cannot listen on {}: {error}; `--listen` names another address. It is tried again.",
                    self.options.listen
                ),
            }
            tokio::time::sleep(BIND_PAUSE).await;
        }
    }
}

fn app(web: Arc<Web>, registry: Arc<Registry>) -> Router {
    let pages = Router::new()
        .route("/console/login", post(login::login))
        .route("/console/logout", post(login::logout))
        .route("/console/me", get(login::me))
        // Nobody has to be logged in to ask these, so they are small, and arrive in time.
        .layer(DefaultBodyLimit::max(MAX_LOGIN))
        .layer(from_fn(routes::arrive_whole))
        .fallback(files::serve)
        .with_state(web.clone());
    routes::routes(registry)
        .merge(pages)
        .layer(from_fn_with_state(web, guard::guard))
}
