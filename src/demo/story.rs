//! The course of `solid demo`, step by step.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::check::{self, Finding};
use super::failed;
use super::load::Load;
use super::pair::{PATIENCE, Pair};
use super::screen::{Screen, milliseconds};
use crate::command_line::DemoOptions;
use crate::error::ServerError;
use crate::random;

/// How long the load runs where nothing but a glance at it is wanted.
const GLANCE: Duration = Duration::from_secs(1);
/// The crash comes at a random moment within this time.
const CRASH_WINDOW_MS: u16 = 500;

/// Runs it all; the timeline is printed in any case.
pub fn run(
    program: &Path,
    directory: &Path,
    options: &DemoOptions,
    interrupted: &AtomicBool,
) -> Result<(), ServerError> {
    let mut screen = Screen::new();
    let outcome = Pair::prepare(program, directory, "")
        .and_then(|pair| Story { pair, screen: &mut screen, options, interrupted }.tell());
    screen.print_timeline();
    let verdict = outcome?;
    screen.say(&format!("\n{verdict}"));
    Ok(())
}

struct Story<'a> {
    /// The first of it is the primary, whichever that is at the time.
    pair: Pair,
    screen: &'a mut Screen,
    options: &'a DemoOptions,
    interrupted: &'a AtomicBool,
}

