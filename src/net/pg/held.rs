//! What a session holds in memory between its statements: prepared statements, portals, SQLite's cache. Bounded here.

use std::sync::Arc;

use rusqlite::types::Value;

use super::connection::Client;
use super::extended::{Portal, PortalState};
use crate::error::ServerError;
use crate::sql::execute::Prepared;
use crate::storage::{limits, memory};

/// A statement that takes less is not counted: there are only so many.
const SMALL_BYTES: usize = 4096;

fn too_much(what: &str, advice: &str) -> ServerError {
    let limit = limits::message_bytes() >> 20;
    ServerError::sql(
        "54000",
        format!("the {what} of a session may hold {limit} MB; {advice}, or raise General.MaxStatementMemory"),
    )
}

fn prepared_bytes(prepared: &Prepared) -> usize {
    let columns: usize = prepared.metadata.columns.iter().map(|column| 2 * column.name.len() + 96).sum();
    prepared.statement.sql.len() + columns + 16 * prepared.metadata.parameter_places.len()
}

fn value_bytes(values: &[Value]) -> usize {
    let length = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => 0,
    };
    values.iter().map(|value| length(value) + size_of::<Value>()).sum()
}

fn portal_bytes(portal: &Portal<'_>) -> usize {
    let rows = match &portal.state {
        PortalState::Running { ready: rows, .. } | PortalState::Buffered { rows, .. } => rows.capacity(),
        PortalState::Bound | PortalState::Finished => 0,
    };
    value_bytes(&portal.parameters) + rows
}

impl Client<'_> {
    /// Refuses a prepared statement that is one too many.
    pub(super) fn check_statements(&self, prepared: &Arc<Prepared>) -> Result<(), ServerError> {
        let bytes = prepared_bytes(prepared);
        if bytes < SMALL_BYTES {
            return Ok(());
        }
        let held: usize = self.statements.values().map(|prepared| prepared_bytes(prepared)).sum();
        if held + bytes <= limits::message_bytes() {
            return Ok(());
        }
        Err(too_much("prepared statements", "close some"))
    }

    /// Refuses a portal that is one too many; the one of this name is replaced.
    pub(super) fn check_portals(&self, name: &str, parameters: &[Value]) -> Result<(), ServerError> {
        let others = self.portals.iter().filter(|(other, _)| other.as_str() != name);
        let held: usize = others.map(|(_, portal)| portal_bytes(portal)).sum();
        if held == 0 || held + value_bytes(parameters) <= limits::message_bytes() {
            return Ok(());
        }
        Err(too_much("portals", "close some"))
    }

    /// At rest: statements that SQLite keeps for the next time are given up when they have become many.
    pub(super) fn give_memory_back(&mut self) {
        if self.portals.is_empty() && memory::used_bytes() > memory::FREE_BYTES {
            self.give_all_memory_back();
        }
    }

    /// At the end.
    pub(super) fn give_all_memory_back(&mut self) {
        self.session.reader.flush_prepared_statement_cache();
        memory::forget();
    }
}
