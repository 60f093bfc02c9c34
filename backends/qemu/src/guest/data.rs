//! The data disks: what lies on them, closing and opening it.

use super::blocks::{Block, Survey, depth, is_under};
use super::escape::{unit_of_path, words};
use super::link::{Script, refused};
use super::{LinuxGuest, limits, pairs, records, script};
use flipside_model::{MachineId, MountPoint};
use flipside_platform::{PortError, PortErrorKind, PortResult};
use tokio::time::{Instant, sleep};

static LOOK: Script = script!("look at the disks", "survey", "look");
static CLOSE: Script = script!("close the data disks", "close");
static OPEN: Script = script!("mount the data file systems", "survey", "open");

impl LinuxGuest {
    pub(super) async fn survey(&self, id: MachineId) -> PortResult<Survey> {
        let out = self.link.script(id, &LOOK, &[], limits::LOOK).await?;
        Ok(Survey::read(&out))
    }

    pub(super) async fn close_disks(&self, id: MachineId, disks: &[String]) -> PortResult<()> {
        let survey = self.survey(id).await?;
        let arguments = close_plan(&survey, disks)?;
        if arguments.is_empty() {
            return Ok(());
        }
        let status = self
            .link
            .attempt(id, &CLOSE, &arguments, limits::CLOSE)
            .await?;
        if !status.success() {
            return Err(refused(id, CLOSE.what, &status));
        }
        let text = String::from_utf8_lossy(&status.out);
        if text.lines().any(|line| line == "closed") {
            return Ok(());
        }
        Err(busy(id, &text))
    }

    pub(super) async fn mount_data(&self, id: MachineId, mounts: &[MountPoint]) -> PortResult<()> {
        if mounts.is_empty() {
            return Ok(());
        }
        let survey = self.wait_for_disks(id, mounts).await?;
        let arguments = open_plan(&survey, mounts)?;
        if arguments.is_empty() {
            return Ok(());
        }
        let deadline = limits::MOUNT + limits::MARGIN;
        let status = self.link.attempt(id, &OPEN, &arguments, deadline).await?;
        if !status.success() {
            return Err(refused(id, OPEN.what, &status));
        }
        let after = Survey::read(&status.out);
        for mount in mounts {
            if is_open(&after, mount)? {
                continue;
            }
            let text = String::from_utf8_lossy(&status.out);
            let mut error = PortError::failed(format!(
                "cannot mount {} from {}",
                mount.target, mount.disk
            ))
            .about(mount.target.clone())
            .advise(match survey.entry(&mount.target) {
                Some(_) => {
                    "see the guest's words below; check the file system and its line in /etc/fstab"
                        .to_owned()
                }
                None => format!("add a line for {} to the guest's /etc/fstab", mount.target),
            });
            error.causes.extend(
                [words(&status.err)]
                    .into_iter()
                    .filter(|said| !said.is_empty()),
            );
            let log = records(&text).filter(|r| r[0] == "log");
            error.causes.extend(
                log.filter_map(|r| r.get(1).map(|line| words(line.as_bytes())))
                    .filter(|line| !line.is_empty())
                    .take(30),
            );
            return Err(error);
        }
        Ok(())
    }

    /// Waits until every disk shows, which after a plug takes a moment.
    async fn wait_for_disks(&self, id: MachineId, mounts: &[MountPoint]) -> PortResult<Survey> {
        let until = Instant::now() + limits::DEVICE;
        loop {
            let survey = self.survey(id).await?;
            let missing = mounts
                .iter()
                .find(|m| survey.disk(m.disk.as_str()).is_none());
            let Some(missing) = missing else {
                return Ok(survey);
            };
            if Instant::now() >= until {
                return Err(PortError::absent(format!(
                    "the disk {} does not show in the guest of {id}",
                    missing.disk
                ))
                .about(missing.disk.to_string())
                .advise("look at the guest's kernel messages (`dmesg`)"));
            }
            sleep(limits::DEVICE_PAUSE).await;
        }
    }
}

