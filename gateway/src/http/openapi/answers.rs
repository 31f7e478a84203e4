//! What answers have beside what their handlers say of them: refusals of the layers and extractors in front, and headers.
//!
//! Invariants: every status that is answered before a handler runs is described at each operation behind it; a described header says
//! whether it is always there, and at a handler `Option` says that it is not; a status from 400 on of which the handler says no body
//! has that of its other refusals.
//! Not here: which code has which status (`problem`). `default` stays beside the statuses, for those of later releases.

use super::words;
use api::problem::PROBLEM_TYPE;
use serde_json::{Map, Value, json};

/// Of every operation: a request without `Host`.
const EVERYWHERE: [u16; 1] = [400];
/// Of the API: a function that this gateway does not serve, too much under way, and what went wrong here.
const API: [u16; 4] = [421, 429, 500, 503];
/// Where it counts who calls.
const SIGNED_IN: [u16; 2] = [401, 403];
/// Where a body is read.
const WITH_BODY: [u16; 2] = [408, 413];
/// Where something is changed: perhaps it was, and perhaps there is no room.
const CHANGING: [u16; 2] = [504, 507];

/// Where nobody is told the aged hour: polls wait, and what they tell is in their bodies.
const POLLS: [&str; 2] = ["/api/v1/notifications/poll", "/api/v1/events"];

/// A header that many answers have.
struct Shared {
    name: &'static str,
    kind: &'static str,
    description: &'static str,
    is_required: bool,
}

/// Adds to the document what is said here once.
pub(super) fn complete(document: &mut Value) {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            let refused = refused(path, method, operation);
            let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
            parameters.into_iter().for_each(add_age_hour);
            if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
                describe((path, method), refused, responses);
            }
        }
    }
}

/// Whoever gives a request an id may say when he made it.
fn add_age_hour(parameters: &mut Vec<Value>) {
    if parameters.iter().any(|known| known["name"] == "Idempotency-Key") {
        parameters.push(json!({
            "name": "Holdfast-Age-Hour",
            "in": "header",
            "required": false,
            "description": "The hour in which the key was made, as an answer told it then: a repeat that comes too late is refused and not done again.",
            "schema": {"type": "integer", "minimum": 0, "maximum": u32::MAX},
        }));
    }
}

/// Statuses of what is refused, or goes wrong, before or behind any handler.
fn refused(path: &str, method: &str, operation: &Value) -> Vec<u16> {
    let mut statuses = EVERYWHERE.to_vec();
    if !is_api(&operation["responses"]) {
        return statuses;
    }
    statuses.extend(API);
    // The address of an upload stands for a token, and one may come along.
    if operation.get("security").is_some() || path.ends_with("/{key}") {
        statuses.extend(SIGNED_IN);
    }
    if operation.get("requestBody").is_some() {
        statuses.extend(WITH_BODY);
    }
    if !["get", "head", "options"].contains(&method) {
        statuses.extend(CHANGING);
    }
    statuses
}

/// What is no page for a person or a probe.
fn is_api(responses: &Value) -> bool {
    responses.get("default").is_some()
}

fn describe((path, method): (&str, &str), refused: Vec<u16>, responses: &mut Map<String, Value>) {
    let default = responses.get("default").cloned();
    for status in refused {
        responses.entry(status.to_string()).or_insert_with(|| json!({}));
    }
    for (status, response) in responses.iter_mut() {
        if response.get("description").is_none() {
            response["description"] = json!(words(status));
        }
        let number: Option<u16> = status.parse().ok();
        let is_refusal = number.is_some_and(|number| number >= 400);
        // An answer to HEAD has no body.
        if is_refusal && method != "head" && response.get("content").is_none() {
            response["content"] = content_of(number, default.as_ref());
        }
        mark(response);
        for header in shared((path, method), number, default.is_some()) {
            let described = json!({
                "description": header.description,
                "required": header.is_required,
                "schema": {"type": header.kind},
            });
            response["headers"][header.name] = described;
        }
    }
}

/// The body of a refusal: that of the operation's others, but for what is refused before its handler is known.
fn content_of(status: Option<u16>, default: Option<&Value>) -> Value {
    let problem = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
    let own = default.and_then(|default| default.get("content"));
    let mut content = match (status, own) {
        (Some(421), _) | (_, None) => json!({}),
        (_, Some(own)) => own.clone(),
    };
    if status == Some(400) || own.is_none() || status == Some(421) {
        content[PROBLEM_TYPE] = problem;
    }
    content
}

/// Makes of an optional value an optional header, and of every other one that is always there.
fn mark(response: &mut Value) {
    let headers = response.get_mut("headers").and_then(Value::as_object_mut);
    for (_, header) in headers.into_iter().flatten() {
        let kind = header["schema"]["type"].clone();
        let kinds = kind.as_array().into_iter().flatten();
        let present = kinds.clone().find(|kind| *kind != "null").cloned();
        let is_optional = kinds.clone().any(|kind| kind == "null");
        if let Some(present) = present {
            header["schema"]["type"] = present;
        }
        header["required"] = json!(!is_optional);
    }
}