impl Story<'_> {
    fn tell(mut self) -> Result<String, ServerError> {
        self.set_up()?;
        let load = Load::start(self.options.clients, [self.pair.first.port, self.pair.second.port])?;
        let outcome = self.under(&load);
        if outcome.is_err() {
            // No client is left waiting for an answer then.
            self.pair.first.kill();
            self.pair.second.kill();
        }
        drop(load);
        if outcome.is_ok() {
            self.step("shut both servers down", |pair| pair.second.stop().and_then(|()| pair.first.stop()))?;
        }
        outcome
    }

    fn under(&mut self, load: &Load) -> Result<String, ServerError> {
        let seconds = Duration::from_secs(self.options.seconds.into());
        self.watch(load, "load", seconds)?;
        self.crash_and_fail_over(load)?;
        self.watch(load, "load at the new primary", seconds)?;
        self.check(load, "every acknowledged row is at the new primary, none that was rolled back", false)?;
        self.bring_back()?;
        self.watch(load, "load, connected again", GLANCE)?;
        self.check(load, "both servers hold the same rows after catchup", true)?;
        self.switch(load)?;
        self.watch(load, "load after the switch", seconds)?;
        let finding = self.check(load, "both servers hold the same rows at the end", true)?;
        let account = load.account();
        Ok(format!(
            "0 acknowledged rows lost ({} acknowledged; {} reported as rolled back, none of them there; {} cut off by the crash \
             with unknown outcome, {} of them there).",
            account.acknowledged.len(),
            account.rolled_back.len(),
            account.unknown.len(),
            finding.unknown_there,
        ))
    }

    fn step<T>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Pair) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        self.check_interrupted()?;
        self.screen.begin(what);
        let start = Instant::now();
        match work(&mut self.pair) {
            Ok(value) => {
                self.screen.note(what, Some(start.elapsed()));
                Ok(value)
            }
            Err(error) => {
                self.screen.note(format!("{what}: FAILED"), Some(start.elapsed()));
                Err(error)
            }
        }
    }

    fn check_interrupted(&self) -> Result<(), ServerError> {
        if self.interrupted.load(Ordering::Relaxed) {
            Err(failed("The demo was interrupted."))
        } else {
            Ok(())
        }
    }

    fn set_up(&mut self) -> Result<(), ServerError> {
        self.step("start two servers, the second one waiting for a copy", |pair| {
            pair.start_servers()?;
            let mut sql = pair.first.sql().map_err(|error| failed(format!("(SQL: {error})")))?;
            sql.batch_execute(check::TABLE).map_err(|error| failed(format!("(SQL: {error})")))
        })?;
        self.step("netcopy: copy the database to the second", |pair| pair.copy())?;
        self.step("connect: PRIMARY ACTIVE and SECONDARY ACTIVE", |pair| pair.connect())
    }

    /// Lets the load run and shows its counter.
    fn watch(&mut self, load: &Load, what: &str, time: Duration) -> Result<(), ServerError> {
        self.screen.begin(what);
        let (start, before) = (Instant::now(), load.acknowledged());
        let mut rate = 0.0;
        while start.elapsed() < time {
            self.check_interrupted()?;
            std::thread::sleep(Duration::from_millis(20).min(time));
            let all = load.acknowledged();
            // Rows of one run: far below where this would be inexact.
            rate = (all - before) as f64 / start.elapsed().as_secs_f64();
            self.screen.progress(&format!(
                "{what}: {all} rows acknowledged, {rate:.0}/s with {} clients",
                self.options.clients
            ));
        }
        if load.acknowledged() == before {
            return Err(failed(format!(
                "Nothing was acknowledged during '{what}'. Last error: {}",
                load.account().last_error
            )));
        }
        let clients = self.options.clients;
        self.screen.note(
            format!("{what}: {} rows, {rate:.0}/s with {clients} clients", load.acknowledged() - before),
            None,
        );
        Ok(())
    }

    fn crash_and_fail_over(&mut self, load: &Load) -> Result<(), ServerError> {
        let moment = u64::from(u16::from_le_bytes(random::bytes()?) % CRASH_WINDOW_MS);
        std::thread::sleep(Duration::from_millis(moment));
        self.screen.begin("kill -9 the primary, promote the secondary");
        let mut console = self.pair.second.console()?;
        load.measure(self.pair.second.port);
        let crash = Instant::now();
        self.pair.first.kill();
        self.screen.note("kill -9 of the primary under load", Some(crash.elapsed()));
        match console.ask("hsb set primary alone")? {
            (0, _) => self.screen.note(
                "since the kill: the secondary is promoted (hsb set primary alone)",
                Some(crash.elapsed()),
            ),
            (code, text) => return Err(failed(format!("'hsb set primary alone': {code} {text}"))),
        }
        let first = wait_for("a write at the new primary", self.interrupted, || load.first_success())?;
        let note = "since the kill: first acknowledged write at the new primary";
        self.screen.note(note, Some(first.saturating_duration_since(crash)));
        self.screen.note("longest time without an acknowledged write", Some(load.longest_gap()));
        self.pair.swap();
        Ok(())
    }

    fn bring_back(&mut self) -> Result<(), ServerError> {
        self.step("start the killed server again: a secondary", |pair| pair.second.start(&[]))?;
        self.step("hsb connect: catchup under load, until both are active", |pair| pair.connect())
    }

    fn switch(&mut self, load: &Load) -> Result<(), ServerError> {
        // The clients have just been paused; the gap is not to be counted from before that.
        load.measure(self.pair.first.port);
        wait_for("a write before the switch", self.interrupted, || load.first_success())?;
        load.measure(self.pair.second.port);
        let start = Instant::now();
        self.step("switch the roles back under load (hsb switch primary)", |pair| pair.switch())?;
        let first = wait_for("a write after the switch", self.interrupted, || load.first_success())?;
        let note = "since the switch command: first acknowledged write at the first server";
        self.screen.note(note, Some(first.saturating_duration_since(start)));
        self.screen.note("longest time without an acknowledged write", Some(load.longest_gap()));
        self.pair.swap();
        Ok(())
    }

    /// Stops the clients for a moment and compares.
    fn check(&mut self, load: &Load, what: &str, both: bool) -> Result<Finding, ServerError> {
        let _paused = load.pause();
        let account = load.account();
        self.step(&format!("check: {what}"), |pair| {
            let finding = Finding::at(&pair.first, &account)?;
            finding.verdict(&pair.first)?;
            if both {
                check::same_content(pair)?;
                Finding::at(&pair.second, &account)?.verdict(&pair.second)?;
            }
            Ok(finding)
        })
    }
}

fn wait_for<T>(
    what: &str,
    interrupted: &AtomicBool,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, ServerError> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE || interrupted.load(Ordering::Relaxed) {
            return Err(failed(format!("Waited {:.0} ms for {what}.", milliseconds(start.elapsed()))));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
