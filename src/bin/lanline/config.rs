//! The configuration file of `lanline serve`: lines of `name = value` with the names of the flags. Empty lines and what
//! follows a `#` at the beginning of a line are ignored; a flag that may be repeated may have several lines. Flags of the
//! command line win over the file.

use std::fs;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::one_line;

/// Largest file that is read, in bytes: some hundred times what all settings need.
const MAX_SIZE: u64 = 64 << 10;

/// The file's settings as arguments of `serve`, without those that the command line `given` has. An error is one line
/// that names the file and the line.
pub fn arguments(file: &Path, given: &ArgMatches, command: &Command) -> Result<Vec<String>, String> {
    let name = file.display();
    let size = fs::metadata(file)
        .map_err(|error| format!("cannot read {name}: {error}"))?
        .len();
    if size > MAX_SIZE {
        return Err(format!("{name} is no configuration file: it has {size} bytes"));
    }
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {name}: {error}"))?;
    let mut arguments = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = |problem: String| format!("{name}:{}: {problem}", index + 1);
        if let Some((key, argument)) = setting(line, command).map_err(place)?
            && given.value_source(&key) != Some(ValueSource::CommandLine)
        {
            arguments.push(argument);
        }
    }
    Ok(arguments)
}

/// Reads a line: the setting's id and the argument that it stands for.
fn setting(line: &str, command: &Command) -> Result<Option<(String, String)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (key, value) = line
        .split_once('=')
        .ok_or_else(|| format!("`{line}` is not `name = value`"))?;
    let (key, value) = (key.trim(), value.trim());
    let serve = command.find_subcommand("serve").ok_or("no command `serve`")?;
    let known = serve
        .get_arguments()
        .find(|argument| argument.get_long() == Some(key) && key != "config");
    let known = known.ok_or_else(|| format!("there is no setting `{key}`"))?;
    let takes_value = known.get_action().takes_values();
    let argument = match (takes_value, value) {
        (true, _) => format!("--{key}={value}"),
        (false, "true" | "on") => format!("--{key}"),
        (false, _) => return Err(format!("`{key}` can only be `on`")),
    };
    // Each line by itself, so that a wrong value is reported with its place.
    command
        .clone()
        .try_get_matches_from(["lanline", "serve", &argument])
        .map_err(|error| one_line(&error))?;
    Ok(Some((known.get_id().to_string(), argument)))
}
