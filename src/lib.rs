//! The server's wiring: the command line, a process's roles, and the clusters that they make.
//!
//! A library, so that a test can run the same dev cluster in its own process on seams of its own (`dev::cluster`); everything
//! that a user reaches goes through `main.rs`.
//! Reading order: `cli` (what may be asked), `dev` and `serve` (what runs), `roles` (how a role starts), then what these stand on.

pub mod admin;
pub mod cli;
mod config;
pub mod dev;
mod first_start;
pub mod identity_command;
mod identity_files;
pub mod init;
mod late_handler;
mod moved_clock;
pub mod one_line;
mod registration;
mod revocation_file;
pub mod roles;
mod row_source;
pub mod serve;
pub mod start_again;
pub mod watching;
