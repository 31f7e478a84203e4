//! The API as it describes itself: the served OpenAPI document against the routes, and every answer against the document.
//!
//! Invariants: an answer has a documented status and media type and nothing but documented fields; what this validator does not
//! understand of a schema is a fault, so that no schema passes unread.
//! Not here: what a call should do (the file of its topic).

use crate::world::{Answer, World};
use client_sdk::client::Client;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const ROUTES: &str = include_str!("../../gateway/src/http.rs");
const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];
/// Words of a schema that say nothing about values, or nothing that we promise to check.
const REMARKS: [&str; 4] = ["description", "format", "title", "example"];
/// Headers that HTTP itself gives any answer, and those that only guard browsers.
const OF_ANY_ANSWER: [&str; 10] = [
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "transfer-encoding",
    "vary",
    "x-content-type-options",
];

/// The served document.
pub(crate) struct Contract {
    document: Value,
}

impl Contract {
    /// One that was not served.
    pub(crate) fn of(document: Value) -> Self {
        Self { document }
    }

    /// Fetches it.
    pub(crate) async fn fetch(client: &Client) -> Self {
        let document = client.json(Method::GET, "/api/v1/openapi.json", None).await.unwrap();
        Self::of(document)
    }

    /// Every (path, method) with its operation.
    pub(crate) fn operations(&self) -> BTreeMap<(&str, &str), &Value> {
        let paths = self.document["paths"].as_object().unwrap();
        let all = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(move |(method, operation)| ((path.as_str(), method.as_str()), operation))
        });
        all.collect()
    }

    /// Panics when `answer` is not one that the document allows to this request.
    pub(crate) fn check(&self, method: &Method, path: &str, answer: &Answer) {
        if let Err(fault) = self.judge(method, path, answer) {
            panic!("{fault}");
        }
    }

    /// Says why `answer` is not one that the document allows to this request.
    pub(crate) fn judge(&self, method: &Method, path: &str, answer: &Answer) -> Result<(), String> {
        let fits = |template: &str| {
            let (mut template, mut path) = (template.split('/'), path.split('/'));
            let is_same = |(part, given): (&str, &str)| part == given || (part.starts_with('{') && !given.is_empty());
            template.by_ref().zip(path.by_ref()).all(is_same) && template.next().is_none() && path.next().is_none()
        };
        let known = self.operations();
        let here: Vec<_> = known.iter().filter(|((path, _), _)| fits(path)).collect();
        let status = answer.status.as_u16();
        let body = String::from_utf8_lossy(&answer.body);
        let refused = |wanted: (u16, &str)| match (status, schema_problem(answer).as_str()) == wanted {
            true => Ok(()),
            false => Err(format!("{method} {path}: {status} {body} and not {wanted:?}")),
        };
        if here.is_empty() {
            return refused((404, "route_not_found"));
        }
        let asked = method.as_str().to_lowercase();
        let of = |asked: &str| here.iter().find(|((_, method), _)| *method == asked);
        // Where a HEAD is not described, it is answered as a GET without the body.
        let Some((_, operation)) = of(&asked).or_else(|| of("get").filter(|_| asked == "head")) else {
            return refused((405, "method_not_allowed"));
        };
        let responses = &operation["responses"];
        let response = responses.get(status.to_string()).or_else(|| responses.get("default"));
        let Some(response) = response else {
            return Err(format!("{method} {path} answered {status}, which is not described"));
        };
        let what = format!("{method} {path}: {status} {body}");
        let Some(content) = response.get("content") else {
            return match answer.body.is_empty() || status == 206 {
                true => Ok(()),
                false => Err(format!("no body is described: {what}")),
            };
        };
        if *method == Method::HEAD {
            return Ok(());
        }
        let media = answer.header("content-type").unwrap_or("");
        let media = media.split(';').next().unwrap_or("");
        let described = content.get(media).or_else(|| content.get("application/octet-stream"));
        let described = described.ok_or_else(|| format!("`{media}` is not described: {what}"))?;
        if media.ends_with("json")
            && let Some(schema) = described.get("schema")
        {
            let value = serde_json::from_slice(&answer.body).map_err(|error| format!("{error} in {what}"))?;
            let faults = self.faults(schema, &value);
            if !faults.is_empty() {
                return Err(format!("{faults:?} in {what}"));
            }
        }
        Ok(())
    }

    /// What the operation at `template` does not say by name of the status and the headers of `answer`: `default` is for statuses of
    /// later releases. Empty when it says all.
    pub(crate) fn unnamed(&self, method: &Method, template: &str, answer: &Answer) -> Vec<String> {
        let status = answer.status.as_u16();
        let responses = &self.document["paths"][template][method.as_str().to_lowercase()]["responses"];
        let Some(response) = responses.get(status.to_string()) else {
            return vec![format!("{method} {template} answered {status}, which it names nowhere")];
        };
        let mut found = Vec::new();
        let described: BTreeMap<String, &Value> = response["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, header)| (name.to_lowercase(), header))
            .collect();
        for (name, header) in &described {
            let is_number = |text: &str| text.parse::<u64>().is_ok();
            match answer.header(name) {
                None if header["required"] == true => found.push(format!("{status} lacks the header {name}")),
                Some(text) if header["schema"]["type"] == "integer" && !is_number(text) => {
                    found.push(format!("the header {name} of {status} is no number: {text}"));
                }
                _ => {}
            }
        }
        for (name, value) in &answer.headers {
            if !OF_ANY_ANSWER.contains(&name.as_str()) && !described.contains_key(name) {
                found.push(format!("the header {name}: {value} of {status} is not described"));
            }
        }
        found
    }

    /// Where `value` is not as `schema` says.
    pub(crate) fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.validate(schema, value, "", &mut faults);
        faults
    }

    /// What a reference leads to.
    pub(crate) fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => {
                let found = self.document.pointer(reference.trim_start_matches('#'));
                found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
            }
            None => schema,
        }
    }

    fn validate(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let words = schema.as_object().unwrap();
        for (word, rule) in words {
            let is_met = match word.as_str() {
                "type" => has_type(rule, value),
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
                "minItems" => value
                    .as_array()
                    .is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
                "maxItems" => value
                    .as_array()
                    .is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
                "oneOf" => {
                    let fits = |one: &&Value| {
                        let mut inner = Vec::new();
                        self.validate(one, value, at, &mut inner);
                        inner.is_empty()
                    };
                    rule.as_array().unwrap().iter().filter(fits).count() == 1
                }
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.validate(rule, item, &format!("{at}/{number}"), faults);
                    }
                    true
                }
                "required" | "properties" | "additionalProperties" => true,
                _ => REMARKS.contains(&word.as_str()),
            };
            if !is_met {
                faults.push(format!("{at}: `{word}: {rule}` is not met by {value}"));
            }
        }
        if let (Some(fields), true) = (value.as_object(), words.contains_key("properties")) {
            self.validate_fields(schema, fields, at, faults);
        }
    }

    fn validate_fields(
        &self,
        schema: &Value,
        fields: &serde_json::Map<String, Value>,
        at: &str,
        faults: &mut Vec<String>,
    ) {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                faults.push(format!("{at}: {name} is missing"));
            }
        }
        for (name, value) in fields {
            match schema["properties"].get(name) {
                Some(described) => self.validate(described, value, &format!("{at}/{name}"), faults),
                None if schema["additionalProperties"].is_object() => {}
                None => faults.push(format!("{at}: `{name}` is not described")),
            }
        }
    }

    /// Every (method, path) that demands a token, for the matrix of permissions.
    pub(crate) fn guarded(&self) -> BTreeSet<(String, String)> {
        let guarded = self
            .operations()
            .into_iter()
            .filter(|(_, operation)| operation.get("security").is_some());
        guarded
            .map(|((path, method), _)| (method.to_uppercase(), path.to_owned()))
            .collect()
    }
}

