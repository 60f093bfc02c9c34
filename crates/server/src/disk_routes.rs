//! Requests about one disk.

use crate::answer::Answer;
use crate::registry::Registry;
use crate::streams::{channel, lines};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use flipside_model::api::{VerifyEvent, VerifyRequest};
use flipside_model::{DiskName, Problem, ProblemCode};
use std::sync::Arc;

/// Compares both legs; ends when the client hangs up.
pub(crate) async fn verify(
    State(registry): State<Arc<Registry>>,
    Path((name, disk)): Path<(String, String)>,
    Json(request): Json<VerifyRequest>,
) -> Answer<Response> {
    let system = registry.get(&name).await?;
    let disk: DiskName = disk.parse().map_err(|error| {
        Problem::new(ProblemCode::Usage, format!("`{disk}` is no name of a disk"))
            .because(&error)
            .advise("disks are called system0, data0, data1 and so on")
    })?;
    let (sender, receiver) = channel();
    tokio::spawn(async move {
        let told = sender.clone();
        // A client that is slow must not stop the work: what it misses is only how far it is.
        let progress = move |progress| {
            let _ = told.try_send(VerifyEvent::Progress(progress));
        };
        let end = tokio::select! {
            end = system.verify(&disk, request.repair, &progress) => end,
            () = sender.closed() => return,
        };
        let event = end.map_or_else(VerifyEvent::Failed, VerifyEvent::Done);
        let _ = sender.send(event).await;
    });
    Ok(lines(receiver))
}
