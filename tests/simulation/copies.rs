//! Netcopy: asked for, admitted, and done in one moment. The image is what the product sends, page for page; the network
//! in between is not simulated.

use std::path::Path;

use crossbeam_channel::{Receiver, bounded, unbounded};
use hotstandby::actors::replication_sender::SenderMessage;
use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::actors::threads::{apply::ApplyJob, log::LogJob};
use hotstandby::error::ServerError;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::event::Hello;
use hotstandby::hsb::position::{DatabasePosition, Position};
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::state::State;
use hotstandby::storage::apply::Applier;
use hotstandby::storage::database::read_identity;
use hotstandby::storage::log::{self, LogWriter};
use rusqlite::Connection;

use crate::crashes::{Damage, End};
use crate::disk;
use crate::node::Running;
use crate::world::{Event, World};

/// A copy that waits for the target's consent.
pub struct Copy {
    source: usize,
    incarnations: [u32; 2],
    consent: Receiver<Result<Hello, Refusal>>,
}

impl World {
    /// The source's supervisor wants its database copied.
    pub fn begin_copy(&mut self, source: usize, hello: Hello) {
        let incarnations = [self.incarnation(0), self.incarnation(1)];
        let Some(target) = self.nodes[1 - source].running.as_ref().filter(|target| !target.paused) else {
            return self.end_copy(source, Err(Code::COMMUNICATION_ERROR.into()));
        };
        if !self.network.is_passable() {
            return self.end_copy(source, Err(Code::COMMUNICATION_ERROR.into()));
        }
        let (reply, consent) = bounded(1);
        let common = self.in_common(source, target);
        target.addresses.supervisor.do_send(SupervisorMessage::CopyArrives { hello, common, reply });
        self.copies.push(Copy { source, incarnations, consent });
        self.after(20, Event::Copy);
    }

    /// What source and target find out about their histories.
    fn in_common(&self, source: usize, target: &Running) -> Option<Position> {
        let theirs = target.desk.borrow().view?.hello;
        let from = self.nodes[source].running.as_ref()?;
        let view = from.desk.borrow().view?;
        if theirs.state == State::Offline || theirs.database_id != view.hello.database_id {
            return None;
        }
        let logs = [source, 1 - source].map(|node| self.nodes[node].log_configuration(theirs.database_id));
        let [mut told, mut heard] = logs.each_ref().map(|log| log::turning_points(log).unwrap_or_default());
        let acknowledged = Some(view.acknowledged)
            .filter(|acknowledged| (1..=view.hello.position.sequence).contains(&acknowledged.sequence));
        told.extend(acknowledged);
        heard.push(theirs.position);
        let found = |log, points: &[Position]| log::newest_on_history(log, points).ok().flatten();
        let acknowledged = acknowledged.filter(|position| heard.contains(position));
        let both = [found(&logs[0], &heard), found(&logs[1], &told), acknowledged];
        both.into_iter().flatten().max_by_key(|position| position.sequence)
    }

    /// A node that did not start as a backup server has its database replaced by none that lacks something it showed.
    fn check_consent(&mut self, source: usize) -> Result<(), String> {
        let target = 1 - source;
        if self.nodes[target].state() == Some(State::Offline) {
            return Ok(());
        }
        for node in [source, target] {
            if let Some(running) = &self.nodes[node].running
                && let Some(reader) = &running.reader
            {
                self.oracle.read(node, reader)?;
            }
        }
        let [kept, lost] = [source, target].map(|node| &self.oracle.seen[node]);
        match lost.iter().enumerate().find(|(place, id)| kept.get(*place) != Some(id)) {
            Some((place, id)) => Err(format!(
                "a netcopy replaces node {target} without consent: transaction {id} at {} is lost",
                place + 1
            )),
            None => Ok(()),
        }
    }

    /// Looks for consent, and copies where there is.
    pub fn copy(&mut self) -> Result<(), String> {
        for copy in std::mem::take(&mut self.copies) {
            let lives = |node: usize| copy.incarnations[node] == self.incarnation(node);
            let (source, target) = (copy.source, 1 - copy.source);
            // Its apply thread closes the database once what it has executed is in the log.
            let waits = self.nodes[target].running.as_ref().is_some_and(|running| running.apply_holds_lock);
            if waits && lives(target) {
                self.copies.push(copy);
                self.after(20, Event::Copy);
                continue;
            }
            match copy.consent.try_recv() {
                Ok(Ok(_)) if lives(source) && lives(target) => {
                    self.check_consent(source)?;
                    match self.swap(source) {
                        Ok(()) => self.end_copy(source, Ok(())),
                        // Its database is in place and has no log: the next start begins one.
                        Err(_) if self.nodes[target].replace_bad_disk() => {
                            self.kill(target, End::Kill)?;
                            self.end_copy(source, Err(Code::COMMUNICATION_ERROR.into()));
                        }
                        Err(error) => return Err(format!("netcopy: {error}")),
                    }
                }
                Ok(Err(failure)) if lives(source) => {
                    if failure.code == Code::NOT_SYNCHRONIZED {
                        self.operator.replace = Some(target);
                    }
                    self.end_copy(source, Err(failure));
                }
                Err(_) if lives(target) => {
                    self.copies.push(copy);
                    self.after(20, Event::Copy);
                }
                _ if lives(target) => self.break_copy(target),
                _ if lives(source) => self.end_copy(source, Err(Code::COMMUNICATION_ERROR.into())),
                _ => {}
            }
        }
        Ok(())
    }

