//! Requests made up from the OpenAPI document: such as it allows and such as it does not, as a seed decides.
//!
//! Invariants: the same seed makes the same requests but for ids and times, which come out of answers; no poll is asked to wait for
//! longer than a second; nothing is made up that HTTP itself could not carry.
//! Not here: who sends them, and what counts as a fault (`made_up`).

use super::dice::Dice;
use super::nonsense::{MORE_HEADERS, damaged, wrong_text};
use super::operation::{Operation, Parameter};
use super::pool::{Pool, sort_of};
use super::written::{encoded, text_of, written};
use crate::contract::Contract;
use crate::world::PASSWORD;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Part of a sound request wherever it may be said.
const ALWAYS: [&str; 1] = ["path"];
/// Said in every request, and never more than a second: a poll without them waits for a minute.
const HELD: [&str; 3] = ["cursor", "timeout", "Timeout"];
const BOUNDARY: &str = "made-up";
/// A content where none is given.
const BYTES: &[u8] = b"made up";

/// How near to the document a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// As a client sends it that wants an answer: what must be said and little more.
    Sound,
    /// Whatever the document allows.
    Allowed,
    /// One thing of it is not allowed.
    Outside,
}

/// Values that a request shall have, whatever the dice say.
#[derive(Default)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, Value>,
    /// The media type of the body.
    pub(crate) media: Option<&'static str>,
    /// A body that is bytes.
    pub(crate) bytes: Option<Vec<u8>>,
}

impl Given {
    /// Sets the value of a parameter or field.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.values.insert(name, value.into());
    }
}

/// A request as it is sent, but for the token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MadeUp {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, HeaderValue)>,
    pub(crate) body: Option<Vec<u8>>,
}

impl MadeUp {
    /// The address without its query.
    pub(crate) fn route(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }
}

/// Makes requests up.
pub(crate) struct Maker<'a> {
    contract: &'a Contract,
    dice: Dice,
    /// Of the requests before.
    pub(crate) pool: Pool,
    fresh: u64,
}

impl<'a> Maker<'a> {
    /// One that the seed decides.
    pub(crate) fn new(contract: &'a Contract, seed: u64) -> Self {
        Self {
            contract,
            dice: Dice::new(seed),
            pool: Pool::default(),
            fresh: 0,
        }
    }

