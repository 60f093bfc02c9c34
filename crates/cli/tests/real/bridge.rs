//! A production network on a bridge, with real users on its other end (design section 4, invariants 1 and 3, faults 49 to 51).

use crate::READY;
use crate::real::wire::{BRIDGE, GUEST, Wire};
use crate::real::{BOOT, Extras, Lab, NAME, images, until};
use flipside_model::{OperationalState as O, UpgradeState as S};
use std::time::{Duration, Instant};

/// Both services are controlled, so that the port is really closed while the users move.
const CONFIG: &str =
    "version = 1\ntitle = \"bridge\"\nservices = [\"mini-writer.service\", \"nginx.service\"]\n";

/// The address of the card, as an administrator gives it. It stays while the link is down.
const NETWORK: &str = "[Match]\\nName=eth0\\n[Link]\\nRequiredForOnline=no\\n[Network]\\nAddress=10.99.0.2/24\\n\
                       LinkLocalAddressing=no\\nIPv6AcceptRA=no\\nIgnoreCarrierLoss=yes\\nKeepConfiguration=yes\\n";

struct World {
    // Ended first: its machines are in the namespace.
    lab: Lab,
    wire: Wire,
    config: String,
}

/// Makes the network and a system on it, and lets the client ask. None where it cannot be made.
fn world() -> Option<World> {
    let images = images()?;
    if let Some(why) = Wire::missing() {
        // In CI this test must not skip itself in silence.
        assert!(std::env::var_os("CI").is_none(), "{why}");
        println!("skipped: {why}");
        return None;
    }
    let mut made = None;
    let lab = Lab::with(|dir| {
        let wire = made.insert(Wire::new(dir));
        Extras {
            namespace: Some(wire.host().to_owned()),
            ..Extras::default()
        }
    });
    let mut wire = made.expect("made");
    let config = lab.dir.join("bridge.Config").display().to_string();
    std::fs::write(&config, CONFIG).expect("written");
    let image = |name: &str| images.join(name).display().to_string();
    let (system, data) = (image("mini.raw"), image("mini-data.raw"));
    let create = |bridge: &str| {
        let network = format!("bridge={bridge}");
        let words = [
            "system",
            "create",
            NAME,
            "--memory",
            "384M",
            "--network",
            &network,
        ];
        let disks = ["--system-disk", &system, "--data-disk", &data];
        let args: Vec<String> = words
            .iter()
            .chain(&disks)
            .map(|w| (*w).to_owned())
            .collect();
        args
    };
    let borrowed = |args: &[String]| {
        args.iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let wrong = borrowed(&create("nobr"));
    let wrong: Vec<&str> = wrong.split('\n').collect();
    // Bad input: nothing is made for a bridge that is not there.
    lab.refused(
        &wrong,
        2,
        &["there is no bridge `nobr`", "ip link add nobr type bridge"],
    );
    let right = borrowed(&create(BRIDGE));
    let right: Vec<&str> = right.split('\n').collect();
    let mut published = right.clone();
    published.extend(["--publish", "8080:80"]);
    lab.refused(&published, 2, &["ports are not published on `bridge=br0`"]);
    lab.ok(&right);
    lab.ok(&["system", "start", NAME]);
    let network = format!(
        "printf '{NETWORK}' > /etc/systemd/network/05-bridge.network && networkctl reload && networkctl reconfigure eth0 && sync"
    );
    until("the guest has its address", BOOT, || {
        let ended = lab.try_sh(Some("production"), &network);
        (ended.status == Some(0)).then_some(())
    });
    until("the readiness check passes", BOOT, || {
        let ended = lab.run(&["check", NAME, "--config", &config]);
        (ended.status == Some(0)).then_some(())
    });
    wire.ask_all_the_time();
    let first = wire.settle();
    lab.note(&format!(
        "the client is served on {GUEST} ({:?})",
        first.elapsed()
    ));
    Some(World { lab, wire, config })
}

impl World {
    /// Sends a text to the client from a side, as a datagram.
    #[track_caller]
    fn say(&self, side: Option<&str>, text: &str) {
        let line = format!("for i in 1 2 3; do echo {text} > /dev/udp/10.99.0.1/9; done; true");
        let mut args = vec!["run", NAME];
        if let Some(side) = side {
            args.extend(["--side", side]);
        }
        args.extend(["--", "bash", "-c", &line]);
        self.lab.run(&args);
    }

    #[track_caller]
    fn split(&self) {
        let (lab, wire) = (&self.lab, &self.wire);
        let began = wire.settle();
        lab.ok(&["split", NAME, "--config", &self.config]);
        wire.settle();
        lab.is_in(S::Split, READY);
        let bad: Vec<_> = wire
            .connections_since(began)
            .into_iter()
            .filter(|c| c.failed.is_some())
            .collect();
        assert!(bad.is_empty(), "the split was noticed: {bad:#?}");
        assert_eq!(wire.joined_since(began), Vec::<String>::new(), "fault 51");
    }

    /// Moves the users, and checks what they saw of it.
    #[track_caller]
    fn moves(&self, args: &[&str], state: S) {
        let (lab, wire) = (&self.lab, &self.wire);
        let began = wire.settle();
        lab.ok(args);
        wire.settle();
        lab.is_in(state, READY);
        lab.note(&wire.nobody_was_refused(began, args[0]));
        assert_eq!(wire.two_at_once(), None, "invariant 1");
    }
}

// Design 4, invariants 1 and 3, faults 49, 50, 51 and 73, MG-18.
#[test]
#[ignore = "needs root, for network namespaces: `./dev test` runs it where it is root"]
fn the_users_of_a_bridge_are_moved_and_nobody_is_refused() {
    let Some(mut world) = world() else { return };
    world.split();
    // Invariant 3, fault 51: nothing that the Upgrade Side sends is on the bridge, though it has an address and a neighbour.
    world.say(Some("production"), "PRODUCTION-SPEAKS");
    world.say(None, "UPGRADE-SPEAKS");
    let (lab, wire) = (&world.lab, &world.wire);
    until(
        "the capture has what Production sent",
        Duration::from_secs(20),
        || (wire.frames_with("PRODUCTION-SPEAKS") > 0).then_some(()),
    );
    assert_eq!(wire.frames_with("UPGRADE-SPEAKS"), 0, "fault 51");

    // Fault 49: a bridge that is down is told before anybody is moved.
    wire.on_host(&format!("ip link set {BRIDGE} down"));
    lab.refused(&["merge", NAME, "--yes"], 1, &["the bridge `br0` is down"]);
    wire.on_host(&format!("ip link set {BRIDGE} up"));
    lab.is_in(S::PrepareMerge, O::Broken);
    wire.settle();
    world.moves(&["retry", NAME, "--yes"], S::Merge);
    world.say(Some("upgrade"), "UPGRADE-SERVES");
    until(
        "the new side is on the bridge",
        Duration::from_secs(20),
        || (wire.frames_with("UPGRADE-SERVES") > 0).then_some(()),
    );
    world.moves(&["abort", NAME, "--yes"], S::Abort);
    world.finish();
    world.somebody_has_our_address();
    world.somebody_has_our_name();

    let (lab, wire) = (&world.lab, &world.wire);
    // Fault 50: what announces the new side is lost, so the users are not let in; healed, a retry announces it again.
    let upgrade = wire.taps().pop().expect("two taps");
    wire.on_host("nft add table bridge lost");
    wire.on_host("nft add chain bridge lost in { type filter hook prerouting priority -400 ; }");
    wire.on_host(&format!(
        "nft add rule bridge lost in iifname {upgrade} drop"
    ));
    let began = wire.settle();
    let said = lab.refused(&["merge", NAME, "--yes"], 1, &["has not seen machine"]);
    lab.note(&said);
    lab.is_in(S::Merge, O::Broken);
    wire.on_host("nft delete table bridge lost");
    lab.ok(&["retry", NAME, "--yes"]);
    wire.settle();
    lab.is_in(S::Merge, READY);
    lab.note(&wire.nobody_was_refused(began, "a merge whose announcement was lost"));
    assert_eq!(wire.two_at_once(), None, "invariant 1");
    lab.ok(&["commit", NAME, "--yes"]);
    world.finish();
    world.wire.stop_asking();
    let (lab, wire) = (&world.lab, &world.wire);
    lab.ok(&["system", "stop", NAME, "--yes"]);
    // Fault 73
    assert_eq!(wire.taps(), Vec::<String>::new());
    assert_eq!(wire.on_host("nft list tables"), "");
    world.lab.end();
}

impl World {
    /// Fault 49: a second machine with the address on the wire is told, and no session begins.
    #[track_caller]
    fn somebody_has_our_address(&self) {
        let (lab, wire) = (&self.lab, &self.wire);
        let mac = wire.on_host("bridge fdb show dynamic");
        let mac = mac.lines().find(|l| l.contains(" dev fs"));
        let mac = mac.and_then(|l| l.split(' ').next()).expect("an address");
        let entry = format!("{mac} dev up0 master");
        wire.on_host(&format!("bridge fdb replace {entry} static sticky"));
        let args = ["check", NAME, "--config", &self.config];
        let ended = lab.run(&args);
        wire.on_host(&format!("bridge fdb delete {entry}"));
        assert_eq!(ended.status, Some(1), "{}{}", ended.out, ended.err);
        let log = lab.ok(&["log", NAME]);
        assert!(log.contains("is also behind `up0` of `br0`"), "{log}");
        lab.ok(&args);
    }

    /// Fault 49: a device with the name of the Upgrade Side's tap is not touched; without it a retry goes on.
    #[track_caller]
    fn somebody_has_our_name(&self) {
        let (lab, wire) = (&self.lab, &self.wire);
        let ours = wire.taps().pop().expect("a tap");
        let (system, number) = ours.rsplit_once('-').expect("a number");
        let number: u32 = number.parse().expect("a number");
        // Its number is one more than that of the last machine, which was the Upgrade Side that has been taken back.
        let theirs = format!("{system}-{}", number + 2);
        wire.on_host(&format!("ip link add {theirs} type bridge"));
        let split = ["split", NAME, "--config", &self.config];
        lab.refused(&split, 1, &[&theirs, "that flipside did not make"]);
        lab.is_in(S::Split, O::Broken);
        assert!(wire.taps().contains(&theirs), "it was removed");
        wire.on_host(&format!("ip link delete {theirs}"));
        lab.ok(&["retry", NAME, "--yes"]);
        lab.is_in(S::Split, READY);
        wire.settle();
    }

    #[track_caller]
    fn finish(&self) {
        let lab = &self.lab;
        lab.ok(&["finish", NAME, "--yes"]);
        lab.ok(&["wait", NAME, "--duplex", "--timeout", "300"]);
        assert_eq!(self.wire.taps().len(), 1, "{:?}", self.wire.taps());
        let began = Instant::now();
        self.wire.settle();
        let late = self.wire.connections_since(began);
        assert!(late.iter().all(|c| c.failed.is_none()), "{late:#?}");
    }
}
