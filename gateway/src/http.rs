//! The HTTP front: routes, and what all of them share.
//!
//! Invariants: a route lies in exactly one file; every route of the API passes `admit`, and what watches the gateway does not; fronts call `drive` and name no rpc, codec or placement; no CORS
//! header is sent unless the configuration names origins, and no connection is ever upgraded; every answer carries a request id.

pub mod admin;
pub mod admit;
pub mod age_hour;
pub mod blocks;
pub mod changes;
pub mod content;
pub mod copies;
pub mod cors;
pub mod drives;
pub mod entries;
pub mod extract;
pub mod file_batch;
pub mod incoming;
pub mod metadata;
pub mod multipart;
pub mod notify;
pub mod openapi;
pub mod page;
pub mod precondition;
pub mod problem;
pub mod range;
pub mod resumable;
pub mod rewind;
pub mod setup;
pub mod sync;
pub mod token;
pub mod trace;
pub mod tus;
pub mod upload;
pub mod users;
pub mod versions;

use crate::admission::Admission;
use crate::auth::password::Passwords;
use crate::codes;
use crate::config::Functions;
use crate::drive::Core;
use crate::http::problem::HttpError;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{get, patch, post, put};
use daemon::shutdown::Shutdown;
use protocol::wire_error::Failure;
use std::sync::Arc;

/// Stops and starts storage nodes of a cluster in one process; `holdfast dev` wires it, production has none.
#[async_trait::async_trait]
pub trait NodeSwitch: Send + Sync + 'static {
    /// Stops the node of this number; true when there is one.
    async fn stop(&self, node: u32) -> bool;
    /// Starts it again on its old data; true when there is one. Errors: it is there and does not start.
    async fn start(&self, node: u32) -> Result<bool, Failure>;
}

/// What every handler has.
pub struct App {
    /// The use cases.
    pub core: Arc<Core>,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Who is let in.
    pub admission: Admission,
    /// Stops and starts nodes, in dev.
    pub nodes: Option<Arc<dyn NodeSwitch>>,
    /// Requested once the process stops.
    pub shutdown: Shutdown,
    /// Whether clients speak TLS with this gateway itself.
    pub has_tls: bool,
    /// Origins whose pages may call from a browser.
    pub browser_origins: Vec<String>,
}

/// All routes: those of functions that are off refuse, so that a client learns that it asked the wrong gateway and not that there is
/// no such address.
pub fn router(app: Arc<App>, functions: Functions) -> Router {
    let own = Router::new()
        .route("/", get(page::home))
        .route("/healthz", get(page::healthz))
        .route("/readyz", get(page::readyz))
        .route("/metrics", get(page::metrics))
        .route("/api/v1/openapi.json", get(openapi::document));
    let routes = own
        .merge(served("api", functions.api, api_routes(&app)))
        .merge(served("block", functions.block, block_routes(&app)))
        .merge(served("notify", functions.notify, notify_routes()))
        .fallback(async || HttpError::from(codes::ROUTE_NOT_FOUND.failure()))
        .method_not_allowed_fallback(async || HttpError::from(codes::METHOD_NOT_ALLOWED.failure()))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), incoming::layer));
    let routes = if app.browser_origins.is_empty() {
        routes
    } else {
        routes.layer(middleware::from_fn_with_state(Arc::clone(&app), cors::layer))
    };
    routes
        .layer(middleware::from_fn_with_state(Arc::clone(&app), trace::layer))
        .with_state(app)
}

/// `routes` as they are, or refusing every request before anything of it is read.
fn served(function: &'static str, is_on: bool, routes: Router<Arc<App>>) -> Router<Arc<App>> {
    if is_on {
        return routes;
    }
    routes.route_layer(middleware::from_fn(move |_: Request, _: Next| {
        let detail = format!("this gateway does not serve the function {function}; ask another gateway of the cluster");
        let refused = HttpError::from(codes::FUNCTION_OFF.because(detail).with("function", function));
        std::future::ready(refused.into_response())
    }))
}

