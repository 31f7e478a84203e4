//! The server binary: parses the command line and calls; everything else is in libraries and the modules beside it.

mod admin;
mod bootstrap;
mod cli;
mod config;
mod dev;
mod identity_files;
mod init;
mod late_handler;
mod roles;
mod row_source;
mod serve;

use clap::Parser;
use cli::{Command, CommandLine};

fn main() -> std::process::ExitCode {
    let command_line = CommandLine::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match command_line.command {
                Command::Dev(arguments) => dev::run(arguments).await,
                Command::Serve(arguments) => serve::run(arguments).await,
                Command::Init(arguments) => init::run(&arguments),
                Command::Admin(arguments) => admin::run(arguments).await,
            }
        }),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
