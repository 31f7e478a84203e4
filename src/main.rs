//! The server binary: parses the command line and calls the library beside it.

use clap::Parser;
use holdfast::cli::{Command, CommandLine};
use holdfast::one_line::one_line;
use holdfast::{admin, dev, identity_command, init, serve};

fn main() -> std::process::ExitCode {
    let command_line = CommandLine::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match command_line.command {
                Command::Dev(arguments) => dev::run(arguments).await,
                Command::Serve(arguments) => serve::run(arguments).await,
                Command::Init(arguments) => init::run(&arguments),
                Command::Identity(arguments) => identity_command::run(&arguments),
                Command::Admin(arguments) => admin::run(arguments).await,
            }
        }),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            daemon::log::tell_end(&one_line(&error));
            std::process::ExitCode::from(admin::exit_code_of(&error))
        }
    }
}
