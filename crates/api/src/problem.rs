//! The one shape of an error: RFC 9457 `application/problem+json` with a stable code.
//!
//! Invariants: `code` is one of docs/errors.md; additions of a code lie beside the fixed members and never replace one.
//! Not here: which status a kind has (`gateway::http::problem`).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The media type of every error but those of the token endpoint.
pub const PROBLEM_TYPE: &str = "application/problem+json";

/// What went wrong, for programs (`code`) and for people (`detail`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A stable URI of the code.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// A stable word such as `name_taken`.
    pub code: String,
    /// One sentence that says what is wrong and what to do.
    pub detail: String,
    /// The request, as it stands in our logs.
    pub request_id: String,
    /// Additions of the code, such as `existing` or `current`.
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, Value>)]
    pub fields: BTreeMap<String, Value>,
}

/// The error shape of the token endpoint (RFC 6749, section 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenProblem {
    /// `invalid_request`, `invalid_grant`, `unsupported_grant_type` or `temporarily_unavailable`.
    pub error: String,
    /// One sentence that says what to do.
    pub error_description: String,
}

#[cfg(test)]
mod tests {
    use super::Problem;
    use std::collections::BTreeMap;

    #[test]
    fn fields_of_a_code_lie_beside_the_fixed_members() {
        let problem = Problem {
            problem_type: "urn:holdfast:error:name_taken".into(),
            title: "Conflict".into(),
            status: 409,
            code: "name_taken".into(),
            detail: "choose another name".into(),
            request_id: "r".into(),
            fields: BTreeMap::from([("existing".to_owned(), serde_json::json!({"id": "x"}))]),
        };
        let text = serde_json::to_value(&problem).unwrap();
        assert_eq!(text["existing"]["id"], "x");
        assert_eq!(serde_json::from_value::<Problem>(text).unwrap(), problem);
    }
}
