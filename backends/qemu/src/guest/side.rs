//! What is asked of the Upgrade Side beyond its services: how its software is, what its crashes left, and what it shows to
//! whoever works on it (US-13, US-31, VC-06 to VC-08, AB-11).

use super::escape::words;
use super::link::{Script, refused};
use super::{LinuxGuest, limits, records, script};
use flipside_model::{Condition, MachineId, PackageFault};
use flipside_platform::{CrashFile, Notice, PortError, PortErrorKind, PortResult};
use flipside_qmp::Exec;
use std::time::Duration;

static VERIFY: Script = script!("compare the packages with their files", "verify");
static CONDITION: Script = script!("tell how the system is", "condition");
static STAMP: Script = script!("look at the package database", "stamp");
static HOST_KEYS: Script = script!("read the SSH host keys", "hostkeys");
static PUBLISH: Script = script!("show log and help", "publish");
static CRASHES: Script = script!("list crash files", "crashes");
static PIECE: Script = script!("read a file", "piece");

/// Faults of packages that are told; a guest with more has been copied, not installed.
const FAULTS: usize = 10_000;

/// The longest SSH host key line: RSA with 16 Kibit has 2.8 KB.
const KEY: usize = 4096;

impl LinuxGuest {
    pub(super) async fn verify(&self, id: MachineId) -> PortResult<Vec<PackageFault>> {
        let out = self.link.script(id, &VERIFY, &[], limits::VERIFY).await?;
        Ok(faults(&String::from_utf8_lossy(&out)))
    }

    pub(super) async fn read_condition(&self, id: MachineId) -> PortResult<Condition> {
        let out = self.link.script(id, &CONDITION, &[], limits::LOOK).await?;
        Ok(condition(&String::from_utf8_lossy(&out)))
    }

    pub(super) async fn read_stamp(&self, id: MachineId) -> PortResult<String> {
        let out = self.link.script(id, &STAMP, &[], limits::LOOK).await?;
        Ok(words(&out))
    }

    pub(super) async fn read_host_keys(&self, id: MachineId) -> PortResult<Vec<String>> {
        let out = self.link.script(id, &HOST_KEYS, &[], limits::LOOK).await?;
        Ok(host_keys(&String::from_utf8_lossy(&out)))
    }

    pub(super) async fn show_notice(&self, id: MachineId, notice: &Notice) -> PortResult<()> {
        let fixed = ["-c", PUBLISH.text, "flipside", &notice.help].map(str::to_owned);
        let mut exec = Exec::new("/bin/sh", fixed);
        exec.input = Some(end_of(&notice.log).as_bytes().to_vec());
        let status = self
            .link
            .run(id, PUBLISH.what, &exec, limits::PUBLISH)
            .await?;
        if status.success() {
            return Ok(());
        }
        Err(refused(id, PUBLISH.what, &status))
    }

    pub(super) async fn list_crash_files(
        &self,
        id: MachineId,
        within: Duration,
    ) -> PortResult<Vec<CrashFile>> {
        let arguments = [
            (within.as_secs() / 60 + 1).to_string(),
            limits::CRASHES.to_string(),
        ];
        let out = self
            .link
            .script(id, &CRASHES, &arguments, limits::LOOK)
            .await?;
        Ok(crashes(&String::from_utf8_lossy(&out)))
    }

    pub(super) async fn read_piece(
        &self,
        id: MachineId,
        path: &str,
        offset: u64,
        most: usize,
    ) -> PortResult<Vec<u8>> {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(PortError::new(
                PortErrorKind::Mismatch,
                format!("`{}` is not an absolute path", words(path.as_bytes())),
            ));
        }
        let most = most.min(limits::PIECE);
        let arguments = [path.to_owned(), offset.to_string(), most.to_string()];
        let mut out = self
            .link
            .script(id, &PIECE, &arguments, limits::LOOK)
            .await?;
        out.truncate(most);
        Ok(out)
    }
}

/// The end of a log that is too long, from the beginning of a line.
fn end_of(log: &str) -> &str {
    let mut from = log.len().saturating_sub(limits::LOG);
    if from > 0 {
        from = log.as_bytes()[from..]
            .iter()
            .position(|b| *b == b'\n')
            .map_or(log.len(), |at| from + at + 1);
    }
    log.get(from..).unwrap_or_default()
}

/// Reads `dpkg --verify` or `rpm -Va`: `??5??????   c /etc/x`, `missing     /usr/y`.
fn faults(text: &str) -> Vec<PackageFault> {
    let fault = |line: &str| {
        let (what, rest) = line.split_once(char::is_whitespace)?;
        let rest = rest.trim_start();
        let (attribute, path) = match rest.split_once(' ') {
            Some((letter, path)) if letter.len() == 1 => (letter, path.trim_start()),
            _ => ("", rest),
        };
        if !path.starts_with('/') {
            return None;
        }
        // dpkg says in parentheses why it could not look.
        let path = path.split(" (").next().unwrap_or(path);
        Some(PackageFault {
            path: words(path.as_bytes()),
            what: if what == "missing" {
                "missing".to_owned()
            } else {
                "changed".to_owned()
            },
            configuration: attribute == "c",
        })
    };
    let mut found: Vec<PackageFault> = text.lines().filter_map(fault).take(FAULTS).collect();
    found.sort();
    found.dedup();
    found
}

