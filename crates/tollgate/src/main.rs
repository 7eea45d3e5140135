//! `tollgate`: flags, wiring, signals; nothing else.
#![forbid(unsafe_code)]

mod check;
mod conversation;
mod demo;
mod diagnostics;
mod examples;
mod explain;
mod failure;
mod flags;
mod gateway;
mod memory;
mod mock;
mod places;
mod plugins;
mod signals;
mod usage;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::Failure;
use crate::flags::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::prefer_small_pages();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return Failure::told(&error),
    };
    // The one crypto provider of the process; an error means that it is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let outcome = match cli.command {
        Command::Run(flags) => gateway::run(flags),
        Command::Demo(flags) => demo::run(flags),
        Command::Check(flags) => check::run(&flags),
        Command::Explain(flags) => explain::run(&flags),
        Command::MockLlm(flags) => mock::run(&flags).map_err(Failure::from),
        Command::Conversation(flags) => conversation::run(&flags),
        Command::Usage(flags) => usage::run(&flags),
        Command::Plugins(flags) => plugins::run(&flags).map_err(Failure::from),
    };
    outcome.unwrap_or_else(|failure: Failure| failure.tell())
}
