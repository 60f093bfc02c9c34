//! Reads what `systemctl show` prints.

use std::collections::HashMap;

/// The name of every gate's drop-in.
pub(super) const DROP_IN: &str = "50-flipside-gate.conf";

/// The properties of one unit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Shown(HashMap<String, String>);

impl Shown {
    pub(super) fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub(super) fn exists(&self) -> bool {
        !matches!(self.get("LoadState"), "not-found" | "")
    }

    /// Whether it runs, or is about to.
    pub(super) fn active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading")
    }

    /// Whether nothing of it runs.
    pub(super) fn down(&self) -> bool {
        matches!(self.get("ActiveState"), "inactive" | "failed" | "")
    }

    pub(super) fn startup(&self) -> String {
        match self.get("UnitFileState") {
            "" if !self.exists() => "not-found".to_owned(),
            state => state.to_owned(),
        }
    }

    pub(super) fn has_gate(&self) -> bool {
        self.get("DropInPaths")
            .split_whitespace()
            .any(|path| path.rsplit('/').next() == Some(DROP_IN))
    }

    /// The name under which systemd knows it, when it was asked for by another one: an alias.
    pub(super) fn real_name(&self, asked: &str) -> Option<String> {
        let real = self.get("Id");
        let other = self.exists() && real != asked && super::escape::is_unit(real);
        other.then(|| real.to_owned())
    }

    pub(super) fn triggers(&self) -> impl Iterator<Item = &str> {
        self.get("TriggeredBy").split_whitespace()
    }
}

/// Reads the blocks, one for each unit asked, in that order; `None` when their number is another.
pub(super) fn shown(text: &str, units: usize) -> Option<Vec<Shown>> {
    let mut all: Vec<Shown> = Vec::new();
    let mut fresh = true;
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else {
            fresh = true;
            continue;
        };
        if fresh {
            all.push(Shown::default());
            fresh = false;
        }
        if let Some(last) = all.last_mut() {
            last.0.insert(key.to_owned(), value.to_owned());
        }
    }
    (all.len() == units).then_some(all)
}

/// Reads the first column of `systemctl list-units --plain --no-legend`, and whether each is active.
pub(super) fn listed(text: &str) -> Vec<(String, bool)> {
    text.lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let unit = columns.next()?;
            let active = columns.nth(1)?;
            Some((unit.to_owned(), active == "active"))
        })
        .collect()
}

/// What of the units that run is stopped when a pattern names it: kinds that act, without what the guest itself,
/// its operator or flipside needs.
pub(super) fn may_be_quieted(unit: &str) -> bool {
    let kind = unit.rsplit('.').next().unwrap_or_default();
    match kind {
        "timer" => true,
        "service" | "socket" | "path" => {
            const KEPT: [&str; 11] = [
                "systemd-",
                "dbus",
                "ssh",
                "getty",
                "serial-getty",
                "console-getty",
                "container-getty",
                "qemu-guest-agent",
                "qemu-ga",
                "user@",
                "emergency",
            ];
            !KEPT.iter().any(|kept| unit.starts_with(kept))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ControlGroup=\nId=a.service\nLoadState=loaded\nActiveState=active\n\
        DropInPaths=/etc/systemd/system/a.service.d/10-x.conf /etc/systemd/system/a.service.d/50-flipside-gate.conf\n\
        UnitFileState=enabled\nExecStart={ path=/x ; argv[]=/x }\n\nId=b.service\nLoadState=not-found\n\
        ActiveState=inactive\nDropInPaths=\nUnitFileState=\n";

    #[test]
    fn blocks_are_units() {
        let all = shown(TEXT, 2).expect("two");
        assert!(all[0].exists() && all[0].active() && all[0].has_gate() && !all[0].down());
        assert_eq!(all[0].startup(), "enabled");
        assert!(!all[1].exists() && all[1].down() && !all[1].has_gate());
        assert_eq!(all[1].startup(), "not-found");
        assert_eq!(shown(TEXT, 3), None);
        assert_eq!(shown("", 0), Some(Vec::new()));
        assert_eq!(shown("\n\nno property\n", 1), None);
    }

    #[test]
    fn lists_and_what_may_be_stopped() {
        let list =
            listed("cron.service loaded active running X Y\nb.timer loaded activating z\nbroken\n");
        assert_eq!(
            list,
            [
                ("cron.service".to_owned(), true),
                ("b.timer".to_owned(), false)
            ]
        );
        for yes in [
            "cron.service",
            "systemd-tmpfiles-clean.timer",
            "apt-daily.service",
        ] {
            assert!(may_be_quieted(yes), "{yes}");
        }
        for no in [
            "qemu-guest-agent.service",
            "systemd-networkd.service",
            "dbus.socket",
            "ssh.service",
            "sshd@1.service",
            "getty@tty1.service",
            "srv-data.mount",
            "system.slice",
            "multi-user.target",
            "session-1.scope",
        ] {
            assert!(!may_be_quieted(no), "{no}");
        }
    }
}