    /// A number that was not given out before.
    pub(crate) fn number(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    /// A request to `operation`.
    pub(crate) fn make(&mut self, operation: &Operation, aim: Aim, given: &Given) -> MadeUp {
        let count = operation.parameters.len();
        // Bodies have more in them than a parameter, so they are wrong more often.
        let parts = count + if operation.bodies.is_empty() { 0 } else { 3 };
        let wrong = (aim == Aim::Outside && parts > 0).then(|| self.dice.below(parts));
        let mut path = operation.path.clone();
        let (mut query, mut headers) = (Vec::new(), Vec::new());
        for (at, parameter) in operation.parameters.iter().enumerate() {
            let Some(text) = self.parameter(&operation.path, parameter, (aim, wrong == Some(at)), given) else {
                continue;
            };
            match parameter.place.as_str() {
                // An empty gap would be another address.
                "path" if text.is_empty() => path = path.replace(&format!("{{{}}}", parameter.name), "0"),
                "path" => path = path.replace(&format!("{{{}}}", parameter.name), &encoded(&text)),
                "query" => query.push(format!("{}={}", parameter.name, encoded(&text))),
                _ => headers.push((parameter.name.to_lowercase(), text)),
            }
        }
        let body = self.body(operation, (aim, wrong.is_some_and(|at| at >= count)), given);
        if let Some((media, _)) = &body {
            headers.push(("content-type".to_owned(), media.clone()));
        }
        if aim != Aim::Sound && self.dice.is_one_in(4) {
            let &(name, values) = self.dice.one(&MORE_HEADERS);
            headers.push((name.to_owned(), (*self.dice.one(values)).to_owned()));
        }
        if aim == Aim::Outside && self.dice.is_one_in(8) {
            query.push("nobody_knows=1".to_owned());
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        // What no header can carry is left out.
        let sendable = |(name, text): (String, String)| Some((name, HeaderValue::from_bytes(text.as_bytes()).ok()?));
        MadeUp {
            method: operation.method.clone(),
            path,
            headers: headers.into_iter().filter_map(sendable).collect(),
            body: body.map(|(_, bytes)| bytes),
        }
    }

    fn is_said(&mut self, name: &str, is_required: bool, aim: Aim, given: &Given) -> bool {
        if is_required || HELD.contains(&name) || given.values.contains_key(name) {
            return true;
        }
        match aim {
            Aim::Sound => ALWAYS.contains(&name),
            Aim::Allowed | Aim::Outside => self.dice.is_one_in(2),
        }
    }

    fn parameter(
        &mut self,
        path: &str,
        parameter: &Parameter,
        (aim, is_wrong): (Aim, bool),
        given: &Given,
    ) -> Option<String> {
        let name = parameter.name.as_str();
        if is_wrong {
            let may_lack = parameter.place != "path" && !HELD.contains(&name);
            return (!may_lack || !self.dice.is_one_in(3)).then(|| wrong_text(&mut self.dice));
        }
        if !self.is_said(name, parameter.is_required, aim, given) {
            return None;
        }
        let value = self.value((name, sort_of(path, name)), &parameter.schema, aim, given);
        Some(text_of(&value))
    }

    /// A value of the field `name`, which the pool knows as `sort`.
    fn value(&mut self, (name, sort): (&str, &str), schema: &Value, aim: Aim, given: &Given) -> Value {
        if let Some(value) = given.values.get(name) {
            return value.clone();
        }
        // A right password would be changed, and with it all tokens would end.
        let is_fixed = HELD.contains(&name) || name == "old_password";
        let is_sound = aim == Aim::Sound || is_fixed || self.dice.is_one_in(2);
        if let Some(value) = self.sound(name).filter(|_| is_sound) {
            return value;
        }
        if aim != Aim::Sound
            && self.dice.is_one_in(2)
            && let Some(value) = self.pool.any(sort, &mut self.dice)
        {
            return value;
        }
        self.of_schema(name, schema, aim, given)
    }

    /// A value with which a request of a field of this name succeeds, where the document does not tell.
    fn sound(&mut self, name: &str) -> Option<Value> {
        let number = self.number();
        Some(match name {
            "path" => json!(format!("/made up {number}")),
            "username" => json!(format!("made-up-{number}")),
            "password" | "new_password" => json!(PASSWORD),
            "old_password" | "setup_token" => json!("not the right one"),
            "limit" | "pageSize" => json!(10),
            "timeout" => json!(1),
            "Timeout" => json!("1"),
            "cursor" => json!("no cursor of ours"),
            "Tus-Resumable" => json!("1.0.0"),
            "Upload-Metadata" => json!(format!("path {}", STANDARD.encode(format!("/made up {number}")))),
            "If-Match" => json!("*"),
            "resumable" => json!(true),
            "size" => json!(BYTES.len()),
            "grant_type" => json!("password"),
            _ => return None,
        })
    }

    fn of_schema(&mut self, name: &str, schema: &Value, aim: Aim, given: &Given) -> Value {
        let contract = self.contract;
        let schema = contract.resolve(schema);
        if let Some(words) = schema["enum"].as_array() {
            let words: Vec<&Value> = words.iter().filter(|word| !word.is_null()).collect();
            let at = if aim == Aim::Sound {
                0
            } else {
                self.dice.below(words.len())
            };
            return words[at].clone();
        }
        for word in ["oneOf", "anyOf", "allOf"] {
            let variants = schema[word].as_array().into_iter().flatten();
            let variants: Vec<&Value> = variants.filter(|variant| variant["type"] != "null").collect();
            if !variants.is_empty() {
                let at = if aim == Aim::Sound {
                    0
                } else {
                    self.dice.below(variants.len())
                };
                return self.of_schema(name, variants[at], aim, given);
            }
        }
        match kind(schema) {
            "object" => self.object(schema, aim, given),
            "array" => {
                let bound = |word: &str| schema[word].as_u64().and_then(|bound| usize::try_from(bound).ok());
                let least = bound("minItems").unwrap_or(0);
                let most = bound("maxItems").unwrap_or(3).min(least.max(3));
                let count = match aim {
                    Aim::Sound => least.max(1),
                    Aim::Allowed | Aim::Outside => least + self.dice.below(most - least + 1),
                };
                let items = (0..count).map(|_| self.value((name, name), &schema["items"], aim, given));
                Value::Array(items.collect())
            }
            "integer" | "number" => self.integer(schema, aim),
            "boolean" => json!(aim != Aim::Sound && self.dice.is_one_in(2)),
            _ => json!(self.word(aim)),
        }
    }

    fn object(&mut self, schema: &Value, aim: Aim, given: &Given) -> Value {
        let mut fields = Map::new();
        let required = schema["required"].as_array();
        for (name, described) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.is_some_and(|names| names.iter().any(|required| required == name));
            if self.is_said(name, is_required, aim, given) {
                let sort = name.as_str();
                fields.insert(name.clone(), self.value((sort, sort), described, aim, given));
            }
        }
        Value::Object(fields)
    }

    fn integer(&mut self, schema: &Value, aim: Aim) -> Value {
        let least = schema["minimum"].as_u64().unwrap_or(0);
        let most = schema["maximum"].as_u64().unwrap_or(u64::MAX);
        if aim == Aim::Sound {
            return json!(least.max(1).min(most));
        }
        let all = [0, 1, 2, 7, 1000, 1 << 31, 1 << 40, u64::MAX];
        let allowed: Vec<u64> = all
            .into_iter()
            .chain([least, most])
            .filter(|number| (least..=most).contains(number))
            .collect();
        json!(self.dice.one(&allowed))
    }

    fn word(&mut self, aim: Aim) -> String {
        let number = self.number();
        if aim == Aim::Sound {
            return format!("made up {number}");
        }
        let words = [
            "a",
            "made up",
            "A",
            "\u{dc}",
            "u\u{308}",
            "\u{65e5}\u{672c}",
            "\u{1f600}",
            "a.b",
            "x/y",
            "%2F",
            "CON",
            "new",
        ];
        (*self.dice.one(&words)).to_owned()
    }

    /// A body with its media type.
    fn body(
        &mut self,
        operation: &Operation,
        (aim, is_wrong): (Aim, bool),
        given: &Given,
    ) -> Option<(String, Vec<u8>)> {
        let first = operation.bodies.first()?;
        let named = |media: &str| operation.bodies.iter().find(|(known, _)| known == media);
        let (media, schema) = match given.media.and_then(named) {
            Some(wanted) => wanted,
            None if aim == Aim::Sound => first,
            None => self.dice.one(&operation.bodies),
        };
        let (said, body) = match media.as_str() {
            "application/json" => {
                let value = self.of_schema("", schema, aim, given);
                let body = if is_wrong {
                    damaged(&mut self.dice, value)
                } else {
                    written(&value)
                };
                (media.clone(), body)
            }
            "application/x-www-form-urlencoded" => {
                let value = self.of_schema("", schema, aim, given);
                let fields = value.as_object().into_iter().flatten();
                let pairs = fields.map(|(name, value)| format!("{name}={}", encoded(&text_of(value))));
                let mut form = pairs.collect::<Vec<_>>().join("&");
                if is_wrong {
                    form = format!("{form}&{}={}", self.word(aim), encoded(&wrong_text(&mut self.dice)));
                }
                (media.clone(), form.into_bytes())
            }
            "multipart/related" => {
                let value = self.of_schema("", schema, aim, given);
                let content = content_of(&value, given);
                let json = if is_wrong {
                    damaged(&mut self.dice, value)
                } else {
                    written(&value)
                };
                let mut body = format!("--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n").into_bytes();
                body.extend(json);
                body.extend(format!("\r\n--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\n").into_bytes());
                body.extend(content);
                body.extend(format!("\r\n--{BOUNDARY}--\r\n").into_bytes());
                (format!("{media}; boundary={BOUNDARY}"), body)
            }
            _ => (media.clone(), self.bytes((aim, is_wrong), given)),
        };
        let is_misnamed = is_wrong && self.dice.is_one_in(5);
        Some((if is_misnamed { "text/plain".to_owned() } else { said }, body))
    }

    fn bytes(&mut self, (aim, is_wrong): (Aim, bool), given: &Given) -> Vec<u8> {
        match &given.bytes {
            Some(bytes) if !is_wrong => bytes.clone(),
            None if aim == Aim::Sound => BYTES.to_vec(),
            _ => {
                let length = *self.dice.one(&[0, 1, BYTES.len(), 4096, 70_000]);
                crate::world::noise(length as u64, length)
            }
        }
    }
}

/// Contents as long as the list of files says, as far as that is sensible.
fn content_of(value: &Value, given: &Given) -> Vec<u8> {
    let Some(files) = value["files"].as_array() else {
        return given.bytes.clone().unwrap_or_else(|| BYTES.to_vec());
    };
    let sizes = files.iter().filter_map(|file| file["size"].as_u64());
    let sum = sizes.fold(0_u64, u64::saturating_add).min(100_000);
    vec![b'm'; usize::try_from(sum).unwrap()]
}

fn kind(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(kind) => kind,
        Value::Array(kinds) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str);
            kinds.find(|kind| *kind != "null").unwrap_or("null")
        }
        _ => "string",
    }
}
