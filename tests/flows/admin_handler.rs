//! The admin handler: what is answered at once, by a thread of its own, by the heart, by both, and what is refused.

use std::thread::ThreadId;

use actix::prelude::*;
use crossbeam_channel::{Receiver, bounded};
use hotstandby::actors::admin_handler::{AdminCommand, AdminHandler, Answering, Commands, Task};
use hotstandby::error::ServerError;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::event::Command;
use hotstandby::services::context::{Answer, Rights};

use crate::probes::{Record, Told};

/// One command of each kind; each says on which thread it was carried out.
struct Few;

fn here() -> Answer {
    vec![(0, format!("{:?}", std::thread::current().id()))]
}

impl Commands for Few {
    fn understand(&self, text: &str, rights: Rights) -> Result<Task, ServerError> {
        let by = match text {
            "at once" => Answering::AtOnce(Box::new(here)),
            "work" => Answering::Thread(Box::new(here)),
            "switch" => Answering::Heart(Command::SwitchPrimary),
            "connect" => {
                Answering::HeartThenThread(Command::Connect, Box::new(|begun| [begun, here()].concat()))
            }
            "shutdown" if rights < Rights::Administrator => {
                return Err(ServerError::sql("42501", "'shutdown' needs SYS_ADMIN_ROLE."));
            }
            _ => return Err(ServerError::new(Code::INVALID_ARGUMENT)),
        };
        Ok(Task { is_logged: false, by })
    }
}

struct Stage {
    record: Record,
    handler: Addr<AdminHandler>,
}

impl Stage {
    fn new() -> Stage {
        let record = Record::default();
        let supervisor = record.probe().recipient();
        let handler = AdminHandler { commands: Box::new(Few), supervisor }.start();
        Stage { record, handler }
    }

    async fn give(&self, text: &str, rights: Rights) -> Receiver<Answer> {
        let (reply, answer) = bounded(1);
        let command = AdminCommand { user: "dba".into(), rights, text: text.into(), reply };
        self.handler.send(command).await.unwrap();
        answer
    }

    /// The answer of another thread or actor.
    async fn answer(&self, text: &str) -> Answer {
        let answer = self.give(text, Rights::Console).await;
        loop {
            if let Ok(answer) = answer.try_recv() {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn is(thread: ThreadId, row: &(u32, String)) -> bool {
    row.1 == format!("{thread:?}")
}

#[actix::test]
async fn what_takes_no_time_is_answered_by_the_handler_itself() {
    let stage = Stage::new();
    let answer = stage.give("at once", Rights::Console).await.try_recv().unwrap();
    assert!(is(std::thread::current().id(), &answer[0]), "{answer:?}");
    assert_eq!(stage.record.take().await, []);
}

#[actix::test]
async fn what_takes_time_is_answered_by_a_thread_of_its_own() {
    let stage = Stage::new();
    let answer = stage.answer("work").await;
    assert!(!is(std::thread::current().id(), &answer[0]), "{answer:?}");
    assert_eq!(stage.record.take().await, []);
}

#[actix::test]
async fn what_the_heart_decides_is_asked_of_the_supervisor_who_answers() {
    let stage = Stage::new();
    assert_eq!(stage.answer("switch").await, [(0, "SwitchPrimary".to_owned())]);
    assert_eq!(stage.record.take().await, [Told::Operator(Command::SwitchPrimary)]);
}

#[actix::test]
async fn what_the_heart_has_begun_is_waited_for_by_a_thread_of_its_own() {
    let stage = Stage::new();
    let answer = stage.answer("connect").await;
    assert_eq!(answer[0], (0, "Connect".to_owned()));
    assert!(!is(std::thread::current().id(), &answer[1]), "{answer:?}");
    assert_eq!(stage.record.take().await, [Told::Operator(Command::Connect)]);
}

#[actix::test]
async fn who_lacks_the_right_is_refused_and_nobody_else_hears_of_it() {
    let stage = Stage::new();
    let refused = stage.give("shutdown", Rights::Console).await.try_recv().unwrap();
    assert_eq!(refused, [(Code::OPERATION_FAILED.number(), "'shutdown' needs SYS_ADMIN_ROLE.".to_owned())]);
    let unknown = stage.give("nonsense", Rights::Administrator).await.try_recv().unwrap();
    assert_eq!(unknown[0].0, Code::INVALID_ARGUMENT.number());
    assert_eq!(stage.record.take().await, []);
}