fn schema_problem(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["code"].as_str().unwrap_or("none").to_owned()
}

fn has_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("type {other} is not known here"),
    };
    match rule {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

/// The routes as they are written down in the gateway: (path, method).
fn routes() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for piece in ROUTES.split(".route(").skip(1) {
        let path = piece.split('"').nth(1).unwrap().to_owned();
        let mut depth = 1;
        let end = piece.find(|letter| {
            depth += i32::from(letter == '(') - i32::from(letter == ')');
            depth == 0
        });
        let handlers = &piece[..end.unwrap()];
        let before = found.len();
        for method in METHODS.into_iter().chain(["head", "options"]) {
            if handlers.contains(&format!("{method}(")) {
                found.insert((path.clone(), method.to_owned()));
            }
        }
        assert!(found.len() > before, "{path} has no method that is known here");
    }
    found
}

/// A path with something in its gaps.
fn filled(template: &str) -> String {
    template.replace("{id}", "0").replace("{digest}", &"0".repeat(64))
}

/// shows: H-API-2 scale=1/2
/// shows: SC-out
#[tokio::test]
async fn every_route_is_described_and_every_described_route_is_there() {
    let world = World::start().await;
    let contract = &world.contract;
    assert_eq!(contract.document["openapi"], "3.1.0");
    let described: BTreeSet<_> = contract
        .operations()
        .keys()
        .map(|(path, method)| ((*path).to_owned(), (*method).to_owned()))
        .collect();
    assert_eq!(routes(), described);
    // Out of scope for good, so no such call may creep in.
    for word in ["search", "edit", "collab", "inspect", "dlp", "socket"] {
        assert!(described.iter().all(|(path, _)| !path.contains(word)), "{word}");
    }

    let stranger = Client::new(&world.cluster.facts.url).unwrap();
    let guarded = contract.guarded();
    // An answer to HEAD has no body that would tell a route that is not there from an upload that is not.
    for (path, method) in described.iter().filter(|(_, method)| method != "head") {
        let method: Method = method.to_uppercase().parse().unwrap();
        let concrete = filled(path);
        let answer = world.call_as(&stranger, method.clone(), &concrete, None).await;
        let status = answer.status.as_u16();
        let is_absent = status == 405 || (status == 404 && schema_problem(&answer) == "route_not_found");
        assert!(!is_absent, "{method} {path} is described and answers {status}");
        if guarded.contains(&(method.to_string(), path.clone())) {
            answer.refused(401, "unauthenticated");
        }
    }
    let paths: BTreeSet<&String> = described.iter().map(|(path, _)| path).collect();
    for path in paths {
        for other in METHODS
            .iter()
            .filter(|method| !described.contains(&(path.clone(), (**method).to_owned())))
        {
            let method: Method = other.to_uppercase().parse().unwrap();
            let answer = world.call_as(&stranger, method, &filled(path), None).await;
            answer.refused(405, "method_not_allowed");
            let allowed = answer.header("allow").unwrap().to_lowercase();
            let allowed: BTreeSet<&str> = allowed
                .split(',')
                .map(str::trim)
                .filter(|method| !["head", "options"].contains(method))
                .collect();
            let here: BTreeSet<&str> = described
                .iter()
                .filter(|(known, _)| known == path)
                .map(|(_, method)| method.as_str())
                .filter(|method| !["head", "options"].contains(method))
                .collect();
            assert_eq!(allowed, here, "{path}");
        }
    }
    for path in ["/api/v1/nothing", "/api/v1/metadata/", "/api/v2/metadata", "/..%2fetc"] {
        world
            .call_as(&stranger, Method::GET, path, None)
            .await
            .refused(404, "route_not_found");
    }
}

