//! Requests that look at a side: services, packages.

use crate::answer::Answer;
use crate::registry::Registry;
use axum::Json;
use axum::extract::{Path, Query, State};
use flipside_model::api::{PackageChange, ServiceStatus};
use flipside_model::{Package, Side};
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
