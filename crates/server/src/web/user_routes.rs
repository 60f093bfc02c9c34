//! Requests about the users of the console. They are answered on the Unix socket only.

use super::accounts::Accounts;
use super::sessions::{Role, Sessions};
use crate::answer::Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use flipside_model::api::{ConsoleUser, ConsoleUserRequest};
use flipside_model::{Problem, ProblemCode};
use std::sync::Arc;

type Users = (Arc<Accounts>, Arc<Sessions>);

/// The routes of users.
pub(crate) fn router(accounts: Arc<Accounts>, sessions: Arc<Sessions>) -> Router {
    Router::new()
        .route("/v1/console/users", get(list))
        .route("/v1/console/users/{user}", put(set).delete(remove))
        .with_state((accounts, sessions))
}

async fn list(State((accounts, _)): State<Users>) -> Answer<Json<Vec<ConsoleUser>>> {
    let users = accounts
        .list()
        .map_err(|error| Problem::new(ProblemCode::Internal, format!("{error:#}")))?;
    let shown = users.into_iter().map(|who| ConsoleUser {
        name: who.name,
        operator: who.role == Role::Operator,
    });
    Ok(Json(shown.collect()))
}

async fn set(
    State((accounts, sessions)): State<Users>,
    Path(user): Path<String>,
    Json(request): Json<ConsoleUserRequest>,
) -> Answer<StatusCode> {
    let role = if request.operator {
        Role::Operator
    } else {
        Role::Viewer
    };
    let name = user.clone();
    // Hashing takes a processor for a moment.
    let done =
        tokio::task::spawn_blocking(move || accounts.set(&name, role, &request.password)).await;
    done.unwrap_or_else(|error| Err(crate::streams::lost(&error)))?;
    // Whoever used the old password, or had another role, logs in again.
    sessions.end_all(&user);
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State((accounts, sessions)): State<Users>,
    Path(user): Path<String>,
) -> Answer<StatusCode> {
    accounts.remove(&user)?;
    sessions.end_all(&user);
    Ok(StatusCode::NO_CONTENT)
}
