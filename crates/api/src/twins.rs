//! Twins of a folder: names that are equal but for case, which some clients' file systems cannot hold side by side.

use crate::entry::Entry;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which part of a folder's twins is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TwinsQuery {
    /// Names looked at for one page, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// The `next_page_token` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

/// Entries whose names are equal but for case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Twins {
    /// Their name in its folded form.
    pub folded: String,
    /// Two or more; fewer only where a page ended between them.
    pub entries: Vec<Entry>,
}

/// A page of a folder's twins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TwinList {
    /// In the order of folded names; may be empty although more follow.
    pub twins: Vec<Twins>,
    /// Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
