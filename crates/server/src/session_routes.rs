//! Requests that move a session or the power of a system.

use crate::answer::Answer;
use crate::registry::Registry;
use axum::Json;
use axum::extract::{Path, State};
use flipside_engine::Request;
use flipside_model::api::{Accepted, PowerRequest, RestartRequest, SessionRequest, StagedConfig};
use flipside_model::{PinnedFile, Status};
use std::sync::Arc;

pub(crate) async fn session(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Json(request): Json<SessionRequest>,
) -> Answer<Json<Accepted>> {
    let system = registry.get(&name).await?;
    let config = match (request.config, request.no_config) {
        (Some(file), _) => {
            // Only what was sent: no path that a client names is opened. The session keeps these texts (CF-05).
            let config = flipside_config::resolve(&file)?.staged()?;
            let shown = file
                .path
                .file_name()
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            Some(Some((shown, config)))
        }
        (None, true) => Some(None),
        (None, false) => None,
    };
    Ok(Json(
        system
            .ask(
                Request {
                    command: request.command,
                    config,
                },
                request.seen,
                request.discard_data,
            )
            .await?,
    ))
}

/// Returns the staging copy of the session, or the configuration checked last.
pub(crate) async fn config(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<Json<StagedConfig>> {
    let state = registry.get(&name).await?.state();
    Ok(Json(StagedConfig {
        session: state.session,
        name: state.config_name.clone(),
        config: flipside_model::UpgradeConfig::clone(&state.settings()),
    }))
}

pub(crate) async fn power(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Json(request): Json<PowerRequest>,
) -> Answer<Json<Status>> {
    let system = registry.get(&name).await?;
    // In a task of its own: a client that hangs up must not stop a machine half-way.
    let driven = system.clone();
    let action = request.action;
    let done = tokio::spawn(async move { driven.power(action).await }).await;
    done.unwrap_or_else(|e| Err(crate::streams::lost(&e)))?;
    Ok(Json(system.fresh_status().await))
}

pub(crate) async fn accept_actions(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<Json<Vec<PinnedFile>>> {
    let system = registry.get(&name).await?;
    let done = tokio::spawn(async move { system.accept_actions().await }).await;
    let accepted = done.unwrap_or_else(|e| Err(crate::streams::lost(&e)))?;
    Ok(Json(accepted))
}

pub(crate) async fn restart(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Json(request): Json<RestartRequest>,
) -> Answer<Json<Status>> {
    let system = registry.get(&name).await?;
    let driven = system.clone();
    let done = tokio::spawn(async move { driven.restart(request.side).await }).await;
    done.unwrap_or_else(|e| Err(crate::streams::lost(&e)))?;
    Ok(Json(system.fresh_status().await))
}