/// Headers of the layers in front of an operation, and of refusals.
fn shared((path, method): (&str, &str), status: Option<u16>, is_api: bool) -> Vec<Shared> {
    let header = |name, kind, description, is_required| Shared {
        name,
        kind,
        description,
        is_required,
    };
    let mut headers = vec![header(
        "X-Request-Id",
        "string",
        "Stands in the logs of all processes that took part.",
        true,
    )];
    if status == Some(401) {
        headers.push(header("WWW-Authenticate", "string", "Bearer", true));
    }
    if is_api && matches!(status, Some(429 | 503)) {
        let seconds = "Seconds after which it makes sense to come again.";
        headers.push(header("Retry-After", "integer", seconds, true));
    }
    if is_api && !POLLS.contains(&path) {
        let hour = "The aged hour of the caller's drive, where the caller is known; see Idempotency-Key.";
        headers.push(header("Holdfast-Age-Hour", "integer", hour, false));
    }
    if path.starts_with("/api/v1/tus") && method != "options" {
        // What is refused in front of the protocol's own layer does not speak it.
        let is_spoken = matches!(status, Some(200..=299 | 412));
        headers.push(header("Tus-Resumable", "string", "1.0.0", is_spoken));
        if status == Some(412) {
            headers.push(header("Tus-Version", "string", "1.0.0", true));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::complete;
    use serde_json::{Value, json};

    fn completed(path: &str, method: &str, operation: &Value) -> Value {
        let mut document = json!({"paths": {path: {method: operation}}});
        complete(&mut document);
        document["paths"][path][method]["responses"].clone()
    }

    fn statuses(responses: &Value) -> Vec<&str> {
        let mut names: Vec<&str> = responses.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn refusals_follow_from_what_an_operation_takes() {
        let problem = json!({"description": "no", "content": {"application/problem+json": {}}});
        let plain = json!({"responses": {"200": {"description": "yes"}}});
        let of = |operation: &Value, path: &str, method: &str| statuses(&completed(path, method, operation)).join(" ");
        assert_eq!(of(&plain, "/a", "get"), "200 400");
        let refusing = json!({"responses": {"200": {"description": "yes"}, "default": problem}});
        assert_eq!(of(&refusing, "/a", "get"), "200 400 421 429 500 503 default");
        let full = json!({
            "security": [], "requestBody": {},
            "responses": {"204": {"description": "yes"}, "404": {"description": "none"}, "default": problem},
        });
        assert_eq!(
            of(&full, "/a", "post"),
            "204 400 401 403 404 408 413 421 429 500 503 504 507 default"
        );
        assert_eq!(
            of(&refusing, "/a/{key}", "get"),
            "200 400 401 403 421 429 500 503 default"
        );
    }

    #[test]
    fn every_refusal_has_a_body_and_no_success_gets_one() {
        let token = json!({"application/json": {"schema": 1}});
        let operation = json!({"responses": {"204": {"description": "yes"}, "409": {"description": "taken"},
            "default": {"description": "no", "content": token}}});
        let responses = completed("/a", "post", &operation);
        assert_eq!(responses["204"].get("content"), None);
        assert_eq!(responses["409"]["content"], token);
        assert_eq!(responses["503"]["content"], token);
        let types = |status: &str| statuses(&responses[status]["content"]).join(" ");
        assert_eq!(types("400"), "application/json application/problem+json");
        assert_eq!(types("421"), "application/problem+json");
        let headless = json!({"responses": {"200": {"description": "yes"}, "default": {"description": "no"}}});
        let responses = completed("/a", "head", &headless);
        for response in responses.as_object().unwrap().values() {
            assert_eq!(response.get("content"), None);
        }
    }

    #[test]
    fn whoever_may_name_a_request_may_say_when_he_did() {
        let named = json!([{"name": "Idempotency-Key", "in": "header"}]);
        for (parameters, count) in [(named, 2), (json!([{"name": "id", "in": "path"}]), 1)] {
            let operation = json!({"parameters": parameters, "responses": {"default": {"description": "no"}}});
            let mut document = json!({"paths": {"/a": {"post": operation}}});
            complete(&mut document);
            let parameters = document["paths"]["/a"]["post"]["parameters"].as_array().unwrap();
            assert_eq!(parameters.len(), count, "{parameters:?}");
            assert_eq!(parameters[count - 1]["name"] == "Holdfast-Age-Hour", count == 2);
        }
    }

    #[test]
    fn headers_say_whether_they_are_always_there() {
        let operation = json!({"responses": {
            "200": {"description": "yes", "headers": {
                "Location": {"schema": {"type": "string"}},
                "Upload-Offset": {"schema": {"type": ["integer", "null"]}},
            }},
            "412": {"description": "no"},
            "default": {"description": "no"},
        }});
        let responses = completed("/api/v1/tus/{key}", "post", &operation);
        let is_required = |status: &str, name: &str| responses[status]["headers"][name]["required"].as_bool();
        assert_eq!(is_required("200", "Location"), Some(true));
        assert_eq!(is_required("200", "Upload-Offset"), Some(false));
        assert_eq!(
            responses["200"]["headers"]["Upload-Offset"]["schema"]["type"],
            "integer"
        );
        assert_eq!(is_required("200", "Tus-Resumable"), Some(true));
        assert_eq!(is_required("421", "Tus-Resumable"), Some(false));
        assert_eq!(is_required("412", "Tus-Version"), Some(true));
        assert_eq!(is_required("200", "Tus-Version"), None);
        assert_eq!(is_required("401", "WWW-Authenticate"), Some(true));
        assert_eq!(is_required("429", "Retry-After"), Some(true));
        assert_eq!(is_required("503", "Retry-After"), Some(true));
        assert_eq!(is_required("500", "Retry-After"), None);
        for status in ["200", "400", "412", "default"] {
            assert_eq!(is_required(status, "X-Request-Id"), Some(true), "{status}");
            assert_eq!(is_required(status, "Holdfast-Age-Hour"), Some(false), "{status}");
        }
        let polled = completed("/api/v1/events", "get", &operation);
        assert_eq!(polled["200"]["headers"].get("Holdfast-Age-Hour"), None);
        let probe = json!({"responses": {"503": {"description": "no"}}});
        let responses = completed("/readyz", "get", &probe);
        assert_eq!(responses["503"]["headers"].get("Retry-After"), None);
    }
}
