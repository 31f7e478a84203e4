//! Request and answer types of the HTTP API, one file per resource, each with its OpenAPI schema.
//!
//! Pure. Requests refuse unknown fields; answers may grow, and clients ignore what they do not know.
//! Not here: routes and statuses (`gateway::http`).

pub mod admin;
pub mod change;
pub mod copy;
pub mod drive;
pub mod entry;
pub mod file_batch;
pub mod google;
pub mod me;
pub mod metadata;
pub mod problem;
pub mod receipt;
pub mod rewind;
pub mod sync;
pub mod timestamp;
pub mod token;
pub mod twins;
pub mod upload;
pub mod user;
pub mod version;