/// Says what closes everything on these disks, and what proves it. Empty when none of them is there.
pub(super) fn close_plan(survey: &Survey, disks: &[String]) -> PortResult<Vec<String>> {
    let mut stack: Vec<&Block> = Vec::new();
    for disk in disks {
        for block in survey.stack(disk) {
            if !stack.iter().any(|b| b.name == block.name) {
                stack.push(block);
            }
        }
    }
    if stack.is_empty() {
        return Ok(Vec::new());
    }
    let mut plan: Vec<(&str, String)> = Vec::new();
    let on_disk: Vec<&str> = survey
        .mounts
        .iter()
        .filter(|m| Survey::is_on(m, &stack))
        .map(|m| m.target.as_str())
        .collect();
    let inside = |target: &str| on_disk.iter().any(|t| is_under(target, t));
    // Swap files on them first: they keep their file system busy.
    for swap in &survey.swaps {
        let device = stack
            .iter()
            .any(|b| b.device() == *swap || *swap == format!("/dev/mapper/{}", b.dm));
        if device || inside(swap) {
            plan.push(("swapoff", swap.clone()));
        }
    }
    // What was mounted last, and whatever lies in them, comes first.
    let mut automounts: Vec<&str> = Vec::new();
    for mount in survey.mounts.iter().rev() {
        if !inside(&mount.target) {
            continue;
        }
        if mount.kind == "autofs" {
            automounts.push(&mount.target);
        } else {
            plan.push(("umount", mount.target.clone()));
        }
    }
    for target in automounts {
        // Stopped once nothing is mounted on it any more: systemd detaches it lazily.
        plan.push(("automount", unit_of_path(target, ".automount")));
    }
    for block in stack.iter().rev() {
        match layer(block)? {
            Some(step) if !plan.contains(&step) => plan.push(step),
            _ => {}
        }
    }
    plan.push(("mounted", mounted_regex(&stack)));
    for block in &stack {
        if block.dm.is_empty() && !block.name.starts_with("md") {
            plan.push(("node", block.device()));
        }
    }
    for block in &stack {
        if !block.serial.is_empty() {
            plan.push(("disk", block.name.clone()));
        }
    }
    Ok(pairs(
        plan.iter().map(|(key, value)| (*key, value.as_str())),
    ))
}

/// How a layer on a disk is closed; none for the disk itself and its partitions.
fn layer(block: &Block) -> PortResult<Option<(&'static str, String)>> {
    if block.name.starts_with("md") && block.parent.is_empty() {
        return Ok(Some(("md", block.device())));
    }
    if block.dm.is_empty() {
        return Ok(None);
    }
    if block.dm.starts_with('-') {
        return Err(unknown_layer(block));
    }
    match block.uuid.split('-').next() {
        Some("LVM") => Ok(Some(("vg", volume_group(&block.dm)))),
        Some("CRYPT") => Ok(Some(("crypt", block.dm.clone()))),
        _ => Err(unknown_layer(block)),
    }
}

fn unknown_layer(block: &Block) -> PortError {
    PortError::new(
        PortErrorKind::Unsupported,
        format!(
            "flipside cannot close the device {} ({})",
            words(block.dm.as_bytes()),
            words(block.uuid.as_bytes())
        ),
    )
    .about(block.device())
    .advise("close it by hand in the guest, or move the data to a plain, LVM, LUKS or md volume")
}

/// The volume group in device mapper's name of a volume, where hyphens within names are doubled.
pub(super) fn volume_group(name: &str) -> String {
    let mut group = String::new();
    let mut rest = name.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '-' {
            group.push(character);
        } else if rest.peek() == Some(&'-') {
            group.push('-');
            rest.next();
        } else {
            break;
        }
    }
    group
}

