//! When two hearts count as the same: for the model check, which visits each situation once.
//!
//! The numbers of timers and drains only have to differ from earlier ones, so they do not count.

use std::hash::{Hash, Hasher};

use super::heart::Heart;

impl Hash for Heart {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Every field is named, so that a new one cannot be forgotten.
        let Heart {
            state,
            phase,
            link,
            settings,
            configured,
            database_id,
            decided,
            log_end,
            in_flight,
            held,
            pending,
            acknowledged,
            backlog,
            backlog_bytes,
            connect_status,
            connect_failure,
            remedy,
            switch_status,
            copy_status,
            shutting_down,
            shutdown,
            damaged,
            given_up,
            lacking,
            retention,
            next_number: _,
            timer: _,
            ticket: _,
            table: _,
            effects: _,
        } = self;
        (state, phase, link, settings, configured, database_id, decided, log_end).hash(hasher);
        (in_flight, held, pending, acknowledged, backlog, backlog_bytes).hash(hasher);
        connect_failure.as_ref().map(|refusal| refusal.code).hash(hasher);
        (
            connect_status,
            remedy,
            switch_status,
            copy_status,
            shutting_down,
            shutdown,
            damaged,
            given_up,
            lacking,
            retention,
        )
            .hash(hasher);
    }
}
