//! The door of the web console: what is refused, and that the rest is the same API (security list, lines 6 to 16).

use crate::server::{NAME, PATIENCE, Server, flipside, until};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

/// A browser, as far as the server can tell.
struct Browser {
    address: SocketAddr,
    host: String,
    origin: Option<String>,
    cookie: Option<String>,
    ours: bool,
    more: String,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Browser {
    fn of(server: &Server) -> Self {
        let file = server.state().join("console/url");
        let url = until("the console listens", || {
            std::fs::read_to_string(&file).ok()
        });
        let host = url
            .trim()
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        Self {
            address: host.parse().unwrap(),
            origin: Some(format!("http://{host}")),
            host,
            cookie: None,
            ours: true,
            more: String::new(),
        }
    }

    fn head(&self, method: &str, path: &str, length: usize) -> String {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n",
            self.host
        );
        head.push_str("Content-Type: application/json\r\nConnection: close\r\n");
        if let Some(origin) = &self.origin {
            let _ = write!(head, "Origin: {origin}\r\n");
        }
        if let Some(cookie) = &self.cookie {
            let _ = write!(head, "Cookie: {cookie}\r\n");
        }
        if self.ours {
            head.push_str("X-Flipside: 1\r\n");
        }
        head + &self.more + "\r\n"
    }

