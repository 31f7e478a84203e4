//! `/api/v1/openapi.json`: the description of the API, made from the handlers and the types of `api`.
//!
//! Invariants: every route of `http::router` is in it (tests/cluster/contract.rs compares); what all operations share is added once:
//! tags by resource, statuses in words, the media type of errors, a name of its own for each here, and in `answers` what is refused
//! before a handler runs.

mod answers;

use api::problem::PROBLEM_TYPE;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::Value;
use std::sync::LazyLock;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Response};
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

struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let resource = path.trim_start_matches("/api/v1/").split('/').next();
            let tag = resource.filter(|word| !word.is_empty()).unwrap_or("operation");
            let is_api = path.starts_with("/api/v1/") && tag != "openapi.json";
            name_apart(item);
            for operation in operations(item) {
                operation.tags = Some(vec![if is_api { tag } else { "operation" }.to_owned()]);
                for (status, response) in &mut operation.responses.responses {
                    if let RefOr::T(response) = response {
                        describe(status, response);
                    }
                }
            }
        }
    }
}

/// A handler may answer two methods alike; then they are two operations all the same, and each needs a name of its own.
fn name_apart(item: &mut PathItem) {
    rename(item.patch.as_ref(), item.put.as_mut(), |name| format!("{name}_by_put"));
    rename(item.put.as_ref(), item.post.as_mut(), |name| {
        name.replacen("put", "post", 1)
    });
}

/// Gives an operation another name when it has that of the first.
fn rename(first: Option<&Operation>, second: Option<&mut Operation>, other: impl Fn(&str) -> String) {
    let name = first.and_then(|first| first.operation_id.as_deref());
    if let (Some(name), Some(second)) = (name, second)
        && second.operation_id.as_deref() == Some(name)
    {
        second.operation_id = Some(other(name));
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
        &mut item.head,
        &mut item.options,
    ]
    .into_iter()
    .flatten()
}

fn describe(status: &str, response: &mut Response) {
    if response.description.is_empty() {
        response.description = words(status).to_owned();
    }
    let problem = Ref::from_schema_name("Problem");
    let is_problem =
        |content: &utoipa::openapi::Content| matches!(&content.schema, Some(RefOr::Ref(named)) if *named == problem);
    if response.content.get("application/json").is_some_and(is_problem)
        && let Some(content) = response.content.shift_remove("application/json")
    {
        response.content.insert(PROBLEM_TYPE.to_owned(), content);
    }
}

/// A status as people call it.
fn words(status: &str) -> &'static str {
    let code = status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
    let words = code.and_then(|code| code.canonical_reason());
    words.unwrap_or("A refusal or a failure; see docs/errors.md")
}

/// What handlers and types say of themselves.
#[derive(OpenApi)]
#[openapi(
    info(title = "Holdfast", description = "A self-hosted drive on its own storage cluster.", version = "1"),
    modifiers(&Bearer, &Shared),
    components(schemas(api::problem::Problem, api::upload::UploadType)),
    paths(
        super::page::home,
        super::page::healthz,
        super::page::readyz,
        super::page::metrics,
        document,
        super::token::token,
        super::setup::setup,
        super::users::create,
        super::users::change,
        super::users::delete,
        super::users::me,
        super::users::change_password,
        super::metadata::list,
        super::metadata::create,
        super::metadata::change,
        super::metadata::delete,
        super::metadata::restore,
        super::metadata::copy,
        super::rewind::begin,
        super::rewind::twins,
        super::rewind::show,
        super::rewind::run,
        super::copies::cancel,
        super::versions::list,
        super::versions::restore,
        super::drives::show,
        super::drives::change,
        super::upload::upload,
        super::resumable::start_alias,
        super::resumable::replace,
        super::resumable::chunk,
        super::resumable::get,
        super::resumable::delete,
        super::tus::options,
        super::tus::create,
        super::tus::offset,
        super::tus::append,
        super::tus::terminate,
        super::tus::overridden,
        super::content::content,
        super::sync::sync,
        super::sync::commit,
        super::sync::blocks,
        super::blocks::take,
        super::blocks::ticket,
        super::changes::list,
        super::changes::start_page_token,
        super::changes::drive_list,
        super::notify::poll,
        super::notify::poll_by_body,
        super::notify::events,
        super::notify::events_by_body,
        super::admin::status,
        super::admin::stop_node,
        super::admin::start_node,
        super::file_batch::create,
    )
)]
pub struct Document;

/// The document as it is served.
static SERVED: LazyLock<String> = LazyLock::new(|| described().to_string());

/// The whole document.
fn described() -> Value {
    let mut document =
        serde_json::to_value(Document::openapi()).expect("a document of strings and maps is always JSON");
    answers::complete(&mut document);
    document
}

/// The document as JSON.
#[utoipa::path(get, path = "/api/v1/openapi.json", operation_id = "openapi", responses((status = 200, body = serde_json::Value)))]
pub async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], SERVED.as_str())
}

#[cfg(test)]
mod tests {
    use super::described;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                let named = fields.get("$ref").and_then(Value::as_str);
                found.extend(named.map(str::to_owned));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    /// Found by `make api-fuzz`: a type of a query alone was named and not there.
    #[test]
    fn every_reference_leads_somewhere() {
        let document = described();
        let mut named = BTreeSet::new();
        references(&document, &mut named);
        assert!(named.len() > 10, "{named:?}");
        for reference in named {
            let found = document.pointer(reference.trim_start_matches('#'));
            assert!(found.is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn the_document_is_openapi_3_1_and_its_operations_have_names_of_their_own() {
        let document = described();
        assert_eq!(document["openapi"], "3.1.0");
        let mut seen = BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(seen.insert(id.to_owned()), "{id} is the name of two operations");
                for response in operation["responses"].as_object().unwrap().values() {
                    assert!(
                        response["description"].as_str().is_some_and(|text| !text.is_empty()),
                        "{id}"
                    );
                }
            }
        }
        assert!(seen.len() >= 20, "{seen:?}");
    }
}
