//! Clients that write: what they offer to a node's writer, and what they learn.

use std::time::Duration;

use hotstandby::error::ServerError;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::settings::AcknowledgePolicy;
use hotstandby::hsb::state::State;
use hotstandby::services::registry::last_word;
use hotstandby::storage::writer::{Offered, WriteRequest, WriteTransaction};

use crate::causes::{Cause, Told};
use crate::common::Random;
use crate::oracle::{Outcome, Transaction};
use crate::world::{Event, World};

/// One client; it waits for one transaction at most.
#[derive(Default)]
pub struct Client {
    pub waits: Option<Waiting>,
}

/// What it waits for.
pub struct Waiting {
    pub transaction: i64,
    pub node: usize,
    pub incarnation: u32,
    offered: Offered,
    /// What has come between.
    pub cause: Option<Cause>,
    /// Its session is to end with this.
    pub closing: Option<Code>,
}

impl World {
    pub fn client_acts(&mut self, client: usize) -> Result<(), String> {
        if self.clients[client].waits.is_some() {
            return Ok(());
        }
        if self.healing && self.random.below(3) > 0 {
            self.between(100, 400, Event::Client(client));
            return Ok(());
        }
        self.between(10, 120, Event::Client(client));
        let Some(node) = self.choose_node() else { return Ok(()) };
        let (safeness, durability) = self.plan.wish(&mut self.random);
        let two_safe = self.nodes[node].settings.is_two_safe(safeness, durability);
        let number = self.oracle.begin(Transaction { two_safe, durability, outcome: Outcome::Open });
        let request = WriteRequest {
            session: client as u64 + 1,
            lock_timeout: Duration::from_secs(1),
            safeness,
            durability,
            snapshot: None,
            token: None,
        };
        let job = statements(number, &mut self.random);
        let incarnation = self.incarnation(node);
        let Some(running) = &self.nodes[node].running else { return Ok(()) };
        match running.writer.offer(request, job) {
            Ok(offered) => {
                let transaction = number;
                let (cause, closing) = (None, None);
                self.clients[client].waits =
                    Some(Waiting { transaction, node, incarnation, offered, cause, closing });
                self.between(200, 1500, Event::Patience(client, number));
                self.note(format_args!("client {client} offers {number} to node {node}"));
            }
            Err(error) => {
                self.note(format_args!("node {node} refuses {number}: {error}"));
                self.coverage.told(Cause::of(&error), Told::Failed);
                self.oracle.end(number, Outcome::Failed);
            }
        }
        Ok(())
    }

    /// Mostly a primary.
    fn choose_node(&mut self) -> Option<usize> {
        let first = self.random.below(2) as usize;
        let any = self.random.below(10) == 0;
        [first, 1 - first].into_iter().find(|node| {
            let state = self.nodes[*node].state();
            self.nodes[*node].is_responsive() && (any || state.is_some_and(State::is_primary))
        })
    }

    pub fn patience_ends(&mut self, client: usize, transaction: i64) {
        let Some(waiting) = self.clients[client].waits.take_if(|waiting| waiting.transaction == transaction)
        else {
            return;
        };
        let Some(running) = &self.nodes[waiting.node].running else { return };
        match running.writer.withdraw_offered(&waiting.offered) {
            Some(error) => {
                self.note(format_args!("{transaction} waited in vain: {error}"));
                self.coverage.told(waiting.cause.or(Cause::of(&error)), Told::Failed);
                self.oracle.end(transaction, Outcome::Failed);
                self.between(10, 100, Event::Client(client));
            }
            None => {
                if running.undecided.is_some() {
                    running.writer.withdraw_undecided();
                }
                self.clients[client].waits = Some(waiting);
            }
        }
    }

    /// Lets the first in each queue lead, and tells clients their outcomes.
    pub fn serve_clients(&mut self) -> Result<(), String> {
        for client in 0..self.clients.len() {
            let Some(waiting) = &self.clients[client].waits else { continue };
            let node = waiting.node;
            if !self.nodes[node].is_responsive() || waiting.incarnation != self.incarnation(node) {
                continue;
            }
            let offered = waiting.offered.clone();
            if offered.leads()
                && let Some(running) = &mut self.nodes[node].running
                && running.undecided.is_none()
                && !running.apply_holds_lock
            {
                running.undecided = running.writer.lead_offered(&offered);
            }
            if let Some(outcome) = offered.take_outcome()
                && let Some(waiting) = self.clients[client].waits.take()
            {
                self.learn(&waiting, outcome)?;
                self.between(1, 60, Event::Client(client));
            }
        }
        Ok(())
    }

    fn learn(&mut self, waiting: &Waiting, outcome: Result<(), ServerError>) -> Result<(), String> {
        let (node, transaction) = (waiting.node, waiting.transaction);
        let outcome = match waiting.closing {
            Some(code) => outcome.map_err(|error| last_word(error, &ServerError::new(code))),
            None => outcome,
        };
        let cause = waiting.cause.or(outcome.as_ref().err().and_then(Cause::of));
        self.note(format_args!(
            "{transaction} at node {node}: {:?}",
            outcome.as_ref().map_err(|error| &error.sqlstate)
        ));
        match outcome {
            Ok(()) => {
                self.coverage.told(cause, Told::Committed);
                self.acknowledged(node, transaction)
            }
            Err(error) if error.is_in_doubt() => {
                self.coverage.told(cause, Told::Unknown);
                self.oracle.end(transaction, Outcome::Unknown);
                Ok(())
            }
            Err(_) => {
                self.coverage.told(cause, Told::Failed);
                self.oracle.end(transaction, Outcome::Failed);
                // Nobody may have seen it either.
                let seen = (0..2).find(|node| self.oracle.seen[*node].contains(&transaction));
                seen.map_or(Ok(()), |node| Err(format!("{transaction} has failed but node {node} shows it")))
            }
        }
    }

