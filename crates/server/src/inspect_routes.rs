//! Requests that look at a side: services, packages, logs, its condition; and its drive, keys, dump files.

use crate::answer::Answer;
use crate::registry::Registry;
use axum::Json;
use axum::extract::{Path, Query, State};
use flipside_model::api::{
    KeysRequest, MediaRequest, MediumStatus, PackageChange, RehearsalRequest, RehearsalStatus,
    ServiceListing, ServiceStatus, SideAccess,
};
use flipside_model::{
    ChangeList, Condition, DiskMap, Dump, LogSource, Package, PackageFault, Side, Status,
};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Debug, Deserialize)]
pub(crate) struct SideQuery {
    /// Production when it is left out.
    side: Option<Side>,
}

impl SideQuery {
    fn side(&self) -> Side {
        self.side.unwrap_or(Side::Production)
    }
}

pub(crate) async fn services(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<SideQuery>,
) -> Answer<Json<Vec<ServiceStatus>>> {
    let system = registry.get(&name).await?;
    Ok(Json(system.services(query.side()).await?))
}

pub(crate) async fn all_services(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<SideQuery>,
) -> Answer<Json<Vec<ServiceListing>>> {
    let system = registry.get(&name).await?;
    Ok(Json(system.all_services(query.side()).await?))
}

pub(crate) async fn disks(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<Json<DiskMap>> {
    let system = registry.get(&name).await?;
    Ok(Json(system.disk_map().await))
}

pub(crate) async fn logs(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<SideQuery>,
) -> Answer<Json<Vec<LogSource>>> {
    let system = registry.get(&name).await?;
    Ok(Json(system.logs(query.side()).await?))
}

pub(crate) async fn packages(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<SideQuery>,
) -> Answer<Json<Vec<Package>>> {
    let system = registry.get(&name).await?;
    Ok(Json(system.packages(query.side()).await?))
}

pub(crate) async fn package_changes(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<Json<Vec<PackageChange>>> {
    let system = registry.get(&name).await?;
    Ok(Json(system.package_changes().await?))
}

pub(crate) async fn verify_packages(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<SideQuery>,
) -> Answer<Json<Vec<PackageFault>>> {
    let system = registry.get(&name).await?;
    Ok(Json(system.verify_packages(query.side()).await?))
}

pub(crate) async fn condition(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<SideQuery>,
) -> Answer<Json<Condition>> {
    let system = registry.get(&name).await?;
    Ok(Json(system.condition(query.side()).await?))
}

pub(crate) async fn access(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<SideQuery>,
) -> Answer<Json<SideAccess>> {
    let system = registry.get(&name).await?;
    Ok(Json(system.access(query.side).await?))
}

pub(crate) async fn keys(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Json(request): Json<KeysRequest>,
) -> Answer<Json<Status>> {
    let system = registry.get(&name).await?;
    system.send_keys(request.side, request.keys).await?;
    Ok(Json(system.fresh_status().await))
}

pub(crate) async fn medium(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<SideQuery>,
) -> Answer<Json<MediumStatus>> {
    let system = registry.get(&name).await?;
    Ok(Json(system.medium(query.side).await?))
}

pub(crate) async fn media(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Json(request): Json<MediaRequest>,
) -> Answer<Json<MediumStatus>> {
    let system = registry.get(&name).await?;
    let Some(image) = request.image else {
        return Ok(Json(
            system.eject_medium(request.side, request.force).await?,
        ));
    };
    if request.force {
        system.eject_medium(request.side, true).await?;
    }
    Ok(Json(system.insert_medium(request.side, &image).await?))
}

pub(crate) async fn rehearsal(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<Json<RehearsalStatus>> {
    Ok(Json(registry.get(&name).await?.rehearsal().await?))
}

pub(crate) async fn rehearse(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Json(request): Json<RehearsalRequest>,
) -> Answer<Json<RehearsalStatus>> {
    let system = registry.get(&name).await?;
    // In a task of its own: a client that hangs up must not stop a start half-way.
    let done = tokio::spawn(async move { system.rehearse(request.start).await }).await;
    let status = done.unwrap_or_else(|e| Err(crate::streams::lost(&e)))?;
    Ok(Json(status))
}

pub(crate) async fn dumps(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<Json<Vec<Dump>>> {
    Ok(Json(registry.get(&name).await?.dumps().await?))
}

pub(crate) async fn take_dump(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<Json<Dump>> {
    let system = registry.get(&name).await?;
    // In a task of its own: a client that hangs up must not leave a machine that stands still.
    let taken = tokio::spawn(async move { system.take_dump().await }).await;
    Ok(Json(
        taken.unwrap_or_else(|e| Err(crate::streams::lost(&e)))?,
    ))
}

#[derive(Debug, Deserialize)]
pub(crate) struct PageQuery {
    /// Only paths behind this one.
    #[serde(default)]
    after: String,
    /// At most so many.
    limit: Option<usize>,
}

/// Files in an answer when nothing else is asked for.
const DEFAULT_LIMIT: usize = 200;

pub(crate) async fn changes(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<ChangeList>> {
    let system = registry.get(&name).await?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    Ok(Json(system.production_changes(&query.after, limit).await?))
}
