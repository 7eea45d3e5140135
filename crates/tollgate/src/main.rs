//! `tollgate`: flags, wiring, signals; nothing else.
#![forbid(unsafe_code)]

mod check;
mod demo;
mod diagnostics;
mod explain;
mod flags;
mod gateway;
mod mock;
mod plugins;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use crate::flags::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a command that was refused or failed; usage errors are clap's 2.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The one crypto provider of the process; an error means that it is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let outcome = match cli.command {
        Command::Run(flags) => gateway::run(flags),
        Command::Demo(flags) => demo::run(flags),
        Command::Check(flags) => check::run(&flags),
        Command::Explain(flags) => explain::run(&flags),
        Command::MockLlm(flags) => mock::run(&flags),
        Command::Plugins(flags) => plugins::run(&flags),
    };
    match outcome {
        Ok(code) => code,
        Err(message) => {
            diagnostics::say(&format!("tollgate: {message}"));
            ExitCode::from(FAILED)
        }
    }
}