    /// The source is gone.
    fn break_copy(&mut self, target: usize) {
        if let Some(running) = &self.nodes[target].running {
            let (known, _) = unbounded();
            let opened = Err(Code::COMMUNICATION_ERROR.into());
            running.addresses.supervisor.do_send(SupervisorMessage::CopyReceived { opened, known });
        }
    }

    fn end_copy(&mut self, source: usize, result: Result<(), Refusal>) {
        self.note(format_args!("copy from node {source}: {result:?}"));
        if let Some(running) = &self.nodes[source].running {
            running.addresses.supervisor.do_send(SupervisorMessage::NetcopyEnded { result });
        }
    }

    /// Closes the target's database everywhere, puts the image in its place and opens it.
    fn swap(&mut self, source: usize) -> Result<(), ServerError> {
        let target = 1 - source;
        let image = disk::database(&self.nodes[target].directory()).with_extension("arrived");
        let Some(from) = &self.nodes[source].running else { return Ok(()) };
        write_image(&from.database.open_reader()?, &image)?;
        let configuration = self.nodes[target].log_configuration([0; 16]);
        let Some(running) = &mut self.nodes[target].running else { return Ok(()) };
        running.writer.detach();
        running.reader = None;
        let (done, _) = unbounded();
        let closed = || Box::new(|| None);
        // What was queued for the old database is void.
        running.apply_jobs.try_iter().for_each(drop);
        running.log_jobs.try_iter().for_each(drop);
        drop(running.to_apply.send(ApplyJob::Replace(closed(), done.clone())));
        running.apply_thread.step(&running.apply_jobs);
        let close_log = LogJob::Replace(Box::new(|| None), done.clone());
        running.log_thread.step(close_log, &running.log_jobs)?;

        let path = running.database.path().to_path_buf();
        for suffix in ["db-wal", "db-shm"] {
            // There may be none.
            let _ = std::fs::remove_file(path.with_extension(suffix));
        }
        log::remove_all(&configuration)?;
        std::fs::rename(&image, &path).map_err(|error| ServerError::with(Code::OPERATION_FAILED, error))?;
        self.oracle.seen[target].clear();
        self.damage[target] = None;
        self.operator.misfit = self.operator.misfit.filter(|misfit| *misfit != target);
        // Both have the changed rows now.
        self.damage[source] = self.damage[source].filter(|damage| *damage != Damage::Database);

        let applier = Applier::new(running.database.open_for_apply()?)?;
        let opened = read_identity(&running.database.open_reader()?)?;
        let DatabasePosition { database_id, position } = opened;
        let configuration = log::LogConfiguration { database_id, ..configuration };
        let (log, _) = LogWriter::open(configuration.clone(), position)?;
        drop(running.to_apply.send(ApplyJob::Replace(Box::new(|| Some(applier)), done.clone())));
        running.apply_thread.step(&running.apply_jobs);
        running.log_thread.step(LogJob::Replace(Box::new(|| Some(log)), done.clone()), &running.log_jobs)?;
        *running.log_synced.lock().unwrap() = position;
        running.addresses.sender.do_send(SenderMessage::UseLog(configuration));
        running.writer.attach(running.database.open_writer()?)?;
        let reader = running.database.open_reader()?;
        running
            .addresses
            .supervisor
            .do_send(SupervisorMessage::CopyReceived { opened: Ok(opened), known: done });
        running.reader = Some(reader);
        running.wal_synced = (0, 0);
        Ok(())
    }
}

fn write_image(source: &Connection, path: &Path) -> Result<(), ServerError> {
    source.execute_batch("BEGIN")?;
    let mut image = Vec::new();
    let mut statement = source.prepare("SELECT data FROM sqlite_dbpage")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        image.extend_from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
    }
    std::fs::write(path, image).map_err(|error| ServerError::with(Code::OPERATION_FAILED, error))
}
