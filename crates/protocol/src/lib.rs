//! Every message between processes of a cluster: methods, frames, failures, and the typed calls of nodes and metadata groups.
//!
//! Pure. Messages are postcard; payloads travel beside them as `Bytes` and are never copied into a message.

pub mod codes;
pub mod frame;
pub mod metadata;
pub mod node;
pub mod status;
pub mod wire_error;
