//! `/api/v1/admin`: the cluster's state, and stopping and starting nodes of a dev cluster.

use super::extract::{Authenticated, Id, NoQuery};
use super::problem::HttpError;
use super::{App, NodeSwitch};
use crate::codes;
use crate::drive::{Caller, account};
use api::admin::Status;
use axum::extract::State;
use axum::http::StatusCode;
use model::id::NodeId;
use std::sync::Arc;

/// The state of the cluster.
#[utoipa::path(get, path = "/api/v1/admin/status", security(("bearer" = [])),
    responses((status = 200, body = Status), (status = "default", body = api::problem::Problem)))]
pub async fn status(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
) -> Result<axum::Json<Status>, HttpError> {
    Ok(axum::Json(app.core.status(&caller).await?))
}

/// Stops a node of a dev cluster in one process.
#[utoipa::path(post, path = "/api/v1/admin/nodes/{id}/stop", params(("id" = u32, Path,)), security(("bearer" = [])),
    responses((status = 204), (status = 404), (status = "default", body = api::problem::Problem)))]
pub async fn stop_node(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
) -> Result<StatusCode, HttpError> {
    let (nodes, id) = switch(&app, &caller, &id)?;
    done(nodes.stop(id).await)
}

/// Starts a stopped node again on its old data; when it is answered, this gateway uses the node.
#[utoipa::path(post, path = "/api/v1/admin/nodes/{id}/start", params(("id" = u32, Path,)), security(("bearer" = [])),
    responses((status = 204), (status = 404), (status = "default", body = api::problem::Problem)))]
pub async fn start_node(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    Id(id): Id,
) -> Result<StatusCode, HttpError> {
    let (nodes, id) = switch(&app, &caller, &id)?;
    let is_known = nodes.start(id).await?;
    if is_known {
        // It listens elsewhere now, and its disks were spared while it was away.
        let trace = caller.trace;
        let known = app.core.directory.refresh(trace).await?;
        app.core.await_node(&known, NodeId(id), trace).await;
    }
    done(is_known)
}

fn switch(app: &App, caller: &Caller, id: &str) -> Result<(Arc<dyn NodeSwitch>, u32), HttpError> {
    account::require_admin(caller)?;
    let id = id.parse().map_err(|_| codes::BAD_ID.failure())?;
    let nodes = app.nodes.clone().ok_or_else(|| {
        codes::ROUTE_NOT_FOUND
            .because("only a dev cluster in one process can stop its nodes; stop the node's service instead")
    })?;
    Ok((nodes, id))
}

fn done(is_known: bool) -> Result<StatusCode, HttpError> {
    if is_known {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(protocol::codes::NODE_NOT_FOUND.failure().into())
    }
}
