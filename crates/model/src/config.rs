//! The resolved settings of one upgrade, frozen into the session at its start (CF-05, invariant 20).

use crate::{CustomAction, DiskName, LogBackup, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What acts by itself on a Debian server and is stopped on the Upgrade Side, so that nothing is done twice
/// (design 3.5). Patterns as `systemctl list-units` takes them; editable in the configuration file.
pub const QUIESCE_UNITS: [&str; 22] = [
    "*.timer",
    "cron.service",
    "crond.service",
    "atd.service",
    "anacron.service",
    "exim4.service",
    "postfix.service",
    "postfix@*.service",
    "sendmail.service",
    "opensmtpd.service",
    "unattended-upgrades.service",
    "apt-daily.service",
    "apt-daily-upgrade.service",
    "puppet.service",
    "salt-minion.service",
    "chef-client.service",
    "cfengine3.service",
    "bareos-fd.service",
    "bacula-fd.service",
    "burp.service",
    "certbot.service",
    "fwupd-refresh.service",
];

/// Well-known places of data that a Commit would lose when they lie on a system disk (design 3.10).
pub const DATA_PATHS: [(&str, &str); 12] = [
    ("postgres", "/var/lib/postgresql"),
    ("mysqld", "/var/lib/mysql"),
    ("mariadbd", "/var/lib/mysql"),
    ("mongod", "/var/lib/mongodb"),
    ("redis-server", "/var/lib/redis"),
    ("slapd", "/var/lib/ldap"),
    ("influxd", "/var/lib/influxdb"),
    ("etcd", "/var/lib/etcd"),
    ("dovecot", "/var/mail"),
    ("cyrmaster", "/var/spool/cyrus"),
    ("prometheus", "/var/lib/prometheus"),
    ("elasticsearch", "/var/lib/elasticsearch"),
];

/// What `carry = ["default"]` stands for, in the spirit of Solaris' synclist: what users and programs put on a system disk
/// while it serves, and nobody wants to lose.
pub const CARRY_PATHS: [&str; 12] = [
    "/var/spool/cron",
    "/var/spool/at",
    "/var/spool/exim4",
    "/var/spool/postfix",
    "/var/mail",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/subuid",
    "/etc/subgid",
    "/etc/aliases",
];

/// The longest time-out an operator may set, in seconds: one day.
pub const MAX_TIMEOUT_SECONDS: u32 = 86_400;

/// A path whose loss at Commit the operator accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AcceptLoss(pub String);

/// A check that must pass on the Upgrade Side before the front door opens again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Program and arguments, run in the guest without a shell; exit status 0 is healthy.
    pub command: Vec<String>,
}

/// Deadlines of the operations, in seconds (gap G.1.13; SP-14: split 5 minutes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Split, the time-out of the guide.
    pub split: u32,
    /// PrepareSplit and PrepareMerge.
    pub prepare: u32,
    /// Merge.
    pub merge: u32,
    /// Commit until its resynchronisation has started.
    pub commit: u32,
    /// Abort, which may include a restart of the guest.
    pub abort: u32,
    /// Finish.
    pub finish: u32,
    /// Stopping or starting the controlled services.
    pub service: u32,
    /// Until the health checks pass after the start.
    pub health: u32,
    /// Waiting for requests in flight before the services stop.
    pub drain: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            split: 300,
            prepare: 300,
            merge: 300,
            commit: 300,
            abort: 900,
            finish: 300,
            service: 90,
            health: 90,
            drain: 2,
        }
    }
}

/// A configuration file as it was read: kept with the settings that it gave (CF-05).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Its name, without a directory.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// All settings of one upgrade after parsing, nesting and merging.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeConfig {
    /// Title of the upgrade.
    pub title: String,
    /// Free text.
    pub comments: String,
    /// Services to control, in start order; they are stopped in reverse.
    pub services: Vec<ServiceName>,
    /// Unit patterns stopped on the Upgrade Side because they act by themselves.
    pub quiesce: Vec<String>,
    /// Directories whose loss at Commit is accepted.
    pub accept_loss: Vec<AcceptLoss>,
    /// Further data paths to look for on system disks.
    pub data_paths: Vec<String>,
    /// Health checks run after the start.
    pub health: Vec<HealthCheck>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Leave the throw-away copy of the data on the Upgrade Side (rehearsal).
    pub rehearsal: bool,
    /// Keep the data as they are at the merge, so that an abort can take them back (data checkpoint).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpoint: bool,
    /// Files and directories of the Production Side that the merge carries over: paths and patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carry: Vec<String>,
    /// Disks marked System besides the mandatory system disks (DK-03).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub system_disks: Vec<DiskName>,
    /// Disks marked Data although they were made system disks (DK-03); a mandatory system disk never (DK-08).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_disks: Vec<DiskName>,
    /// The child file that brought an item of the settings, by key and value; what is not here is the file's own (CF-34).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inherited: BTreeMap<String, String>,
    /// Custom actions, in the order of the list: children first (gap G.3.38).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<CustomAction>,
    /// Logs to save from the Production Side in the merge.
    #[serde(default, skip_serializing_if = "LogBackup::is_empty")]
    pub log_backup: LogBackup,
    /// The staging copy: the file and every file it calls, as they were read (CF-05). The first one is the parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ConfigFile>,
}

impl UpgradeConfig {
    /// Returns the child file that brought an item, or none when the file itself says it.
    pub fn inherited_from(&self, key: &str, value: &str) -> Option<&str> {
        let file = self.inherited.get(&Self::inherited_key(key, value));
        file.map(String::as_str)
    }

    /// Returns the name of an item in `inherited`.
    pub fn inherited_key(key: &str, value: &str) -> String {
        format!("{key}/{value}")
    }

    /// Returns the settings used when there is no configuration file (RC-48).
    pub fn none() -> Self {
        Self {
            quiesce: QUIESCE_UNITS.iter().map(|u| (*u).to_owned()).collect(),
            ..Self::default()
        }
    }
}
