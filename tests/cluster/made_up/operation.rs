//! What the OpenAPI document says about an operation, as far as a request needs it.
//!
//! Not here: schemas, which stay as they are (`maker` reads them), and answers (`contract`).

use crate::contract::Contract;
use reqwest::Method;
use serde_json::{Map, Value};

/// A parameter of an operation.
pub(crate) struct Parameter {
    pub(crate) name: String,
    /// `path`, `query` or `header`.
    pub(crate) place: String,
    pub(crate) schema: Value,
    pub(crate) is_required: bool,
}

/// What the document says about one operation.
pub(crate) struct Operation {
    /// Its name.
    pub(crate) id: String,
    /// Its address with gaps.
    pub(crate) path: String,
    pub(crate) method: Method,
    /// Whether it demands a token.
    pub(crate) is_guarded: bool,
    pub(crate) parameters: Vec<Parameter>,
    /// Media types with their schemas.
    pub(crate) bodies: Vec<(String, Value)>,
}

impl Operation {
    /// All of the document.
    pub(crate) fn all(contract: &Contract) -> Vec<Self> {
        let operations = contract.operations().into_iter();
        operations
            .map(|((path, method), described)| Self::read(path, method, described))
            .collect()
    }

    fn read(path: &str, method: &str, described: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let parameters = described["parameters"].as_array().into_iter().flatten();
        let bodies = described["requestBody"]["content"].as_object().into_iter().flatten();
        Self {
            id: text(&described["operationId"]),
            path: path.to_owned(),
            method: method.to_uppercase().parse().unwrap(),
            is_guarded: described.get("security").is_some(),
            parameters: parameters
                .map(|parameter| Parameter {
                    name: text(&parameter["name"]),
                    place: text(&parameter["in"]),
                    schema: parameter["schema"].clone(),
                    is_required: parameter["required"] == true,
                })
                .collect(),
            bodies: bodies
                .map(|(media, content)| (media.clone(), content["schema"].clone()))
                .collect(),
        }
    }

    /// Whether it has a parameter of this name.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.parameters.iter().any(|parameter| parameter.name == name)
    }

    /// Whether nothing can be said to it.
    pub(crate) fn is_plain(&self) -> bool {
        self.parameters.is_empty() && self.bodies.is_empty()
    }

    /// Whether a password is part of a body, which takes long to hash.
    pub(crate) fn takes_password(&self, contract: &Contract) -> bool {
        let fields = |schema| contract.resolve(schema)["properties"].as_object();
        let mut names = self
            .bodies
            .iter()
            .filter_map(|(_, schema)| fields(schema))
            .flat_map(Map::keys);
        names.any(|name| name.contains("password"))
    }
}
