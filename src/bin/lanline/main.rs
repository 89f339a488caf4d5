//! The program `lanline`. Each command has a file of its own, with its arguments and a `run` that returns the exit code.

mod config;
mod demo;
mod doctor;
mod serve;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Exit code of a wrong flag, an unusable folder or a port in use.
const EXIT_USAGE: u8 = 2;

/// Connects a game's players directly, across whatever routers they sit behind.
#[derive(Parser)]
#[command(name = "lanline", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server: introduces players to each other.
    Serve(Box<serve::Arguments>),
    /// Report on this machine's way to other players: what a player sends to support.
    Doctor(doctor::Arguments),
    /// Watch the main job happen on this machine: players join, chat, and survive the death of their host.
    Demo,
}

fn main() -> ExitCode {
    let result = parse(std::env::args_os().collect()).and_then(|program| match program.command {
        Command::Serve(arguments) => serve::run(&arguments).map_err(Exit::Usage),
        Command::Doctor(arguments) => Ok(doctor::run(&arguments)),
        Command::Demo => Ok(demo::run()),
    });
    match result {
        Ok(code) => code,
        Err(Exit::Shown) => ExitCode::SUCCESS,
        Err(Exit::Usage(line)) => {
            eprintln!("lanline: {line}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Why the program ends before it has begun.
enum Exit {
    /// Help or version was asked for and is printed.
    Shown,
    /// One line for a person.
    Usage(String),
}

/// Arguments, with those of a configuration file behind them.
fn parse(arguments: Vec<std::ffi::OsString>) -> Result<Program, Exit> {
    let command = Program::command();
    let mut matches = command.clone().try_get_matches_from(&arguments).map_err(exit_of)?;
    if let Some(("serve", given)) = matches.subcommand()
        && let Some(file) = given.get_one::<std::path::PathBuf>("config")
    {
        let from_file = config::arguments(file, given, &command).map_err(Exit::Usage)?;
        // The program's name and `serve`, then the file's settings, then the flags again.
        let (command_words, flags) = arguments.split_at(2);
        let mut all = command_words.to_vec();
        all.extend(from_file.into_iter().map(Into::into));
        all.extend_from_slice(flags);
        matches = command.try_get_matches_from(all).map_err(exit_of)?;
    }
    Program::from_arg_matches(&matches).map_err(exit_of)
}

fn exit_of(error: clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Exit::Shown
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            Exit::Usage("say what to do: `lanline serve`, `lanline doctor`, or `lanline --help`".to_owned())
        }
        _ => Exit::Usage(one_line(&error)),
    }
}

/// The first paragraph of clap's message as one line: what is wrong, without usage and hints.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    let line = words.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}