    fn open(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = self.head(method, path, body.len()) + body;
        stream.write_all(asked.as_bytes()).unwrap();
        stream
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut bytes = Vec::new();
        self.open(method, path, body)
            .read_to_end(&mut bytes)
            .unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    fn log_in(&mut self, name: &str, password: &str) -> Answer {
        let body = serde_json::json!({ "name": name, "password": password }).to_string();
        let answer = self.ask("POST", "/console/login", &body);
        if answer.status == 200 {
            let line = answer
                .head
                .lines()
                .find(|l| l.starts_with("set-cookie:"))
                .unwrap();
            let cookie = line["set-cookie: ".len()..].split(';').next().unwrap();
            self.cookie = Some(cookie.to_owned());
        }
        answer
    }
}

fn first_password(server: &Server) -> String {
    let file = server.state().join("console/first-password");
    let text = until("a first password", || std::fs::read_to_string(&file).ok());
    text.trim().to_owned()
}

/// A server with the system `web`, and an operator's browser.
fn opened() -> (Server, Browser) {
    let server = Server::start();
    server.create();
    let mut browser = Browser::of(&server);
    let answer = browser.log_in("admin", &first_password(&server));
    assert_eq!(answer.status, 200, "{}", answer.body);
    (server, browser)
}

fn set_user(server: &Server, name: &str, role: &str, password: &str) {
    let mut command = flipside();
    command.env("FLIPSIDE_SOCKET", server.socket());
    command
        .args(["user", "set", name, "--role", role])
        .stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    assert!(child.wait().unwrap().success());
}

// Security 6, 8: the first password is in a private file; the cookie can be read by no script and sent by no other page.
#[test]
fn one_logs_in_with_the_first_password_and_out_again() {
    let (server, mut browser) = opened();
    for name in ["first-password", "users.json", "audit.jsonl"] {
        let mode = std::fs::metadata(server.state().join("console").join(name)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let again = browser.log_in("admin", &first_password(&server));
    let cookie = again
        .head
        .lines()
        .find(|l| l.starts_with("set-cookie:"))
        .unwrap();
    assert!(
        cookie.contains("httponly") && cookie.contains("samesite=strict"),
        "{cookie}"
    );
    assert_eq!(browser.ask("GET", "/v1/systems", "").status, 200);
    assert!(
        browser
            .ask("GET", "/console/me", "")
            .body
            .contains("operator")
    );
    let used = browser.cookie.clone();
    assert_eq!(browser.ask("POST", "/console/logout", "").status, 204);
    browser.cookie = used;
    assert_eq!(
        browser.ask("GET", "/v1/systems", "").status,
        401,
        "the id is worth nothing"
    );
}

// Security 8: an id that somebody made up, or that was used before the login, is none.
#[test]
fn an_id_is_given_by_the_server_and_is_new_at_every_login() {
    let (server, mut browser) = opened();
    let old = browser.cookie.clone().unwrap();
    browser.log_in("admin", &first_password(&server));
    assert_ne!(browser.cookie.clone().unwrap(), old);
    for cookie in [
        old.clone(),
        "flipside=".to_owned(),
        format!("flipside={}", "0".repeat(64)),
        format!("{old}; {old}"),
    ] {
        browser.cookie = Some(cookie.clone());
        assert_eq!(
            browser.ask("GET", "/v1/systems", "").status,
            401,
            "{cookie}"
        );
    }
}

// Security 7: the same words for a user that does not exist, and then one has to wait, even with the right password.
#[test]
fn passwords_are_not_guessed() {
    let server = Server::start();
    let mut browser = Browser::of(&server);
    let unknown = browser.log_in("nobody", "wrong wrong wrong");
    let wrong = browser.log_in("admin", "wrong wrong wrong");
    assert_eq!((unknown.status, &unknown.body), (401, &wrong.body));
    for _ in 0..4 {
        assert_eq!(browser.log_in("admin", "wrong wrong wrong").status, 401);
    }
    let late = browser.log_in("admin", &first_password(&server));
    assert_eq!(late.status, 429, "{}", late.body);
    assert!(late.head.contains("retry-after:"), "{}", late.head);
}

// Security 9, 10, 11: whatever another page can make a browser send is refused, with a login too, and changes nothing.
#[test]
fn another_page_can_do_nothing() {
    let (server, browser) = opened();
    let before = server.status()["last_seq"].clone();
    let path = format!("/v1/systems/{NAME}/session");
    let body = r#"{"command":"check","no_config":true}"#;
    let mut asked = 0;
    let mut refused = |change: &dyn Fn(&mut Browser), statuses: &[u16], reads: bool| {
        let mut other = Browser {
            host: browser.host.clone(),
            origin: browser.origin.clone(),
            cookie: browser.cookie.clone(),
            more: String::new(),
            ..Browser::of(&server)
        };
        change(&mut other);
        let answer = other.ask("POST", &path, body);
        assert!(
            statuses.contains(&answer.status),
            "{}: {}",
            answer.status,
            answer.body
        );
        if reads {
            let answer = other.ask("GET", "/v1/events", "");
            assert!(
                statuses.contains(&answer.status),
                "{}: {}",
                answer.status,
                answer.body
            );
        }
        asked += 1;
    };
    refused(
        &|b| b.origin = Some("http://evil.example".to_owned()),
        &[403],
        true,
    );
    refused(&|b| b.origin = Some("null".to_owned()), &[403], true);
    refused(&|b| b.origin = None, &[403], false);
    refused(&|b| b.ours = false, &[403], true);
    refused(
        &|b| b.more = "Sec-Fetch-Site: cross-site\r\n".to_owned(),
        &[403],
        true,
    );
    refused(
        &|b| b.more = "Sec-Fetch-Site: same-site\r\n".to_owned(),
        &[403],
        true,
    );
    // DNS rebinding: the name of somebody else, with an origin that fits it.
    refused(
        &|b| {
            let host = format!("evil.example:{}", b.address.port());
            b.origin = Some(format!("http://{host}"));
            b.host = host;
        },
        &[421],
        true,
    );
    refused(
        &|b| b.more = format!("Host: {}\r\n", b.host),
        &[421, 400],
        true,
    );
    refused(&|b| b.cookie = None, &[401], true);
    assert_eq!(asked, 9);
    assert_eq!(server.status()["last_seq"], before, "nothing was done");
    let fine = browser.ask("POST", &path, body);
    assert_eq!(fine.status, 200, "{}", fine.body);
}

// Security 9: what is no JSON is not taken, and looking changes nothing.
#[test]
fn only_json_is_taken_and_shells_are_not_offered() {
    let (_server, browser) = opened();
    let path = format!("/v1/systems/{NAME}/session");
    let head = browser
        .head("POST", &path, 2)
        .replace("Content-Type: application/json", "Content-Type: text/plain");
    let mut stream = TcpStream::connect(browser.address).unwrap();
    stream.write_all((head + "{}").as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 415"), "{said}");
    let mut upgrading = browser;
    upgrading.more = "Upgrade: flipside-shell\r\n".to_owned();
    let answer = upgrading.ask("GET", &format!("/v1/systems/{NAME}/shell"), "");
    assert_eq!(answer.status, 404, "{}", answer.body);
    upgrading.more.clear();
    for method in ["GET", "PUT"] {
        let answer = upgrading.ask(
            method,
            "/v1/console/users/eve",
            "{\"operator\":true,\"password\":\"long enough now\"}",
        );
        assert_eq!(
            answer.status, 404,
            "users are a matter of the Unix socket: {}",
            answer.body
        );
    }
}

// A viewer looks; only an operator may send requests. Taking a user away ends what is open.
#[test]
fn a_viewer_looks_and_changes_nothing() {
    let (server, _) = opened();
    set_user(&server, "eve", "viewer", "a long password");
    let mut browser = Browser::of(&server);
    assert_eq!(browser.log_in("eve", "a long password").status, 200);
    assert_eq!(
        browser
            .ask("GET", &format!("/v1/systems/{NAME}"), "")
            .status,
        200
    );
    let before = server.status()["last_seq"].clone();
    for (method, path) in [
        ("POST", format!("/v1/systems/{NAME}/session")),
        ("POST", format!("/v1/systems/{NAME}/power")),
        ("POST", format!("/v1/systems/{NAME}/run")),
        ("DELETE", format!("/v1/systems/{NAME}")),
    ] {
        let answer = browser.ask(method, &path, r#"{"command":"check","no_config":true}"#);
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.body);
    }
    assert_eq!(server.status()["last_seq"], before);
    let mut stream = browser.open("GET", "/v1/events", "");
    let mut begun = [0; 512];
    assert!(stream.read(&mut begun).unwrap() > 0);
    assert!(server.client(&["user", "remove", "eve"]).status.success());
    // Security 11: an open stream ends with the login.
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(browser.ask("GET", "/v1/systems", "").status, 401);
}

// Security 12, 15: nothing inline, nothing from elsewhere, nothing in a frame; no path leads to a file of the host.
#[test]
fn the_pages_are_closed_to_the_outside() {
    let server = Server::start();
    let browser = Browser::of(&server);
    for path in [
        "/",
        "/etc/passwd",
        "/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/assets/../../x",
        "/v1/x",
        "/console/x",
    ] {
        let answer = browser.ask("GET", path, "");
        assert!(!answer.body.contains("root:"), "{path}");
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-opener-policy: same-origin",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(
                answer.head.contains(header),
                "{path}: {header}\n{}",
                answer.head
            );
        }
        assert!(
            !answer.head.contains("unsafe") && !answer.head.contains("access-control"),
            "{}",
            answer.head
        );
    }
}

// The console shows why it shows nothing when its pages were not built.
#[test]
fn without_its_pages_the_console_says_what_to_do() {
    let mut server = Server::prepare();
    let mut command = server.command(&server.socket());
    command
        .arg("--console-dir")
        .arg(server.dir.path().join("nowhere"));
    server.run(command, std::path::PathBuf::new());
    let answer = Browser::of(&server).ask("GET", "/", "");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("./dev console") && answer.body.contains("--console-dir"));
}

// Security 6: no address that others can reach without TLS.
#[test]
fn an_open_address_without_tls_is_refused() {
    let server = Server::prepare();
    let arguments = server.arguments(&server.socket());
    let open = arguments
        .into_iter()
        .map(|argument| match argument.as_str() {
            "127.0.0.1:0" => "0.0.0.0:0".to_owned(),
            _ => argument,
        });
    let mut command = flipside();
    command.args(open);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("--tls-cert"),
        "{said}"
    );
    assert!(!server.socket().exists(), "nothing was begun");
}

// What the command line does, a page sees at once, in one stream; whoever comes back with the cursor misses nothing.
#[test]
fn events_tell_what_the_command_line_does() {
    let (server, browser) = opened();
    let mut stream = browser.open("GET", &format!("/v1/events?system={NAME}"), "");
    let mut heard = String::new();
    let mut hear = |heard: &mut String, what: &str| {
        while !heard.contains(what) {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "{heard}");
            heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    hear(&mut heard, "event: log");
    assert!(
        heard.contains(r#"data: {"systems":["web"]}"#) && heard.contains("text/event-stream"),
        "{heard}"
    );
    heard.clear();
    assert_eq!(server.session("check", None).status, 200);
    hear(&mut heard, "\"operational_state\":\"Busy\"");
    server.settled();
    hear(&mut heard, "\"operational_state\":\"Broken\"");
    hear(&mut heard, "event: log");
}
