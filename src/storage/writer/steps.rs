//! The writer without waiting: what a session's thread does in one go, cut where it would wait. For the simulation,
//! which has one thread for everybody.

use std::sync::Arc;

use super::queue::Waiter;
use super::{Group, WriteRequest, WriteTransaction, Writer, WriterRequest};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::effect::Decision;

/// A transaction that has been offered to the writer.
#[derive(Clone)]
pub struct Offered(Arc<Waiter>);

impl Offered {
    /// Whether it is its turn to lead a batch: [`Writer::lead_offered`].
    pub fn leads(&self) -> bool {
        self.0.leads()
    }

    /// The outcome, once.
    pub fn take_outcome(&self) -> Option<Result<(), ServerError>> {
        self.0.is_done().then(|| self.0.take_outcome())
    }
}

/// A batch that was handed over and awaits its decision. SQLite's transaction is open meanwhile.
pub struct Undecided(Group);

impl Writer {
    /// Enters a transaction as [`Writer::autocommit`] does. An error if writers are refused.
    pub fn offer(
        &self,
        request: WriteRequest,
        job: impl FnOnce(&mut WriteTransaction<'_>) -> Result<(), ServerError> + Send + 'static,
    ) -> Result<Offered, ServerError> {
        let waiter = Arc::new(Waiter::with_job(request, Box::new(job)));
        if self.queue.arrive(&waiter)? {
            waiter.lead();
        }
        Ok(Offered(waiter))
    }

    /// Its time to wait for the writer is over: the error for its client, or none if it has been taken up.
    pub fn withdraw_offered(&self, offered: &Offered) -> Option<ServerError> {
        self.queue.withdraw(&offered.0).then(|| self.queue.lock_timeout_error())
    }

    /// Makes the batch that `offered` leads and hands it over. None: there is nothing to decide, all are answered.
    pub fn lead_offered(&self, offered: &Offered) -> Option<Undecided> {
        let mut core = self.lock_core();
        let gathered = match core.as_mut() {
            None => Err(ServerError::new(Code::SERVER_CLOSED)),
            Some(core) => self.gather(core, vec![Arc::clone(&offered.0)], true).map(|group| {
                let submitted = self.seal_and_submit(core, &group);
                (group, submitted)
            }),
        };
        drop(core);
        match gathered {
            Ok((group, Ok(true))) => return Some(Undecided(group)),
            Ok((group, submitted)) => group.finish(&submitted.map(|_| ())),
            Err(error) => offered.0.finish(Err(error)),
        }
        self.queue.pass_on();
        None
    }

    /// The patience of the batch's clients is over: it is taken back if nobody else has it yet.
    pub fn withdraw_undecided(&self) {
        (self.submit)(WriterRequest::Withdraw);
    }

    /// Makes the decision true, answers all, and lets the next one lead.
    pub fn conclude_undecided(&self, Undecided(group): Undecided, decision: Decision) {
        let mut core = self.lock_core();
        let outcome = match core.as_mut() {
            None => Err(ServerError::new(Code::SERVER_CLOSED)),
            Some(core) => self.conclude(core, decision),
        };
        drop(core);
        group.finish(&outcome);
        self.queue.pass_on();
    }
}
