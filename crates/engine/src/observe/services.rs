//! What readiness asks about the services to be controlled.

use super::Guest;
use crate::context::Cx;
use flipside_model::{DiskName, ServiceName, UpgradeConfig};
use flipside_session::readiness::{Asked, ServiceSeen, WrittenFile};

fn units(config: &UpgradeConfig) -> Vec<String> {
    config.services.iter().map(ServiceName::unit).collect()
}

pub(super) async fn running(
    cx: &Cx,
    guest: &Guest,
    config: &UpgradeConfig,
) -> Asked<Vec<ServiceSeen>> {
    let units = units(config);
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let services = cx.ports.guest.services(guest.clone()?, &units).await;
    let services = services.map_err(|error| error.to_string())?;
    let seen = services.into_iter().map(|s| ServiceSeen {
        unit: s.unit,
        exists: s.exists,
        active: s.active,
        startup: s.startup.0,
        alias_of: s.alias_of,
        refuses_stop: s.refuses_stop,
    });
    Ok(seen.collect())
}

pub(super) async fn written(
    cx: &Cx,
    guest: &Guest,
    config: &UpgradeConfig,
    data: &[DiskName],
) -> Asked<Vec<WrittenFile>> {
    let units = units(config);
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let on_data = |disk: &str| data.iter().any(|d| d.as_str() == disk);
    let files = cx.ports.guest.open_files(guest.clone()?, &units).await;
    let files = files.map_err(|error| error.to_string())?;
    let elsewhere = files.into_iter().filter(|f| !on_data(&f.disk));
    let seen = elsewhere.map(|f| WrittenFile {
        unit: f.unit,
        path: f.path,
    });
    Ok(seen.collect())
}