/// Matches lines of mountinfo that show one of these devices, by number or by name: btrfs has its own numbers.
fn mounted_regex(stack: &[&Block]) -> String {
    let quote = |text: String| -> String {
        text.chars()
            .flat_map(|c| {
                let plain = c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | ':');
                (!plain).then_some('\\').into_iter().chain([c])
            })
            .collect()
    };
    let numbers: Vec<String> = stack.iter().map(|b| quote(b.number.clone())).collect();
    let names: Vec<String> = stack
        .iter()
        .flat_map(|b| {
            let mapped = (!b.dm.is_empty()).then(|| format!("/dev/mapper/{}", b.dm));
            [Some(b.device()), mapped].into_iter().flatten()
        })
        .map(quote)
        .collect();
    format!(
        "^[0-9]+ [0-9]+ ({}) | - [^ ]+ ({}) ",
        numbers.join("|"),
        names.join("|")
    )
}

/// Whether a data mount is in place; mounted from something else is an error.
fn is_open(survey: &Survey, mount: &MountPoint) -> PortResult<bool> {
    let stack = survey.stack(mount.disk.as_str());
    let top = survey
        .mounts
        .iter()
        .rev()
        .find(|m| m.target == mount.target && m.kind != "autofs");
    match top {
        None => Ok(false),
        Some(top) if Survey::is_on(top, &stack) => Ok(true),
        Some(top) => Err(PortError::new(
            PortErrorKind::Mismatch,
            format!(
                "{} is mounted from {}, not from {}",
                mount.target,
                words(top.source.as_bytes()),
                mount.disk
            ),
        )
        .about(mount.target.clone())
        .advise("unmount it in the guest and look at its line in /etc/fstab")),
    }
}

