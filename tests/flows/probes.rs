//! Probes: recipients that write down every message in one common list.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use actix::prelude::*;

/// What was told, in order: `receiver <- message`.
#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<Vec<String>>>);

impl Record {
    pub fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    /// Lets all mailboxes run dry, then takes what was written down.
    pub async fn take(&self) -> Vec<String> {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// A recipient that writes down what it gets in the message's own words.
    pub fn probe<M>(&self, receiver: &'static str) -> Recipient<M>
    where
        M: Message<Result = ()> + Debug + Send + Unpin + 'static,
    {
        self.probe_with(receiver, |message| format!("{message:?}"))
    }

    /// The same, in these words.
    pub fn probe_with<M>(&self, receiver: &'static str, words: fn(&M) -> String) -> Recipient<M>
    where
        M: Message<Result = ()> + Send + Unpin + 'static,
    {
        Probe { record: self.clone(), receiver, words }.start().recipient()
    }
}

struct Probe<M> {
    record: Record,
    receiver: &'static str,
    words: fn(&M) -> String,
}

impl<M: Unpin + 'static> Actor for Probe<M> {
    type Context = Context<Self>;
}

impl<M: Message<Result = ()> + Unpin + 'static> Handler<M> for Probe<M> {
    type Result = ();
    fn handle(&mut self, message: M, _: &mut Context<Self>) {
        self.record.add(format!("{} <- {}", self.receiver, (self.words)(&message)));
    }
}
