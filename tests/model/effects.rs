//! What becomes of a heart's effects in the model.

use hotstandby::hsb::effect::{
    AnswerEffect, ApplierEffect, BatchEffect, CopyKind, Decision, Effect, LogWriterEffect, NodeEffect,
    PingEffect, SenderEffect, WriterEffect,
};
use hotstandby::hsb::event::{Event, Purpose};

use crate::dials::{Dial, Stage};
use crate::network::{Network, Wire};
use crate::node::{Catchup, Entry, InHand, Ticket};

const NETCOPY_REQUEST: u64 = 99;

impl Network {
    pub(super) fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.carry_out_one(at, effect);
        }
    }

    fn carry_out_one(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Batch(effect) => self.carry_out_on_batch(at, effect),
            Effect::Writer(WriterEffect::Decide(decision)) => self.decide(at, decision),
            Effect::Writer(WriterEffect::Admit(admission)) => self.nodes[at].admission = admission,
            Effect::Writer(WriterEffect::BeginHistory { epoch, .. }) => self.nodes[at].epoch = epoch,
            Effect::Sender(effect) => self.carry_out_at_sender(at, effect),
            Effect::Applier(effect) => self.carry_out_at_applier(at, effect),
            Effect::Answer(effect) => self.answer(at, effect),
            Effect::Node(effect) => self.carry_out_at_node(at, effect),
            Effect::StartTimer { timer, .. } => self.nodes[at].timer = Some(Ticket(timer)),
            // The log is synced and kept by steps of its own; silence is a step, too.
            Effect::LogWriter(LogWriterEffect::Flush | LogWriterEffect::RetainFrom(_))
            | Effect::PingMonitor(PingEffect::Start { .. } | PingEffect::Stop)
            | Effect::WriteCopy(CopyKind::Copy | CopyKind::Backup) => {}
        }
    }

    fn carry_out_on_batch(&mut self, at: usize, effect: BatchEffect) {
        let node = &mut self.nodes[at];
        match effect {
            BatchEffect::Log { .. } => {
                let Some(InHand { before, after, marked, .. }) = node.in_hand else { return };
                node.append(Entry { before, after, marked });
                self.send_old_batches(at);
                self.hear(at, Event::Logged { position: after, durable: false });
            }
            BatchEffect::Send => {
                if let (Some(entry), Some(link)) = (node.log.last().copied(), node.heart.link()) {
                    self.send(at, link, Wire::Batch(entry));
                }
            }
            BatchEffect::Hold => {
                if let Some(in_hand) = &mut node.in_hand {
                    in_hand.held = true;
                }
            }
            BatchEffect::Release => self.submit(at),
            BatchEffect::KeepPending => node.pending = node.log.last().copied(),
        }
    }

    fn carry_out_at_sender(&mut self, at: usize, effect: SenderEffect) {
        let node = &mut self.nodes[at];
        match effect {
            SenderEffect::Tell(message) => {
                if let Some(link) = node.heart.link() {
                    self.send(at, link, Wire::Message(message));
                }
            }
            SenderEffect::Close { farewell } => self.close(at, farewell),
            SenderEffect::CheckHistory(position) => {
                node.checking = node.heart.link().map(|link| (link, position));
                node.catchup = node.heart.link().map(|link| Catchup {
                    link,
                    sent: position,
                    begun: false,
                    end_reported: false,
                });
            }
            SenderEffect::StartCatchup => {
                if let Some(catchup) = &mut node.catchup {
                    catchup.begun = true;
                }
            }
            SenderEffect::StopCatchup => node.catchup = None,
        }
    }

    fn carry_out_at_applier(&mut self, at: usize, effect: ApplierEffect) {
        let node = &mut self.nodes[at];
        match effect {
            ApplierEffect::Follow { link, position, .. } => {
                node.following = Some(link);
                node.received = position;
            }
            // The model knows one policy.
            ApplierEffect::AcknowledgeBy(_) => {}
            ApplierEffect::Drain { ticket, with_pending } => {
                if with_pending {
                    node.following = None;
                }
                node.draining = Some((Ticket(ticket), with_pending));
            }
            ApplierEffect::DropPending { position } => {
                if node.pending.take().is_some() {
                    node.truncate_after(position);
                }
            }
            ApplierEffect::ForgetPending => node.pending = None,
        }
    }

    fn answer(&mut self, at: usize, effect: AnswerEffect) {
        match effect {
            AnswerEffect::Reply { request, code, .. } => {
                let node = &mut self.nodes[at];
                if node.asked == Some(request) {
                    node.asked = None;
                    node.answered = Some(code);
                }
            }
            AnswerEffect::Welcome { link, hello } => self.answer_dial(link, Ok((Some(link), hello))),
            AnswerEffect::TurnAway { link, refusal } => self.answer_dial(link, Err(refusal.code)),
            AnswerEffect::AdmitCopy { hello } => self.answer_dial(0, Ok((None, hello))),
            AnswerEffect::RefuseCopy(refusal) => self.answer_dial(0, Err(refusal.code)),
        }
    }

    fn carry_out_at_node(&mut self, at: usize, effect: NodeEffect) {
        match effect {
            NodeEffect::Dial { request, purpose, hello } => {
                self.dials.push(Dial { from: at, request, purpose, hello, stage: Stage::Calling });
            }
            NodeEffect::SendCopy { hello } => self.dials.push(Dial {
                from: at,
                request: NETCOPY_REQUEST,
                purpose: Purpose::Netcopy,
                hello,
                stage: Stage::Calling,
            }),
            NodeEffect::Stop { .. } => self.record.violated("a heart contradicts itself"),
            // Seen by onlookers only; the model knows neither sessions nor rewinds.
            NodeEffect::Entered(_)
            | NodeEffect::ConnectStatus(_)
            | NodeEffect::Note { .. }
            | NodeEffect::Alert { .. }
            | NodeEffect::Rewind
            | NodeEffect::CloseSessions(_) => {}
        }
    }

    fn decide(&mut self, at: usize, decision: Decision) {
        let node = &mut self.nodes[at];
        let Some(in_hand) = node.in_hand.take() else { return };
        if let Decision::Commit | Decision::CommitAlone = decision {
            self.record.committed(node, &in_hand, decision);
            node.database = in_hand.after;
            if decision == Decision::CommitAlone {
                node.synced = in_hand.after;
            }
        }
    }
}