/// Contents, which are most of the bytes.
fn block_routes(app: &Arc<App>) -> Router<Arc<App>> {
    let admitted = middleware::from_fn_with_state(Arc::clone(app), admit::upload);
    let upload = Router::new()
        .route("/api/v1/files/upload", post(upload::upload))
        .route("/api/v1/files/batch", post(file_batch::create))
        .route("/files/upload", post(resumable::start_alias))
        .route("/api/v1/files/{id}", patch(resumable::replace).put(resumable::replace))
        .route(
            "/upload/{key}",
            put(resumable::chunk)
                .post(resumable::chunk)
                .get(resumable::get)
                .delete(resumable::delete),
        )
        .route_layer(admitted);
    let admitted = middleware::from_fn_with_state(Arc::clone(app), admit::short);
    let content = Router::new()
        .route("/api/v1/files/{id}/content", get(content::content))
        .route_layer(admitted);
    let admitted = middleware::from_fn_with_state(Arc::clone(app), admit::upload);
    let blocks = Router::new()
        .route("/api/v1/blocks/{digest}", put(blocks::take))
        .route_layer(admitted);
    let admitted = middleware::from_fn_with_state(Arc::clone(app), admit::upload);
    let tus = Router::new()
        .route("/api/v1/tus", post(tus::create).options(tus::options))
        .route(
            "/api/v1/tus/{key}",
            patch(tus::append)
                .post(tus::overridden)
                .delete(tus::terminate)
                .head(tus::offset),
        )
        .route_layer(admitted)
        .route_layer(middleware::from_fn(tus::layer));
    let told = middleware::from_fn_with_state(Arc::clone(app), age_hour::layer);
    upload.merge(content).merge(blocks).merge(tus).route_layer(told)
}

/// Polls, which wait for most of their time: their handlers hold a place only while they do not.
fn notify_routes() -> Router<Arc<App>> {
    Router::new()
        .route(
            "/api/v1/notifications/poll",
            get(notify::poll).post(notify::poll_by_body),
        )
        .route("/api/v1/events", get(notify::events).post(notify::events_by_body))
}

fn api_routes(app: &Arc<App>) -> Router<Arc<App>> {
    let admitted = middleware::from_fn_with_state(Arc::clone(app), admit::sign_in);
    let sign_in = Router::new()
        .route("/api/v1/auth/token", post(token::token))
        .route_layer(admitted);
    let rest = Router::new()
        .route("/api/v1/users", post(users::create))
        .route("/api/v1/users/{id}", patch(users::change).delete(users::delete))
        .route("/api/v1/me", get(users::me))
        .route("/api/v1/me/password", post(users::change_password))
        .route("/api/v1/metadata", get(metadata::list).post(metadata::create))
        .route(
            "/api/v1/metadata/{id}",
            patch(metadata::change).delete(metadata::delete),
        )
        .route("/api/v1/metadata/{id}/restore", post(metadata::restore))
        .route("/api/v1/metadata/{id}/copy", post(metadata::copy))
        .route("/api/v1/metadata/{id}/rewind", post(rewind::begin))
        .route("/api/v1/metadata/{id}/twins", get(rewind::twins))
        .route("/api/v1/jobs/{id}", get(rewind::show).delete(copies::cancel))
        .route("/api/v1/jobs/{id}/run", post(rewind::run))
        .route("/api/v1/files/{id}/versions", get(versions::list))
        .route("/api/v1/files/{id}/restore", post(versions::restore))
        .route("/api/v1/drives/{id}", get(drives::show).patch(drives::change))
        .route("/api/v1/files/{id}/blocks", get(sync::blocks))
        .route("/api/v1/blocks/upload-url", post(blocks::ticket))
        .route("/api/v1/changes", get(changes::drive_list))
        .route("/api/v1/changes/list", get(changes::list))
        .route("/api/v1/changes/startPageToken", get(changes::start_page_token))
        .route("/api/v1/admin/setup", post(setup::setup))
        .route("/api/v1/admin/status", get(admin::status))
        .route("/api/v1/admin/nodes/{id}/stop", post(admin::stop_node))
        .route("/api/v1/admin/nodes/{id}/start", post(admin::start_node))
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), admit::short));
    // Their lists may be long.
    let admitted = middleware::from_fn_with_state(Arc::clone(app), admit::upload);
    let lists = Router::new()
        .route("/api/v1/files/{id}/sync", post(sync::sync))
        .route("/api/v1/files/{id}/commit", post(sync::commit))
        .route_layer(admitted);
    let told = middleware::from_fn_with_state(Arc::clone(app), age_hour::layer);
    sign_in.merge(rest).merge(lists).route_layer(told)
}
