//! `solid demo --stay`: a pair to try things out with.

use std::io::Write;
use std::path::Path;

use super::failed;
use super::pair::{ADMINISTRATOR, Pair, Server};
use crate::config::Parameters;
use crate::error::ServerError;

/// Sets up the pair, explains it, and leaves it running.
pub fn run(program: &Path, directory: &Path) -> Result<(), ServerError> {
    let mut pair = Pair::prepare(program, directory, "")?;
    pair.start()?;
    let text = explanation(&pair, program, directory)?;
    pair.first.leave_running();
    pair.second.leave_running();
    // A reader that has gone away misses the text; the servers run all the same.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

fn explanation(pair: &Pair, program: &Path, directory: &Path) -> Result<String, ServerError> {
    let (first, second) = (&pair.first, &pair.second);
    let gone = || failed("A server has ended right after the start.");
    let (first_id, second_id) = (first.process_id().ok_or_else(gone)?, second.process_id().ok_or_else(gone)?);
    let (one, other) = (first.port, second.port);
    let (directory, program) = (directory.display(), program.display());
    let (user, password) = ADMINISTRATOR;
    Ok(format!(
        "Two servers are running in {directory}:
  first    port {one}  process {first_id}  {}
  second   port {other}  process {second_id}  {}

SQL, with psql or any PostgreSQL driver (user {user}):
  export PGPASSWORD={password}
  psql -h 127.0.0.1 -p {one} -U {user} hotstandby
  psql -h 127.0.0.1 -p {other} -U {user} hotstandby        # reads only, while it is the secondary
  psql 'host=127.0.0.1,127.0.0.1 port={one},{other} user={user} dbname=hotstandby target_session_attrs=read-write'

State and other admin commands, from any of these sessions:
  ADMIN COMMAND 'hsb state';
  ADMIN COMMAND 'hsb status';
  ADMIN COMMAND 'help';
or from the shell:
  {}
or by the console, a plain text protocol on the same ports: one line 'login {user} {password}', then a command per line:
  nc 127.0.0.1 {one}

A failover by hand: kill the primary, promote the secondary, bring the old one back as the secondary.
  kill -9 {first_id}
  {}
  {program} -c {directory}/first &
  {}

The roles exchanged back, in order:
  {}

Stop both, the secondary first:
  {}
  {}
Start them again (each comes up as a secondary; then 'hsb switch primary' and 'hsb connect' at one of them; the one that is behind refuses):
  {program} -c {directory}/first &
  {program} -c {directory}/second &",
        first.expect("hsb state")?,
        second.expect("hsb state")?,
        console(first, "hsb status"),
        console(second, "hsb set primary alone"),
        console(second, "hsb connect"),
        console(first, "hsb switch primary"),
        console(second, "shutdown"),
        console(first, "shutdown"),
    ))
}

/// A command for the shell that gives an admin command.
fn console(server: &Server, command: &str) -> String {
    let (user, _) = ADMINISTRATOR;
    format!("psql -h 127.0.0.1 -p {} -U {user} hotstandby -c \"ADMIN COMMAND '{command}'\"", server.port)
}

/// The error for a directory that holds a pair already.
pub fn already_there(directory: &Path) -> ServerError {
    let ports: Vec<String> = ["first", "second"]
        .iter()
        .filter_map(|name| {
            Parameters::load(&directory.join(name))
                .ok()
                .map(|(found, _)| format!("{name}: port {}", found.listen().port))
        })
        .collect();
    let ports = if ports.is_empty() { String::new() } else { format!(" ({})", ports.join(", ")) };
    let shown = directory.display();
    failed(format!(
        "{shown} holds a pair already{ports}. If it runs, use it as it is. To start it again: solid -c {shown}/first and \
         solid -c {shown}/second, then 'hsb switch primary' and 'hsb connect' at one of them; the one that is behind refuses. For a new pair, name \
         another directory or remove this one."
    ))
}
