//! The block devices and mounts of a guest, as the survey script prints them.

use super::fstab::{self, Entry, unescape};
use flipside_model::{DiskName, MountPoint};

/// One block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// The kernel's name, such as `sdb1`.
    pub(super) name: String,
    /// `8:17`.
    pub(super) number: String,
    /// The disk it is a partition of, or empty.
    pub(super) parent: String,
    /// Device mapper's name, or empty.
    pub(super) dm: String,
    /// Device mapper's uuid, whose beginning names the kind.
    pub(super) uuid: String,
    /// What it lies on.
    pub(super) below: Vec<String>,
    /// Its serial number, or empty.
    pub(super) serial: String,
}

impl Block {
    pub(super) fn device(&self) -> String {
        format!("/dev/{}", self.name.replace('!', "/"))
    }

    /// The names under which mounts show it.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let mapped = (!self.dm.is_empty()).then(|| format!("/dev/mapper/{}", self.dm));
        [Some(self.device()), mapped].into_iter().flatten()
    }
}

/// One mount of the first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) number: String,
    pub(super) target: String,
    pub(super) kind: String,
    pub(super) source: String,
}

/// Everything the survey tells.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) blocks: Vec<Block>,
    pub(super) mounts: Vec<Mount>,
    pub(super) swaps: Vec<String>,
    pub(super) fstab: Vec<Entry>,
}

impl Survey {
    /// Reads the script's lines; what is not understood is left out.
    pub(super) fn read(output: &[u8]) -> Self {
        let mut survey = Self::default();
        for line in output.split(|b| *b == b'\n') {
            let Some(at) = line.iter().position(|b| *b == b'\t') else {
                continue;
            };
            // Names and paths become arguments of the next script, which would end there.
            if line.contains(&0) {
                continue;
            }
            let (key, rest) = (&line[..at], &line[at + 1..]);
            match key {
                b"block" => survey.blocks.extend(block(rest)),
                b"mount" => survey.mounts.extend(mount(rest)),
                b"swap" => {
                    let first = rest.split(|b| *b == b' ' || *b == b'\t').next();
                    let path = unescape(first.unwrap_or_default());
                    survey
                        .swaps
                        .extend(Some(path).filter(|p| p.starts_with('/')));
                }
                b"fstab" => survey.fstab.extend(fstab::entry(rest)),
                _ => {}
            }
        }
        survey
    }

    /// The device that has this serial number.
    pub(super) fn disk(&self, serial: &str) -> Option<&Block> {
        self.blocks
            .iter()
            .find(|b| b.parent.is_empty() && b.serial == serial)
    }

    /// The disk and everything stacked on it: what lies below comes first.
    pub(super) fn stack(&self, serial: &str) -> Vec<&Block> {
        let mut stack: Vec<&Block> = self.disk(serial).into_iter().collect();
        let mut next = 0;
        while let Some(base) = stack.get(next).copied() {
            for block in &self.blocks {
                let above = block.parent == base.name || block.below.contains(&base.name);
                if above {
                    // Moved behind everything it lies on, once: a cycle cannot be real.
                    let known = stack.iter().position(|b| b.name == block.name);
                    match known {
                        None => stack.push(block),
                        Some(at) if at > next => {
                            let moved = stack.remove(at);
                            stack.push(moved);
                        }
                        Some(_) => {}
                    }
                }
            }
            next += 1;
        }
        stack
    }

    /// Whether a mount shows one of these devices.
    pub(super) fn is_on(mount: &Mount, stack: &[&Block]) -> bool {
        stack
            .iter()
            .any(|b| b.number == mount.number || b.names().any(|n| n == mount.source))
    }

    /// The device that a mount or a swap shows, by its number or else by its name: btrfs has numbers of its own.
    pub(super) fn on_device(&self, number: &str, source: &str) -> Option<&Block> {
        let by_number = self.blocks.iter().find(|b| b.number == number);
        let named = || self.blocks.iter().find(|b| b.names().any(|n| n == source));
        by_number.or_else(named)
    }

    /// The line of the mount table for a mount point.
    pub(super) fn entry(&self, target: &str) -> Option<&Entry> {
        self.fstab.iter().find(|e| e.target == target)
    }

