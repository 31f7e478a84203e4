//! Client library of Holdfast: sign in, put, get, list, organise, over the HTTP API.
//!
//! Everything here goes through `Client`; answers are the types of `api`. The sync engine comes with a later issue; `delta` is what it will stand on.

pub mod changes;
pub mod client;
pub mod copies;
pub mod delta;
pub mod error;
pub mod file_batch;
pub mod follow;
pub mod http;
pub mod request_id;
pub mod rewind;
pub mod versions;
