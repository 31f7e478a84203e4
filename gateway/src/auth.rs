//! Who asks: passwords (argon2id) and tokens.
//!
//! Not here: what they may do (the drive's group) and the HTTP shapes (`http::token`).

pub mod password;
pub mod setup;
pub mod token;