    /// The file systems on these disks, deepest last.
    pub(super) fn mounts_on(&self, disks: &[DiskName]) -> Vec<MountPoint> {
        let stacks: Vec<_> = disks.iter().map(|d| self.stack(d.as_str())).collect();
        let mut points: Vec<MountPoint> = Vec::new();
        for mount in &self.mounts {
            let on = stacks.iter().position(|s| Self::is_on(mount, s));
            let Some(on) = on else { continue };
            if points.iter().any(|p| p.target == mount.target) {
                continue;
            }
            let entry = self.entry(&mount.target);
            points.push(MountPoint {
                disk: disks[on].clone(),
                target: mount.target.clone(),
                source: entry.map_or_else(|| mount.source.clone(), |e| e.spec.clone()),
            });
        }
        points.sort_by_key(|p| depth(&p.target));
        points
    }

    /// The places of local file systems that lie on no data disk: each once, `/` first.
    pub(super) fn system_mounts(&self, data: &[DiskName]) -> Vec<String> {
        let data = self.mounts_on(data);
        let mut places = vec![("/", String::new())];
        for mount in &self.mounts {
            let local = mount.source.starts_with("/dev/");
            let known = places
                .iter()
                .any(|(place, number)| *place == mount.target || *number == mount.number);
            if local && !known && data.iter().all(|d| d.target != mount.target) {
                places.push((&mount.target, mount.number.clone()));
            }
        }
        let root = self.mounts.iter().rev().find(|m| m.target == "/");
        let root = root.map_or("", |m| m.number.as_str());
        places
            .into_iter()
            .filter(|(place, number)| *place == "/" || number != root)
            .map(|(place, _)| place.to_owned())
            .collect()
    }

    /// The serial number of the disk a file lies on, by its device number or else by its path; empty if unknown.
    pub(super) fn serial_of(&self, number: &str, path: &str) -> String {
        let mount = || {
            self.mounts
                .iter()
                .filter(|m| is_under(path, &m.target))
                .max_by_key(|m| m.target.len())
        };
        let found = self.blocks.iter().find(|b| b.number == number).or_else(|| {
            let mount = mount()?;
            self.on_device(&mount.number, &mount.source)
        });
        let mut block = found;
        // Down to the disk; a stack that is deeper than this is made up.
        for _ in 0..16 {
            let Some(current) = block else { break };
            if !current.serial.is_empty() {
                return current.serial.clone();
            }
            let below = match current.parent.as_str() {
                "" => current.below.first().map(String::as_str),
                parent => Some(parent),
            };
            block = below.and_then(|name| self.blocks.iter().find(|b| b.name == name));
        }
        String::new()
    }
}

/// How many folders deep a path is.
pub(super) fn depth(path: &str) -> usize {
    path.split('/').filter(|part| !part.is_empty()).count()
}

/// Whether a path is a folder or lies in it.
pub(super) fn is_under(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn block(line: &[u8]) -> Option<Block> {
    let fields: Vec<String> = line
        .split(|b| *b == b'\t')
        .map(|f| String::from_utf8_lossy(f).into_owned())
        .collect();
    let [name, number, parent, dm, uuid, below, serial, _backing, ..] = fields.as_slice() else {
        return None;
    };
    let sane = |text: &str| {
        !text.is_empty()
            && text.len() < 128
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'!' | b'.' | b':'))
    };
    (sane(name) && sane(number)).then(|| Block {
        name: name.clone(),
        number: number.clone(),
        parent: parent.clone(),
        dm: dm.clone(),
        uuid: uuid.clone(),
        below: below.split_whitespace().map(str::to_owned).collect(),
        serial: serial.trim().to_owned(),
    })
}

