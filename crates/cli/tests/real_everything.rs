//! One session that uses all of it at once, aborted and then committed, on one boot of a real guest.
//!
//! Two disks under one LVM volume that are marked System, a data disk, a configuration that calls two others, four services
//! that need each other, one of them started by its socket, a custom action of every type of which one fails and is retried, logs
//! that are saved, a spool that is carried over, a restart of the Upgrade Side, packages, and the log of both sessions as a file. Users never stop asking, and at the end the legs of all four disks are the same byte for byte.

#![allow(clippy::print_stdout)]

#[allow(dead_code, reason = "this test needs only a part of it")]
mod real;

#[path = "everything/actions.rs"]
mod actions;

use flipside_model::{DiskRole, OperationalState as O, UpgradeState as S};
use real::{Extras, Lab, NAME, until};
use std::time::{Duration, Instant};

/// A unit is started within this time, on a busy host too.
const STARTED: Duration = Duration::from_secs(60);

/// All controlled services, in start order.
const SERVICES: [&str; 4] = [
    "mini-writer.service",
    "shop-cache.service",
    "shop-web.service",
    "shop-door.service",
];

/// Makes a volume over two disks. The small guest leaves out the rules that the device mapper waits for.
const VOLUME: &str = r#"
set -e
cd /etc/udev/rules.d
rm -f 55-dm.rules 60-persistent-storage-dm.rules 69-lvm.rules 95-dm-notify.rules
udevadm control --reload
id() { echo /dev/disk/by-id/*_"$1"; }
pvcreate -qq -y $(id data1) $(id data2)
vgcreate -qq shop $(id data1) $(id data2)
lvcreate -qq -y -l 100%FREE -n app shop
mkfs.ext4 -q /dev/shop/app
"#;

/// Puts an application there: program files on the volume, units on the system disk. The door is a service that its socket
/// starts; the web needs the cache, and the cache the writer.
const INSTALL: &str = r#"
set -e
mkdir -p /opt/shop
echo '/dev/shop/app /opt/shop ext4 nofail 0 2' >>/etc/fstab
cd /etc/systemd/system
unit() { printf '[Unit]\nRequires=%s\nAfter=%s\n[Service]\nExecStart=%s\n[Install]\nWantedBy=multi-user.target\n' "$2" "$2" "$3" >"$1"; }
unit shop-cache.service mini-writer.service '/bin/sleep infinity'
unit shop-web.service shop-cache.service '/bin/sleep infinity'
unit shop-door.service mini-writer.service '/lib/systemd/systemd-socket-proxyd 127.0.0.1:8080'
sed -i '/WantedBy/d; /Install/d' shop-door.service
printf '[Socket]\nListenStream=127.0.0.1:8090\n[Install]\nWantedBy=sockets.target\n' >shop-door.socket
systemctl daemon-reload
mount /opt/shop
echo old >/opt/shop/version
systemctl enable --quiet --now shop-cache.service shop-web.service shop-door.socket
sync
"#;

/// Asks through the socket, which starts the door.
const KNOCK: &str = "exec 3<>/dev/tcp/127.0.0.1/8090 && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q ok <&3";

/// What an upgrade does: a package, a new version on the spanned volume, a marker on the system disk.
const UPGRADE: &str = "set -e; cd /tmp; rm -rf probe; mkdir -p probe/DEBIAN; printf 'Package: flipside-probe\\nVersion: 2.0\\n\
    Architecture: all\\nMaintainer: nobody <nobody@localhost>\\nDescription: a probe\\n' >probe/DEBIAN/control; \
    dpkg-deb -b probe probe.deb; dpkg -i probe.deb; echo new >/opt/shop/version; sync";

/// The configuration calls the shop's, which calls the database's. What the children say of disks counts for nothing.
const CONFIGS: [(&str, &str); 4] = [
    (
        "all.Config",
        "version = 1\ntitle = \"All of it\"\ncomments = \"for the shop\"\nchildren = [\"shop.Config\"]\nservices = [\"shop-door\"]\n\
         [[health]]\ncommand = [\"/usr/bin/test\", \"-s\", \"/srv/data/writes.log\"]\n[disks]\nsystem = [\"data1\", \"data2\"]\n",
    ),
    (
        "half.Config",
        "version = 1\n[disks]\nsystem = [\"data1\"]\n",
    ),
    (
        "shop.Config",
        "version = 1\ntitle = \"Shop\"\nchildren = [\"db.Config\"]\nservices = [\"shop-cache\", \"shop-web\"]\n",
    ),
    (
        "db.Config",
        "version = 1\nservices = [\"mini-writer\"]\n[disks]\nsystem = [\"data0\"]\n",
    ),
];

/// A configuration with more in it: what stands before its first table goes before those of the text.
fn with_tables_last(text: &str, more: &str) -> String {
    let (keys, tables) = more.split_at(more.find("\n[").unwrap_or(more.len()));
    let (own_keys, own_tables) = text.split_at(text.find("\n[").unwrap_or(text.len()));
    format!("{own_keys}{keys}{own_tables}\n{tables}")
}

struct Shop {
    lab: Lab,
    config: String,
}

impl Shop {
    fn open() -> Option<Self> {
        let extras = Extras {
            data_disks: vec!["96M", "96M"],
            ..Extras::default()
        };
        let lab = Lab::booted_with(|_| extras)?;
        if lab.try_sh(Some("production"), "command -v lvcreate").status != Some(0) {
            println!("skipped: the small guest has no lvm2; name it in guest/lib/mini.sh");
            return None;
        }
        for (name, text) in CONFIGS {
            let more = match name {
                "all.Config" => actions::OF_PARENT,
                "shop.Config" => actions::OF_CHILD,
                _ => "",
            };
            let text = with_tables_last(text, more);
            std::fs::write(lab.dir.join(name), text).expect("written");
        }
        let config = lab.dir.join("all.Config").display().to_string();
        lab.sh(Some("production"), VOLUME);
        lab.note("the volume is there");
        lab.sh(Some("production"), INSTALL);
        lab.sh(Some("production"), actions::INSTALL);
        lab.note("the application is installed");
        let shop = Self { lab, config };
        until("the door is open", STARTED, || shop.knocks("production"));
        Some(shop)
    }

    /// Asks through the socket of a side.
    fn knocks(&self, side: &str) -> Option<()> {
        let ended = self
            .lab
            .run(&["run", NAME, "--side", side, "--", "bash", "-c", KNOCK]);
        (ended.status == Some(0)).then_some(())
    }

    /// What a side says of a file.
    #[track_caller]
    fn says(&self, side: &str, file: &str) -> String {
        self.lab
            .sh(Some(side), &format!("cat {file}"))
            .trim()
            .to_owned()
    }

    /// Which of the services run on a side, and which are held, in start order.
    #[track_caller]
    fn services(&self, side: &str) -> Vec<(String, bool, bool)> {
        let told = self.lab.ok(&["services", NAME, "--side", side, "--json"]);
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let all = told["services"].as_array().expect("services").iter();
        all.map(|one| {
            let flag = |key: &str| one[key].as_bool().expect("yes or no");
            let unit = one["unit"].as_str().expect("a unit").to_owned();
            (unit, flag("active"), flag("held"))
        })
        .collect()
    }

    #[track_caller]
    fn run_on(&self, side: &str) {
        let expected: Vec<_> = SERVICES
            .iter()
            .map(|s| ((*s).to_owned(), true, false))
            .collect();
        assert_eq!(self.services(side), expected, "on the {side} side");
    }

    #[track_caller]
    fn held_on_the_upgrade_side(&self) {
        for (unit, active, held) in self.services("upgrade") {
            assert!(!active && held, "{unit} on the Upgrade Side");
        }
        // Nothing starts the door behind its gate either.
        assert_eq!(
            self.knocks("upgrade"),
            None,
            "somebody answers on the Upgrade Side"
        );
        assert!(
            !self.services("upgrade")[3].1,
            "the socket started its service"
        );
    }

    /// CF-27, CF-30, CF-33, SU-06, DK-15: what is in force, and that both disks of the volume are system disks.
    #[track_caller]
    fn check(&self) {
        // DK-15, DK-32: half of a volume cannot be upgraded; the other disk is named.
        let half = self.lab.dir.join("half.Config").display().to_string();
        let said = self.lab.run(&["check", NAME, "--config", &half]);
        assert_eq!(said.status, Some(1), "{}{}", said.out, said.err);
        assert!(said.out.contains("`data2` holds data"), "{}", said.out);
        let said = self.lab.ok(&["check", NAME, "--config", &self.config]);
        assert!(said.contains("/usr/local/sbin/shop ready"), "{said}");
        let summary = self.lab.ok(&["config", "summary", &self.config]);
        for (item, from) in [
            ("shop-door", "own"),
            ("mini-writer", "inherited from db.Config"),
            ("data1", "own"),
        ] {
            let found = summary
                .lines()
                .any(|line| line.contains(item) && line.ends_with(from));
            assert!(found, "{item} {from}: {summary}");
        }
        assert!(!summary.contains("data0"), "a child's disks: {summary}");
    }

    /// Splits, and installs on the Upgrade Side, which is restarted. Production goes on and sees nothing of it.
    #[track_caller]
    fn split_and_upgrade(&self, restart: bool) {
        let lab = &self.lab;
        let began = lab.client().settle();
        lab.ok(&["split", NAME]);
        let status = lab.is_in(S::Split, O::Ready);
        let role = |name: &str| {
            let disk = status.disks.iter().find(|disk| disk.name.as_str() == name);
            disk.expect("the disk").role
        };
        assert_eq!(
            ["system0", "data0", "data1", "data2"].map(role),
            [
                DiskRole::System,
                DiskRole::Data,
                DiskRole::System,
                DiskRole::System
            ]
        );
        self.held_on_the_upgrade_side();
        lab.sh(None, UPGRADE);
        if restart {
            let before = lab.sh(None, "cat /proc/sys/kernel/random/boot_id");
            lab.ok(&["restart", NAME, "--side", "upgrade"]);
            lab.upgrade_side_is_up_again(before.trim());
            // The volume is put together again from its own legs, and nothing comes back by itself (SP-03, SV-08, US-17).
            until("the volume is mounted again", STARTED, || {
                let ended = lab.try_sh(None, "mountpoint -q /opt/shop");
                (ended.status == Some(0)).then_some(())
            });
            self.held_on_the_upgrade_side();
            lab.is_in(S::Split, O::Ready);
        }
        assert_eq!(self.says("upgrade", "/opt/shop/version"), "new");
        assert_eq!(self.says("production", "/opt/shop/version"), "old");
        let there = lab.try_sh(None, "mountpoint -q /srv/data");
        assert_ne!(there.status, Some(0), "the Upgrade Side has live data");
        let changes = lab.ok(&["packages", NAME, "--diff"]);
        assert!(changes.contains("+  flipside-probe  2.0"), "{changes}");
        lab.client().settle();
        let failed = lab.client().failures_since(began);
        assert!(failed.is_empty(), "in Split: {failed:#?}");
    }

    /// Moves the users; everything runs there with the data, and real users work with it before anything is decided (VC-01 to VC-07).
    #[track_caller]
    fn merge(&self, session: u32) {
        let lab = &self.lab;
        actions::refuses_the_merge_until_it_may(self, session);
        lab.ok(&["retry", NAME, "--yes"]);
        let status = lab.is_in(S::Merge, O::Ready);
        lab.note(&format!("outage {:?} ms", status.outage_ms));
        self.run_on("upgrade");
        until("the door is open", STARTED, || self.knocks("upgrade"));
        assert_eq!(self.says("upgrade", "/opt/shop/version"), "new");
        let moved = Instant::now();
        until("users have written after the merge", STARTED, || {
            (lab.client().acknowledged_since(moved) >= 3).then_some(())
        });
        actions::hold_after_the_merge(self, session);
    }

    /// The log of a session as a file: well-formed, with its configuration and its end (AL-16, AL-24, invariant 26).
    #[track_caller]
    fn exported(&self, number: &str, outcome: &str) {
        let file = self.lab.dir.join(format!("session-{number}.xml"));
        let name = file.display().to_string();
        self.lab
            .ok(&["log", NAME, "--session", number, "--export", &name]);
        let xml = std::fs::read_to_string(&file).expect("saved");
        let document = roxmltree::Document::parse(&xml).expect("well-formed");
        let session = document
            .descendants()
            .find(|node| node.tag_name().name() == "session");
        let session = session.expect("the session");
        assert_eq!(session.attribute("configuration"), Some("all.Config"));
        assert_eq!(session.attribute("outcome"), Some(outcome));
        let mut records: Vec<u64> = Vec::new();
        for node in document.descendants() {
            let found = node.attribute("records").or(node
                .attribute("number")
                .filter(|_| node.tag_name().name() == "record"));
            records.extend(
                found
                    .into_iter()
                    .flat_map(|text| text.split(' '))
                    .map(|n| n.parse::<u64>().expect("a number")),
            );
        }
        records.sort_unstable();
        assert!(
            records.windows(2).all(|two| two[1] == two[0] + 1),
            "a record is missing or twice: {records:?}"
        );
        let open = document
            .descendants()
            .any(|node| node.attribute("own") == Some("Pending"));
        assert!(!open, "an entry of a session that has ended is Pending");
    }
}

// The issue's "It must hold", with everything that is there: the same upgrade aborted and then committed.
#[test]
#[ignore = "two whole sessions, eight minutes: `./dev test --full`"]
fn everything_at_once_aborted_and_then_committed() {
    let Some(mut shop) = Shop::open() else { return };
    shop.check();
    let first_boot = shop.lab.boot_id();

    shop.split_and_upgrade(true);
    shop.merge(1);
    shop.lab.ok(&["abort", NAME, "--yes"]);
    shop.lab.is_in(S::Abort, O::Ready);
    assert_eq!(
        shop.lab.boot_id(),
        first_boot,
        "Production goes on where it was"
    );
    shop.run_on("production");
    until("the door is open", STARTED, || shop.knocks("production"));
    assert_eq!(shop.says("production", "/opt/shop/version"), "old");
    actions::hold_after_the_abort(&shop);
    shop.lab.finish();
    shop.lab.sh(
        Some("production"),
        "echo waiting >/var/spool/shop/order-1; : >/var/log/shop.runs; sync",
    );

    // After an abort the next session begins with the configuration that was checked last (CF-40).
    shop.split_and_upgrade(false);
    shop.merge(2);
    shop.lab.ok(&["commit", NAME, "--yes"]);
    shop.lab.finish();
    assert_eq!(shop.says("production", "/opt/shop/version"), "new");
    actions::hold_after_the_commit(&shop);
    shop.run_on("production");
    let enabled = shop.lab.sh(
        Some("production"),
        "systemctl is-enabled shop-cache.service shop-web.service shop-door.socket",
    );
    assert_eq!(
        enabled.split_whitespace().collect::<Vec<_>>(),
        ["enabled"; 3]
    );

    shop.exported("1", "aborted");
    shop.exported("2", "committed");
    shop.lab.stop_and_compare();
}
