//! Checks of changed files and of the scratch disk that carries them.

use super::CheckResult;
use super::bench::{Bench, NOBODY, expect, ok, refused};
use crate::CarryPlan;
use flipside_model::MachineId;

/// A file of its own on the system disk.
const FILE: &str = "/var/spool/flipside-check";

/// The size of the scratch disk here.
const BYTES: u64 = 64 << 20;

fn plan(since: &str, mark: &str) -> CarryPlan {
    CarryPlan {
        rules: vec![FILE.to_owned()],
        since: since.to_owned(),
        mark: mark.to_owned(),
        most: BYTES / 2,
    }
}

async fn write(b: &Bench<'_>, id: MachineId, text: &str) -> CheckResult {
    let written = b.p.guest.write_file(id, FILE, 0, text.as_bytes()).await;
    ok("write_file", written)
}

/// One guest is both sides here: what is packed is put where it is already, so only what changed since could differ.
pub(crate) async fn changed_files_are_listed_and_carried(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    let (disk, guest) = (b.p.disk.clone(), b.p.guest.clone());
    let data = [b.data.clone()];
    refused(
        "changes before the mark",
        &guest.changes(id, &data, 10).await,
    )?;
    ok("mark_split", guest.mark_split(id, true).await)?;
    write(b, id, "first").await?;
    let list = ok("changes", guest.changes(id, &data, 10_000).await)?;
    let found = list.files.iter().find(|f| f.path == FILE);
    expect(
        found.is_some_and(|f| f.bytes == 5) && list.total >= 1,
        format!("{found:?} of {}", list.total),
    )?;
    refused(
        "pack without a disk",
        &guest.pack(id, &plan("split", "r1")).await,
    )?;
    for _ in 0..2 {
        ok("plug_scratch", disk.plug_scratch(id, BYTES).await)?;
    }
    let before = b.see(id).await?;
    let packed = ok("pack", guest.pack(id, &plan("split", "r1")).await)?;
    expect(
        packed.files >= 1 && packed.bytes == 5,
        format!("{packed:?}"),
    )?;
    let small = CarryPlan {
        most: 4,
        ..plan("split", "r2")
    };
    refused("pack of too much", &guest.pack(id, &small).await)?;
    ok("pack", guest.pack(id, &plan("split", "r3")).await)?;
    let same = ok("unpack", guest.unpack(id, &plan("split", "r3").rules).await)?;
    expect(
        same.conflicts.is_empty(),
        format!("{same:?} although nothing differs"),
    )?;
    // What changed here since the split, and differs, stays.
    write(b, id, "ours").await?;
    let kept = ok("unpack", guest.unpack(id, &plan("split", "r3").rules).await)?;
    expect(kept.conflicts == [FILE], format!("{kept:?}"))?;
    for _ in 0..2 {
        ok("unplug_scratch", disk.unplug_scratch(id).await)?;
    }
    let after = b.see(id).await?;
    expect(
        before == after,
        format!("the scratch disk is in a view: {before:?}, {after:?}"),
    )?;
    for _ in 0..2 {
        ok("drop_scratch", disk.drop_scratch().await)?;
    }
    let nobody = disk.plug_scratch(NOBODY, BYTES).await;
    refused("plug_scratch into nobody", &nobody)?;
    ok("mark_split", guest.mark_split(id, false).await)?;
    refused(
        "changes without a mark",
        &guest.changes(id, &data, 10).await,
    )
}