/// Reads a line of mountinfo: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let number = fields.nth(2)?;
    let target = fields.nth(1)?;
    let mut tail = fields.skip_while(|f| *f != b"-").skip(1);
    Some(Mount {
        number: String::from_utf8_lossy(number).into_owned(),
        target: unescape(target),
        kind: String::from_utf8_lossy(tail.next()?).into_owned(),
        source: unescape(tail.next()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &[u8] = b"block\tsda\t8:0\t\t\t\t\tsystem0\t\n\
        block\tsda1\t8:1\tsda\t\t\t\t\t\n\
        block\tsdb\t8:16\t\t\t\t\tdata0\t\n\
        block\tsdb1\t8:17\tsdb\t\t\t\t\t\n\
        block\tsdc\t8:32\t\t\t\t\tdata1  \t\n\
        block\tdm-0\t253:0\t\tvg--x-lv\tLVM-abc\tdm-1 sdb1\t\t\n\
        block\tdm-1\t253:1\t\tsecret\tCRYPT-LUKS2-x\tsdc\t\t\n\
        block\tbad name\t1:1\t\t\t\t\t\t\n\
        mount\t26 1 8:1 / / rw,noatime shared:1 - ext4 /dev/sda1 rw\n\
        mount\t98 26 253:0 / /srv/data rw shared:37 - ext4 /dev/mapper/vg--x-lv rw\n\
        mount\t99 98 0:40 / /srv/data/deep rw - btrfs /dev/sdb1 rw\n\
        mount\t100 26 253:0 /www /var/a\\040b rw - ext4 /dev/mapper/vg--x-lv rw\n\
        mount\tbroken\n\
        swap\tFilename\t\t\tType\n\
        swap\t/srv/data/swap\\040file                file\t1\n\
        fstab\t# a comment\n\
        fstab\tLABEL=flip /srv/data ext4 noatime 0 0\n\
        \xff\xfe\nnothing";

    #[test]
    fn a_survey_is_read_as_far_as_it_makes_sense() {
        let survey = Survey::read(OUTPUT);
        assert_eq!(survey.blocks.len(), 7);
        assert_eq!(survey.mounts.len(), 4);
        assert_eq!(survey.swaps, ["/srv/data/swap file"]);
        assert_eq!(survey.disk("data1").expect("found").name, "sdc");
        assert!(survey.disk("data").is_none());
        let names: Vec<_> = survey
            .stack("data1")
            .iter()
            .map(|b| b.name.as_str())
            .collect();
        assert_eq!(names, ["sdc", "dm-1", "dm-0"]);
        let names: Vec<_> = survey
            .stack("data0")
            .iter()
            .map(|b| b.name.as_str())
            .collect();
        assert_eq!(names, ["sdb", "sdb1", "dm-0"]);
    }

    #[test]
    fn data_mounts_are_found_through_the_layers() {
        let points = Survey::read(OUTPUT).mounts_on(&[DiskName::new("data0").expect("valid")]);
        let shown: Vec<_> = points
            .iter()
            .map(|p| (p.disk.as_str(), p.target.as_str(), p.source.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("data0", "/srv/data", "LABEL=flip"),
                ("data0", "/var/a b", "/dev/mapper/vg--x-lv"),
                ("data0", "/srv/data/deep", "/dev/sdb1"),
            ]
        );
    }

    #[test]
    fn files_are_traced_to_their_disk() {
        let survey = Survey::read(OUTPUT);
        assert_eq!(survey.serial_of("8:1", "/var/lib/x"), "system0");
        assert_eq!(survey.serial_of("253:1", "/x"), "data1");
        assert_eq!(survey.serial_of("0:99", "/srv/data/deep/x"), "data0");
        assert_eq!(survey.serial_of("0:99", "relative"), "");
        assert!(is_under("/srv/data", "/srv/data") && is_under("/srv/data/x", "/srv/data"));
        assert!(!is_under("/srv/database", "/srv/data") && is_under("/x", "/"));
    }

    // Found by fuzzing: the agent would cut the argument of the next script there.
    #[test]
    fn a_path_with_a_nul_is_left_out() {
        let survey = Survey::read(b"swap\t/etc\0/swap file\nswap\t/x\\000y file\n");
        assert_eq!(survey.swaps, ["/x\\000y"]);
    }

    #[test]
    fn a_cycle_ends() {
        let text = b"block\ta\t1:1\t\t\t\tb\tdata0\t\nblock\tb\t1:2\t\t\t\ta\t\t\n";
        assert_eq!(Survey::read(text).stack("data0").len(), 2);
        assert_eq!(
            Survey::read(b"block\ta\t1:1\ta\t\t\ta\t\t").serial_of("1:1", ""),
            ""
        );
    }
}
