//! What changed on system disks since the split, and carrying files over by a scratch disk.

use super::escape::words;
use super::link::Script;
use super::{LinuxGuest, limits, link, script};
use flipside_model::{CarriedFiles, ChangeList, ChangedFile, ChangedKind, DiskName, MachineId};
use flipside_platform::{CarryPlan, PortError, PortErrorKind, PortResult, SCRATCH};
use tokio::time::Instant;

static MARK: Script = script!("mark the moment of the split", "mark");
static CHANGES: Script = script!("list what changed since the split", "changes");
static PACK: Script = script!("pack the files to carry over", "pack");
static UNPACK: Script = script!("put the carried files in their places", "unpack");

/// Conflicts that are told by name: the files themselves are all kept.
const MAX_CONFLICTS: usize = 100;

impl LinuxGuest {
    pub(super) async fn mark(&self, id: MachineId, set: bool) -> PortResult<()> {
        let verb = [if set { "set" } else { "remove" }.to_owned()];
        self.link.script(id, &MARK, &verb, limits::FLAG).await?;
        Ok(())
    }

    pub(super) async fn list_changes(
        &self,
        id: MachineId,
        data: &[DiskName],
        most: usize,
    ) -> PortResult<ChangeList> {
        let mut arguments = vec![most.to_string()];
        arguments.extend(self.survey(id).await?.system_mounts(data));
        let out = self
            .link
            .script(id, &CHANGES, &arguments, limits::WALK)
            .await?;
        Ok(changes(&out))
    }

    pub(super) async fn pack_files(
        &self,
        id: MachineId,
        plan: &CarryPlan,
    ) -> PortResult<CarriedFiles> {
        let device = self.scratch(id).await?;
        let mut arguments = vec![device, plan.most.to_string()];
        arguments.extend([plan.since.clone(), plan.mark.clone()]);
        arguments.extend(plan.rules.iter().cloned());
        let status = self
            .link
            .attempt(id, &PACK, &arguments, limits::CARRY)
            .await?;
        if status.exitcode == Some(73) {
            return Err(too_much(&status.out, plan.most));
        }
        if !status.success() {
            return Err(link::refused(id, PACK.what, &status));
        }
        let mut packed = CarriedFiles {
            mark: plan.mark.clone(),
            ..CarriedFiles::default()
        };
        for record in super::records(&String::from_utf8_lossy(&status.out)) {
            match record.as_slice() {
                ["bytes", count] => packed.bytes = count.parse().unwrap_or(0),
                ["files", count] => packed.files = count.parse().unwrap_or(0),
                _ => {}
            }
        }
        Ok(packed)
    }

    pub(super) async fn unpack_files(
        &self,
        id: MachineId,
        rules: &[String],
    ) -> PortResult<CarriedFiles> {
        let mut arguments = vec![self.scratch(id).await?];
        arguments.extend(rules.iter().cloned());
        let out = self
            .link
            .script(id, &UNPACK, &arguments, limits::CARRY)
            .await?;
        Ok(unpacked(&out))
    }

    /// Waits until the guest sees the scratch disk, and says under which name.
    async fn scratch(&self, id: MachineId) -> PortResult<String> {
        let limit = Instant::now() + limits::DEVICE;
        loop {
            if let Some(disk) = self.survey(id).await?.disk(SCRATCH) {
                return Ok(disk.device());
            }
            if Instant::now() >= limit {
                return Err(PortError::timed_out(format!(
                    "the guest of {id} does not see the scratch disk"
                ))
                .about(SCRATCH));
            }
            tokio::time::sleep(limits::DEVICE_PAUSE).await;
        }
    }
}

fn too_much(out: &[u8], most: u64) -> PortError {
    let text = String::from_utf8_lossy(out);
    let bytes = super::records(&text).find_map(|record| match record.as_slice() {
        ["bytes", count] => count.parse::<u64>().ok(),
        _ => None,
    });
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    PortError::new(
        PortErrorKind::NoSpace,
        format!(
            "{} MiB of files that are to be carried over changed since the split, and {} MiB are the limit",
            mib(bytes.unwrap_or(0)),
            mib(most)
        ),
    )
    .advise("move what is large to a data disk, or take it out of `carry` for the next session")
}

/// Reads records that end with NUL; what is not understood is left out.
fn nul_records(out: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    out.split(|b| *b == 0)
        .filter(|record| !record.is_empty())
        .map(|record| record.splitn(3, |b| *b == b'\t').collect())
}

fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

fn changes(out: &[u8]) -> ChangeList {
    let mut list = ChangeList::default();
    for record in nul_records(out) {
        match record.as_slice() {
            [b"all", count] => list.total = number(count).unwrap_or(0),
            [kind, size, path] if path.starts_with(b"/") => {
                let path = words(path);
                list.files.push(ChangedFile {
                    log: path.starts_with("/var/log/"),
                    path,
                    bytes: number(size).unwrap_or(0),
                    kind: match *kind {
                        b"f" => ChangedKind::File,
                        b"l" => ChangedKind::Link,
                        _ => ChangedKind::Other,
                    },
                    rule: None,
                });
            }
            _ => {}
        }
    }
    list.files.sort_by(|a, b| a.path.cmp(&b.path));
    list.total = list.total.max(list.files.len() as u64);
    list.listed = list.files.len() as u64;
    list
}

fn unpacked(out: &[u8]) -> CarriedFiles {
    let mut done = CarriedFiles::default();
    for record in out.split(|b| *b == 0) {
        let mut fields = record.splitn(2, |b| *b == b'\t');
        match (fields.next(), fields.next()) {
            (Some(b"put"), Some(_)) => done.files += 1,
            (Some(b"removed"), Some(_)) => done.removed += 1,
            (Some(b"conflict"), Some(path)) if done.conflicts.len() < MAX_CONFLICTS => {
                done.conflicts.push(words(path));
            }
            _ => {}
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    // Names may hold anything but NUL: tabs and line ends stay in them, escapes do not reach a terminal.
    #[test]
    fn lists_are_read_as_far_as_they_make_sense() {
        let list = changes(
            b"all\t7\0f\t10\t/etc/b\0f\tx\t/var/log/a\tb\nc\0l\t3\t/etc/a\0nonsense\0f\t1\trel\0",
        );
        let told: Vec<(&str, u64, bool)> = list
            .files
            .iter()
            .map(|f| (f.path.as_str(), f.bytes, f.log))
            .collect();
        assert_eq!(list.total, 7);
        assert_eq!(told[..2], [("/etc/a", 3, false), ("/etc/b", 10, false)]);
        assert!(told[2].0.starts_with("/var/log/a") && told[2].2, "{told:?}");
        assert_eq!(list.listed, 3);
        assert!(changes(b"\xff\0\0\t\t\0").files.is_empty());
    }

    #[test]
    fn what_was_put_is_counted_and_conflicts_are_named() {
        let done = unpacked(b"put\t/a\0conflict\t/etc/passwd\0put\t/b\nc\0removed\t/d\0\0x\0");
        assert_eq!((done.files, done.removed), (2, 1));
        assert_eq!(done.conflicts, ["/etc/passwd"]);
    }
}
