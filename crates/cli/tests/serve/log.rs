//! Whoever follows the log misses nothing and reads nothing twice, whatever happens to the server (AL-21, AL-24).

use crate::server::{NAME, Server, flipside, until};
use flipside_activity::Tree;
use flipside_model::Entry;
use std::process::{Child, Stdio};

/// Ends the follower with the test.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every record that the server has, as the log shows it to somebody who follows.
fn expected(server: &Server) -> Vec<String> {
    let answer = server.ask("GET", &format!("/v1/systems/{NAME}/log"), "");
    let entries = answer.body.lines().filter(|line| !line.is_empty());
    let entries: Vec<Entry> = entries
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut tree = Tree::default();
    let lines = entries.iter().flat_map(|entry| tree.push(entry));
    lines.map(|line| line.json()).collect()
}

// The sequence cursor of `log --follow`: killed servers, told-to-stop servers, and what was recorded while nobody listened.
#[test]
fn a_follower_misses_nothing_when_the_server_is_started_again() {
    let mut server = Server::start();
    server.create();
    let file = server.dir.path().join("followed");
    let mut command = flipside();
    command.args(["log", NAME, "--follow", "--json", "--socket"]);
    command.arg(server.socket());
    command.stdout(std::fs::File::create(&file).unwrap());
    let follower = Follower(command.stderr(Stdio::null()).spawn().unwrap());
    for round in 0..3 {
        assert_eq!(server.session("check", None).status, 200);
        if round == 1 {
            // In the middle of whatever it does.
            server.kill();
        } else {
            server.settled();
            server.kill();
        }
        server.again();
        server.settled();
    }
    let expected = expected(&server);
    assert!(expected.len() > 10, "{expected:?}");
    let followed = until("all was followed", || {
        let followed = std::fs::read_to_string(&file).unwrap();
        let whole = followed.ends_with('\n');
        let lines: Vec<String> = followed.lines().map(str::to_owned).collect();
        (whole && lines.len() >= expected.len()).then_some(lines)
    });
    assert_eq!(followed, expected);
    drop(follower);
}
