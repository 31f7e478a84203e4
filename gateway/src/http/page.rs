//! What answers without a token: a page for a person, health, readiness, metrics.

use super::App;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use daemon::status_port::Readiness;
use std::sync::Arc;

const PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Holdfast</title>\
<style>body{font:16px/1.5 sans-serif;max-width:44em;margin:3em auto;padding:0 1em}pre{background:#eee;padding:1em;overflow:auto}</style>\
<h1>Holdfast</h1><p>This is a Holdfast gateway. It is {STATE}.</p><p>First steps:</p><pre>\
T=$(curl -s -d grant_type=password -d username=NAME -d password=PASSWORD $URL/api/v1/auth/token | sed 's/.*access_token\":\"\\([^\"]*\\).*/\\1/')\n\
curl -H \"Authorization: Bearer $T\" --data-binary @FILE \"$URL/api/v1/files/upload?uploadType=media&amp;path=/FILE\"\n\
curl -H \"Authorization: Bearer $T\" \"$URL/api/v1/metadata?path=/\"</pre>\
<p>The whole API: <a href=/api/v1/openapi.json>/api/v1/openapi.json</a></p>";

/// A page for a person: state and first curl lines.
#[utoipa::path(get, path = "/", responses((status = 200, content_type = "text/html", body = String)))]
pub async fn home(State(app): State<Arc<App>>) -> impl IntoResponse {
    let state = if app.core.directory.is_ready() {
        "ready"
    } else {
        "starting: no metadata group has answered yet"
    };
    let policy = (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'",
    );
    ([policy], Html(PAGE.replace("{STATE}", state)))
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", responses((status = 200, content_type = "text/plain", body = String)))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// The gateway can serve: a majority of the control group answers it, and it does not stop.
#[utoipa::path(get, path = "/readyz", responses((status = 200, content_type = "text/plain", body = String),
    (status = 503, content_type = "text/plain", body = String)))]
pub async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    if app.shutdown.is_requested() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    match app.core.ready().await {
        Ok(_) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Everything measured in this process, by all of its roles.
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "text/plain", body = String)))]
pub async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let all = app.core.seams.metrics.clone();
    // Gauges are refreshed for the page, which looks at disks. A panic there is a bug of a gauge, told by the runtime already.
    let encoded = tokio::task::spawn_blocking(move || all.encode_process())
        .await
        .unwrap_or_default();
    ([(header::CONTENT_TYPE, daemon::metrics::TEXT_CONTENT_TYPE)], encoded)
}
