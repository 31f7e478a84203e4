//! The gateway: drive use cases, sign-in, and the HTTP front.
//!
//! Reading order: `serve` (how it starts), `http` (what comes in), `admission` (what is taken on), `drive` (what is done), `auth`
//! (who asks).

pub mod admission;
pub mod auth;
pub mod codes;
pub mod config;
pub mod connections;
pub mod drive;
pub mod http;
pub mod metrics;
pub mod seams;
pub mod serve;

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "tests speak over real sockets and wait in real time"
)]
mod tests;