    /// A commit was answered: was everything done that it promises?
    fn acknowledged(&mut self, node: usize, transaction: i64) -> Result<(), String> {
        self.read(node)?;
        let Some(at) = self.oracle.seen[node].iter().position(|seen| *seen == transaction) else {
            return Err(format!("{transaction} was answered and node {node} does not show it"));
        };
        let Some(view) = self.nodes[node].view() else { return Ok(()) };
        let at = (view.hello.position.epoch, at as u64 + 1);
        self.oracle.end(transaction, Outcome::Acknowledged(at.0, at.1));
        self.coverage.acknowledged += 1;
        let written = self.nodes[node].written();
        if written < at {
            return Err(format!("{transaction} at {at:?} was answered, but the log ends at {written:?}"));
        }
        let known = &self.oracle.transactions[&transaction];
        let Some(state) = self.decided_in[node] else { return Ok(()) };
        if known.two_safe && state == State::PrimaryUncertain {
            return Err(format!("{transaction} is 2-safe and was decided in PRIMARY UNCERTAIN"));
        }
        let protected = known.two_safe && state == State::PrimaryActive;
        // A 1-safe transaction that shares its batch with a 2-safe one is as safe as that.
        let guarded = state == State::PrimaryActive && (protected || self.network.batches_at[1 - node] >= at);
        let strict = self.nodes[node].settings.is_strict(known.durability, guarded);
        let durable = self.nodes[node].durable().log;
        if strict && durable < at {
            return Err(format!(
                "{transaction} at {at:?} was decided in {state}, but on disk is {durable:?}"
            ));
        }
        if state == State::PrimaryActive {
            self.oracle.answered_active[node] = at;
        } else if durable < self.oracle.answered_active[node] {
            return Err(format!(
                "{transaction} at {at:?} was decided in {state}, what came before is not on disk"
            ));
        }
        if protected {
            return self.check_acknowledgement(node, transaction, at);
        }
        Ok(())
    }

    /// What the secondary must have by the policy in force.
    fn check_acknowledgement(&mut self, node: usize, transaction: i64, at: (u64, u64)) -> Result<(), String> {
        let peer = 1 - node;
        let arrived = self.network.batches_at[peer];
        if arrived < at {
            return Err(format!(
                "{transaction} at {at:?} was answered, but only {arrived:?} has reached the secondary"
            ));
        }
        self.read(peer)?;
        let shown = self.oracle.shown[peer];
        if self.plan.policy != AcknowledgePolicy::Received && shown < at.1 as usize {
            return Err(format!(
                "{transaction} at {at:?} was answered, but the secondary has only shown {shown}"
            ));
        }
        let durable = self.oracle.on_disk[peer];
        if self.plan.policy == AcknowledgePolicy::Durable && durable < at {
            return Err(format!(
                "{transaction} at {at:?} was answered, but on the secondary's disk is {durable:?}"
            ));
        }
        Ok(())
    }

    /// The process is gone: its clients will never know.
    pub fn lose_clients(&mut self, node: usize, cause: Cause) {
        for client in 0..self.clients.len() {
            if let Some(waiting) = self.clients[client].waits.take_if(|waiting| waiting.node == node) {
                self.coverage.told(Some(waiting.cause.unwrap_or(cause)), Told::Unknown);
                self.oracle.end(waiting.transaction, Outcome::Unknown);
                self.between(20, 200, Event::Client(client));
            }
        }
    }

    pub fn waiting_clients(&self) -> usize {
        self.clients.iter().filter(|client| client.waits.is_some()).count()
    }
}

/// What a transaction does: its own row, and something that depends on what was there before.
fn statements(
    number: i64,
    random: &mut Random,
) -> impl FnOnce(&mut WriteTransaction<'_>) -> Result<(), ServerError> + Send + 'static {
    let (kind, key) = (random.below(40), random.below(5) as i64);
    move |transaction| {
        let execute = |sql: &str, values: &[i64]| -> Result<(), ServerError> {
            let mut statement = transaction.connection().prepare_cached(sql)?;
            statement.execute(rusqlite::params_from_iter(values))?;
            Ok(())
        };
        execute("INSERT INTO journal(id) VALUES (?)", &[number])?;
        match kind {
            0..10 => execute("UPDATE counters SET n = n + 1 WHERE id = ?", &[key]),
            10..18 => execute("INSERT INTO items(id, of) VALUES (?, ?)", &[number, key]),
            18..25 => execute("DELETE FROM items WHERE id = (SELECT min(id) FROM items)", &[]),
            25..28 => execute("UPDATE items SET of = of + 1 WHERE id % 5 = ?", &[key]),
            28 => {
                transaction.execute_schema(&format!("CREATE TABLE extra{number} (a INTEGER PRIMARY KEY, b)"))
            }
            29 => Err(ServerError::sql("P0001", "this one changes its mind")),
            _ => Ok(()),
        }
    }
}