#[test]
fn an_answer_that_departs_from_its_description_is_caught() {
    let answer = |status: u16, media: &str, body: &Value| Answer {
        status: status.try_into().unwrap(),
        headers: vec![("content-type".to_owned(), media.to_owned())],
        body: serde_json::to_vec(body).unwrap(),
    };
    let document = json!({
        "paths": {"/a/{id}": {"get": {"responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/schemas/A"}}}}}}}},
        "schemas": {"A": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 1}, "w": {"type": ["string", "null"], "enum": ["x", null]}}}},
    });
    let is_passed = |given: Answer| {
        Contract::of(document.clone())
            .judge(&Method::GET, "/a/7", &given)
            .is_ok()
    };
    let json = "application/json";
    assert!(is_passed(answer(200, json, &json!({"n": 1, "w": "x"}))));
    for departing in [
        json!({}),
        json!({"n": 0}),
        json!({"n": "1"}),
        json!({"n": 1, "w": "y"}),
        json!({"n": 1, "more": 1}),
        json!([]),
    ] {
        assert!(!is_passed(answer(200, json, &departing)), "{departing}");
    }
    assert!(!is_passed(answer(200, "text/plain", &json!({"n": 1}))));
    assert!(!is_passed(answer(201, json, &json!({"n": 1}))));
}
