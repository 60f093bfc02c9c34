//! Files that services write, and the disks they lie on.

use super::blocks::Survey;
use super::escape::{check_units, words};
use super::link::Script;
use super::{LinuxGuest, limits, script};
use flipside_model::MachineId;
use flipside_platform::{OpenFile, PortResult};
use std::collections::{BTreeSet, HashMap};

static FILES: Script = script!("list open files", "survey", "files");

/// Folders whose loss at a commit does no harm.
const EXEMPT: [&str; 8] = [
    "/run",
    "/tmp",
    "/var/tmp",
    "/var/log",
    "/var/cache",
    "/dev",
    "/proc",
    "/sys",
];

impl LinuxGuest {
    pub(super) async fn list_open_files(
        &self,
        id: MachineId,
        units: &[String],
    ) -> PortResult<Vec<OpenFile>> {
        check_units(units)?;
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let out = self.link.script(id, &FILES, units, limits::LOOK).await?;
        Ok(read(&String::from_utf8_lossy(&out), &Survey::read(&out)))
    }
}

pub(super) fn read(text: &str, survey: &Survey) -> Vec<OpenFile> {
    let mut units: HashMap<&str, &str> = HashMap::new();
    let mut written: BTreeSet<&str> = BTreeSet::new();
    let mut devices: HashMap<&str, &str> = HashMap::new();
    let mut links: Vec<(&str, &str)> = Vec::new();
    for line in text.lines() {
        let Some((key, rest)) = line.split_once('\t') else {
            continue;
        };
        match (key, rest.split_once('\t')) {
            ("pid", Some((process, unit))) => {
                units.insert(process, unit);
            }
            ("link", Some((link, path))) => links.push((link, path)),
            ("stat", Some((link, device))) => {
                devices.insert(link, device);
            }
            ("flag", Some((file, flags))) => {
                // `/proc/1/fdinfo/3:flags:` and an octal number whose last two bits are the access mode.
                let link = file.strip_suffix(":flags:");
                let mode = u64::from_str_radix(flags.trim(), 8).unwrap_or(0) & 3;
                written.extend(link.filter(|_| mode == 1 || mode == 2));
            }
            _ => {}
        }
    }
    let mut files = BTreeSet::new();
    for (link, path) in links {
        let Some(device) = devices.get(link) else {
            continue;
        };
        let info = link.replacen("/fd/", "/fdinfo/", 1);
        let exempt = EXEMPT
            .iter()
            .any(|folder| super::blocks::is_under(path, folder));
        if !written.contains(info.as_str())
            || exempt
            || !path.starts_with('/')
            || path.ends_with(".pid")
            || path.ends_with(" (deleted)")
            || path.starts_with("/memfd:")
        {
            continue;
        }
        let process = link
            .strip_prefix("/proc/")
            .and_then(|r| r.split('/').next());
        let unit = process.and_then(|p| units.get(p)).copied().unwrap_or("");
        let disk = survey.serial_of(&number(device), path);
        files.insert((
            words(unit.as_bytes()),
            words(path.as_bytes()),
            words(disk.as_bytes()),
        ));
    }
    let made = |(unit, path, disk)| OpenFile { unit, path, disk };
    files.into_iter().map(made).collect()
}

/// Writes a device number as `8:1`.
pub(super) fn number(device: &str) -> String {
    let device: u64 = device.trim().parse().unwrap_or(0);
    let major = (device >> 8) & 0xfff | (device >> 32) & 0xffff_f000;
    let minor = device & 0xff | (device >> 12) & 0xffff_ff00;
    format!("{major}:{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_counts() {
        let text = "block\tsda\t8:0\t\t\t\t\tsystem0\t\nblock\tsda1\t8:1\tsda\t\t\t\t\t\n\
            block\tsdb\t8:16\t\t\t\t\tdata0\t\n\
            pid\t7\tdb.service\n\
            link\t/proc/7/fd/1\t/var/lib/db/table\n\
            link\t/proc/7/fd/2\t/srv/data/table\n\
            link\t/proc/7/fd/3\t/var/lib/db/read only\n\
            link\t/proc/7/fd/4\t/var/log/db.log\n\
            link\t/proc/7/fd/5\tsocket:[12]\n\
            link\t/proc/7/fd/6\t/var/lib/db/gone (deleted)\n\
            link\t/proc/7/fd/7\t/etc/db.pid\n\
            flag\t/proc/7/fdinfo/1:flags:\t0100002\nflag\t/proc/7/fdinfo/2:flags:\t0100001\n\
            flag\t/proc/7/fdinfo/3:flags:\t0100000\nflag\t/proc/7/fdinfo/4:flags:\t0102001\n\
            flag\t/proc/7/fdinfo/5:flags:\t02\nflag\t/proc/7/fdinfo/6:flags:\t02\n\
            flag\t/proc/7/fdinfo/7:flags:\t01\n\
            stat\t/proc/7/fd/1\t2049\nstat\t/proc/7/fd/2\t2064\nstat\t/proc/7/fd/3\t2049\n\
            stat\t/proc/7/fd/4\t2049\nstat\t/proc/7/fd/6\t2049\nstat\t/proc/7/fd/7\t2049\nnoise\n";
        let files = read(text, &Survey::read(text.as_bytes()));
        assert_eq!(
            files,
            [
                ("/srv/data/table", "data0"),
                ("/var/lib/db/table", "system0")
            ]
            .map(|(path, disk)| OpenFile {
                unit: "db.service".to_owned(),
                path: path.to_owned(),
                disk: disk.to_owned(),
            })
        );
    }

    #[test]
    fn device_numbers() {
        assert_eq!(number("2049"), "8:1");
        assert_eq!(number("64768"), "253:0");
        assert_eq!(number("1048832"), "1:256");
        assert_eq!(number("nonsense"), "0:0");
    }
}