/// Says what mounts these file systems. Empty when all are mounted.
pub(super) fn open_plan(survey: &Survey, mounts: &[MountPoint]) -> PortResult<Vec<String>> {
    let mut wanted: Vec<&MountPoint> = Vec::new();
    for mount in mounts {
        if !is_open(survey, mount)? {
            wanted.push(mount);
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    wanted.sort_by_key(|m| depth(&m.target));
    let seconds = limits::MOUNT.as_secs().to_string();
    let mut plan: Vec<(&str, String)> = vec![("seconds", seconds)];
    for mount in &wanted {
        let spec = survey.entry(&mount.target).map_or("", |e| e.spec.as_str());
        for step in activation(survey, spec) {
            if !plan.contains(&step) {
                plan.push(step);
            }
        }
    }
    for mount in &wanted {
        plan.push(("unit", unit_of_path(&mount.target, ".mount")));
    }
    // What else the table mounts in them went with them, and comes back with them.
    for entry in &survey.fstab {
        let target = entry.target.as_str();
        let data = wanted.iter().any(|m| m.target == target);
        let inside = wanted
            .iter()
            .any(|m| m.target != target && is_under(target, &m.target));
        if data && entry.has("x-systemd.automount") {
            plan.push(("extra", unit_of_path(target, ".automount")));
        } else if inside && !data && !entry.has("noauto") {
            plan.push(("extra", unit_of_path(target, ".mount")));
        }
    }
    Ok(pairs(
        plan.iter().map(|(key, value)| (*key, value.as_str())),
    ))
}

/// What brings up the device that a line of the mount table names, if it is missing. Lines by label or UUID need
/// nothing: udev activates the layers of a disk that comes back.
fn activation(survey: &Survey, spec: &str) -> Vec<(&'static str, String)> {
    let present = survey
        .blocks
        .iter()
        .any(|b| b.device() == spec || !b.dm.is_empty() && spec == format!("/dev/mapper/{}", b.dm));
    if present || !spec.starts_with("/dev/") || spec.starts_with("/dev/disk/") {
        return Vec::new();
    }
    if spec.starts_with("/dev/md") {
        return vec![("md", "all".to_owned())];
    }
    match spec.strip_prefix("/dev/mapper/") {
        Some(name) if name.contains('-') => {
            vec![("crypt", crypt_instance(name)), ("vg", "all".to_owned())]
        }
        Some(name) => vec![("crypt", crypt_instance(name))],
        // `/dev/GROUP/VOLUME`
        None if depth(spec) == 3 => vec![("vg", "all".to_owned())],
        None => Vec::new(),
    }
}

/// The instance name of the unit that opens an encrypted volume.
fn crypt_instance(name: &str) -> String {
    unit_of_path(name, "")
}

/// Makes the error of the script's report on who uses what.
pub(super) fn busy(id: MachineId, text: &str) -> PortError {
    let mut what = String::new();
    let mut why = String::new();
    let mut users: Vec<String> = Vec::new();
    let mut causes: Vec<String> = Vec::new();
    for record in records(text) {
        match record.as_slice() {
            ["busy", on, rest @ ..] => {
                what = words(on.as_bytes());
                why = words(rest.join(" ").as_bytes());
            }
            _ => continue,
        }
    }
    for record in records(text) {
        match record.as_slice() {
            ["user", process, name, cgroup, path @ ..] => {
                let path = path.join(" ");
                // The script looks for the beginning of a path only.
                if path.starts_with('/')
                    && what.starts_with('/')
                    && !what.starts_with("/dev/")
                    && !is_under(path.trim_end_matches(" (deleted)"), &what)
                {
                    continue;
                }
                let unit = cgroup.rsplit('/').next().filter(|u| u.contains('.'));
                let unit = unit.map_or(String::new(), |u| format!(", {u}"));
                let user = words(format!("{name} (process {process}{unit})").as_bytes());
                if !users.contains(&user) {
                    users.push(user.clone());
                }
                causes.push(format!("{user} uses {}", words(path.as_bytes())));
            }
            ["loop", device, file] => {
                let user = words(format!("the loop device {device}").as_bytes());
                causes.push(format!("{user} uses {}", words(file.as_bytes())));
                users.push(user);
            }
            _ => {}
        }
    }
    if what.is_empty() {
        return super::services::nonsense(id, CLOSE.what);
    }
    let by = match users.as_slice() {
        [] => "by no process that could be found; it may be the kernel's: an NFS export, a container's mount, a swap file"
            .to_owned(),
        [one] => format!("by {one}"),
        [first, second] => format!("by {first} and {second}"),
        [first, second, rest @ ..] => format!("by {first}, {second} and {} more", rest.len()),
    };
    let mut error = PortError::new(
        PortErrorKind::InUse,
        format!("{what} in the guest of {id} is still in use {by}"),
    )
    .about(what)
    .advise(
        "end what uses it, or add its service to the controlled services, then retry; nothing was detached",
    );
    error.causes = causes;
    if !why.is_empty() {
        error.causes.insert(0, why);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_model::DiskName;

    const OUTPUT: &[u8] = b"block\tsda\t8:0\t\t\t\t\tsystem0\t\n\
        block\tsdb\t8:16\t\t\t\t\tdata0\t\n\
        block\tsdb1\t8:17\tsdb\t\t\t\t\t\n\
        block\tmd0\t9:0\t\t\t\tsdb1\t\t\n\
        block\tdm-1\t253:1\t\tsecret\tCRYPT-LUKS2-x\tmd0\t\t\n\
        block\tdm-0\t253:0\t\tmy--vg-lv\tLVM-abc\tdm-1\t\t\n\
        mount\t26 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        mount\t90 26 0:9 / /srv/data rw - autofs systemd-1 rw\n\
        mount\t98 26 253:0 / /srv/data rw - ext4 /dev/mapper/my--vg-lv rw\n\
        mount\t99 98 0:40 / /srv/data/tmp rw - tmpfs tmpfs rw\n\
        swap\t/srv/data/swap file 1\n\
        fstab\t/dev/mapper/my--vg-lv /srv/data ext4 x-systemd.automount 0 0\n\
        fstab\ttmpfs /srv/data/tmp tmpfs defaults 0 0\n";

    fn point(target: &str) -> MountPoint {
        MountPoint {
            disk: DiskName::new("data0").expect("valid"),
            target: target.to_owned(),
            source: String::new(),
        }
    }

    #[test]
    fn closing_goes_from_the_top_down() {
        let survey = Survey::read(OUTPUT);
        let plan = close_plan(&survey, &["data0".to_owned(), "data7".to_owned()]).expect("a plan");
        let plan: Vec<String> = plan.chunks(2).map(|p| p.join(" ")).collect();
        assert_eq!(
            plan,
            [
                "swapoff /srv/data/swap",
                "umount /srv/data/tmp",
                "umount /srv/data",
                "automount srv-data.automount",
                "vg my-vg",
                "crypt secret",
                "md /dev/md0",
                "mounted ^[0-9]+ [0-9]+ (8:16|8:17|9:0|253:1|253:0) | - [^ ]+ (/dev/sdb|/dev/sdb1|/dev/md0|/dev/dm-1|/dev/mapper/secret|/dev/dm-0|/dev/mapper/my--vg-lv) ",
                "node /dev/sdb",
                "node /dev/sdb1",
                "disk sdb",
            ]
        );
        assert_eq!(close_plan(&survey, &["data7".to_owned()]), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_closed_is_named() {
        let text =
            b"block\tsdb\t8:16\t\t\t\t\tdata0\t\nblock\tdm-0\t253:0\t\tx\tmpath-1\tsdb\t\t\n";
        let error = close_plan(&Survey::read(text), &["data0".to_owned()]).expect_err("unknown");
        assert_eq!(error.kind, PortErrorKind::Unsupported);
    }

    #[test]
    fn opening_brings_back_what_lies_inside() {
        let survey = Survey::read(OUTPUT);
        assert_eq!(open_plan(&survey, &[point("/srv/data")]), Ok(Vec::new()));
        let mut closed = survey.clone();
        closed.mounts.retain(|m| m.target == "/");
        closed.blocks.retain(|b| b.dm.is_empty());
        let plan = open_plan(&closed, &[point("/srv/data")]).expect("a plan");
        let plan: Vec<String> = plan.chunks(2).map(|p| p.join(" ")).collect();
        assert_eq!(
            plan,
            [
                "seconds 90",
                "crypt my\\x2d\\x2dvg\\x2dlv",
                "vg all",
                "unit srv-data.mount",
                "extra srv-data.automount",
                "extra srv-data-tmp.mount",
            ]
        );
        let wrong = Survey {
            blocks: survey.blocks[..2].to_vec(),
            ..survey
        };
        let error = open_plan(&wrong, &[point("/srv/data")]).expect_err("another device");
        assert_eq!(error.kind, PortErrorKind::Mismatch);
    }

    #[test]
    fn the_report_names_who_is_in_the_way() {
        let text = "user\t123\tmini-writer\t/system.slice/mini-writer.service\t/srv/data/writes.log\n\
            user\t124\tother\t/x\t/srv/database\nloop\tloop0\t/srv/data/image\n\
            busy\t/srv/data\tumount: /srv/data: target is busy.\n";
        let error = busy(MachineId(1), text);
        assert_eq!(error.kind, PortErrorKind::InUse);
        assert_eq!(
            error.message,
            "/srv/data in the guest of m1 is still in use by mini-writer (process 123, mini-writer.service) and the loop device loop0"
        );
        assert_eq!(error.causes.len(), 3);
        assert_eq!(busy(MachineId(1), "").kind, PortErrorKind::Failed);
    }

    #[test]
    fn names_of_volume_groups() {
        assert_eq!(volume_group("my--vg-lv--x"), "my-vg");
        assert_eq!(volume_group("vg-lv"), "vg");
        assert_eq!(volume_group("plain"), "plain");
    }
}
