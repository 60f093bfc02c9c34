//! What readiness asks about the guest's disks and volumes.

use super::Guest;
use crate::context::Cx;
use flipside_model::{DiskName, DiskRole, Inventory, UpgradeConfig};
use flipside_session::disks;
use flipside_session::readiness::Asked;

pub(super) async fn inventory(cx: &Cx, guest: &Guest) -> Asked<Inventory> {
    let found = cx.ports.guest.inventory(guest.clone()?).await;
    found.map_err(|error| error.to_string())
}

/// The disks that would be Data in a session that began now.
pub(super) fn data(cx: &Cx, config: &UpgradeConfig, found: &Asked<Inventory>) -> Vec<DiskName> {
    let roles = disks::roles(&cx.spec, config, found.as_ref().ok());
    let judged = roles.disks.into_iter();
    let data = judged.filter(|(_, judged)| judged.kind.role() == DiskRole::Data);
    data.map(|(name, _)| name).collect()
}