fn condition(text: &str) -> Condition {
    let mut found = Condition::default();
    for record in records(text) {
        let [key, value] = record.as_slice() else {
            continue;
        };
        let value = words(value.as_bytes());
        if value.is_empty() {
            continue;
        }
        match *key {
            "system" => found.system = value,
            "state" => found.state = value,
            "kernel" => found.kernel = value,
            "newest" => found.newest_kernel = Some(value),
            "failed" if found.failed_units.len() < limits::UNITS => found.failed_units.push(value),
            "restart" if found.restart_needed.len() < limits::UNITS => {
                found.restart_needed.push(value);
            }
            _ => {}
        }
    }
    if let Some(newest) = &found.newest_kernel
        && *newest != found.kernel
    {
        let text = format!("kernel {newest} is installed, {} runs", found.kernel);
        found.restart_needed.insert(0, text);
    }
    found
}

/// Takes only what looks like a key: type, base64, perhaps a comment, which is left out.
fn host_keys(text: &str) -> Vec<String> {
    let key = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (kind, data) = (words.next()?, words.next()?);
        let kind_fine = kind
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-@.".contains(c));
        let data_fine = data
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
        let fine = kind_fine && data_fine && data.starts_with("AAAA") && data.len() <= KEY;
        fine.then(|| format!("{kind} {data}"))
    };
    text.lines().filter_map(key).take(limits::CRASHES).collect()
}

fn crashes(text: &str) -> Vec<CrashFile> {
    let crash = |record: Vec<&str>| match record.as_slice() {
        [kind, bytes, path] if path.starts_with('/') => Some(CrashFile {
            path: (*path).to_owned(),
            bytes: bytes.parse().ok()?,
            memory: *kind == "memory",
        }),
        _ => None,
    };
    records(text)
        .filter_map(crash)
        .take(limits::CRASHES)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // VC-08: what dpkg and rpm print, and what nobody prints.
    #[test]
    fn changed_and_missing_files_are_told_apart() {
        let found = faults(
            "??5??????   /usr/bin/x\n??5?????? c /etc/x.conf\nmissing     /usr/y y\nmissing   c /etc/z (Permission denied)\n\
             S.5....T.  c /etc/sshd_config\n.M.......    /var/log/a\nnonsense\n??5?????? relative\n",
        );
        let told: Vec<(&str, &str, bool)> = found
            .iter()
            .map(|f| (f.path.as_str(), f.what.as_str(), f.configuration))
            .collect();
        assert_eq!(
            told,
            [
                ("/etc/sshd_config", "changed", true),
                ("/etc/x.conf", "changed", true),
                ("/etc/z", "missing", true),
                ("/usr/bin/x", "changed", false),
                ("/usr/y y", "missing", false),
                ("/var/log/a", "changed", false),
            ]
        );
    }

    #[test]
    fn a_condition_says_why_a_restart_is_needed() {
        let text = "system\tDebian 12\nstate\tdegraded\nkernel\t6.1.0-1\nnewest\t6.1.0-9\nfailed\tx.service\n\
                    restart\tpackage libc6\nodd\n\u{1b}\tx\n";
        let found = condition(text);
        assert_eq!(found.failed_units, ["x.service"]);
        assert_eq!(
            found.restart_needed,
            ["kernel 6.1.0-9 is installed, 6.1.0-1 runs", "package libc6"]
        );
        assert_eq!(condition("kernel\t1\nnewest\t1\n").restart_needed.len(), 0);
        assert_eq!(condition(""), Condition::default());
    }

    #[test]
    fn only_keys_are_keys() {
        let text = "ssh-ed25519 AAAAC3Nz+/= root@mini\n* evil\nssh-rsa AAAA; rm -rf /\nssh-rsa\n";
        assert_eq!(
            host_keys(text),
            ["ssh-ed25519 AAAAC3Nz+/=", "ssh-rsa AAAA"][..1]
        );
        assert_eq!(host_keys("ssh-rsa AAAA$(x) y").len(), 0);
    }

    #[test]
    fn crash_files_are_read_and_nonsense_is_not() {
        let found = crashes(
            "memory\t12\t/var/crash/1/vmcore\nfile\tx\t/a\nfile\t3\trelative\nfile\t3\t/b\n",
        );
        assert_eq!(found.len(), 2);
        assert!(found[0].memory && !found[1].memory);
    }

    #[test]
    fn a_long_log_is_cut_at_a_line() {
        let log = "ä line\n".repeat(limits::LOG);
        let end = end_of(&log);
        assert!(end.len() < limits::LOG && end.starts_with("ä line\n"));
        assert_eq!(end_of("short"), "short");
    }
}
