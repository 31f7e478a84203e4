//! `/api/v1/openapi.json`: the description of the API, made from the handlers and the types of `api`.

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", scheme);
    }
}

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(title = "Holdfast", description = "A self-hosted drive on its own storage cluster.", version = "1"),
    modifiers(&Bearer),
    components(schemas(api::problem::Problem)),
    paths(
        super::token::token,
        super::users::create,
        super::users::change,
        super::users::me,
        super::users::change_password,
        super::metadata::list,
        super::metadata::create,
        super::metadata::change,
        super::metadata::delete,
        super::metadata::restore,
        super::upload::upload,
        super::content::content,
        super::admin::status,
        super::admin::stop_node,
        super::admin::start_node,
    )
)]
pub struct Document;

/// The document as JSON.
pub async fn document() -> impl IntoResponse {
    let text = Document::openapi().to_json().unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text)
}

#[cfg(test)]
mod tests {
    use super::Document;
    use utoipa::OpenApi;

    #[test]
    fn the_document_is_openapi_3_1_and_names_every_route() {
        let text = Document::openapi().to_json().unwrap();
        assert!(text.contains("\"openapi\":\"3.1.0\""), "{}", &text[..60]);
        for route in [
            "auth/token",
            "users/{id}",
            "me/password",
            "metadata/{id}/restore",
            "files/upload",
            "files/{id}/content",
        ] {
            assert!(text.contains(&format!("/api/v1/{route}")), "{route}");
        }
    }
}
