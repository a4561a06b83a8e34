//! What each signal does to a server.
//!
//! In order: sessions end, the peer is told, everything is on disk. An end in order that is going on is cut by nothing that
//! sends a signal twice by itself (service managers and container runtimes do); a person who means it presses Ctrl-C again
//! or sends SIGQUIT. Not here: the end itself; which signals there are (`signals`).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::error::ServerError;
use crate::logging;
use crate::signals::{self, Wish};

/// A second SIGINT counts only so long after the first: one key press may arrive twice.
const SECOND_THOUGHT: Duration = Duration::from_secs(2);

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    End,
    EndAtOnce,
    Reopen,
    GoOnEnding,
    Nothing,
}

/// Since when an end in order is going on.
#[derive(Default)]
struct Ending(Option<Instant>);

impl Ending {
    fn decide(&mut self, wish: Wish, now: Instant) -> Act {
        match (wish, self.0) {
            (Wish::EndAtOnce, _) => Act::EndAtOnce,
            (Wish::EndByKey, Some(since)) if now.saturating_duration_since(since) >= SECOND_THOUGHT => {
                Act::EndAtOnce
            }
            (Wish::End | Wish::EndByKey, Some(_)) => Act::GoOnEnding,
            (Wish::End | Wish::EndByKey, None) => {
                self.0 = Some(now);
                Act::End
            }
            (Wish::Reopen, _) => Act::Reopen,
            (Wish::Nothing, _) => Act::Nothing,
        }
    }
}

/// Signals that are answered from now on. A request to end goes where [`Signals::serve`] says; before that there is
/// nothing to be ended in order, and the process ends.
pub struct Signals(Arc<OnceLock<Sender<()>>>);

impl Signals {
    /// Takes over all signals of the table, on a thread of its own.
    pub fn answer() -> Result<Signals, ServerError> {
        let target: Arc<OnceLock<Sender<()>>> = Arc::default();
        let (ends, mut ending) = (Arc::clone(&target), Ending::default());
        signals::answer(move |wish, name| act(ending.decide(wish, Instant::now()), name, ends.get()))?;
        Ok(Signals(target))
    }

    /// The server runs; this asks it to end.
    pub fn serve(&self, request: Sender<()>) {
        // Called once; a second server in one process has no signals.
        let _ = self.0.set(request);
    }
}

fn act(act: Act, name: &str, target: Option<&Sender<()>>) {
    match (act, target) {
        (Act::End, Some(target)) => {
            log::info!("{name}: shutting down");
            // A full channel means that the server is shutting down already.
            let _ = target.try_send(());
        }
        (Act::End, None) => {
            log::warn!("{name}: stopped before the server had started");
            log::logger().flush();
            std::process::exit(0);
        }
        (Act::EndAtOnce, _) => {
            log::error!("{name}: stopping at once; recovery follows at the next start");
            log::logger().flush();
            std::process::exit(1);
        }
        (Act::GoOnEnding, _) => {
            log::info!(
                "{name}: the server is shutting down already; Ctrl-C again or SIGQUIT stops it at once"
            );
        }
        (Act::Reopen, _) => {
            logging::reopen();
            log::info!("{name}: {} was opened anew", logging::FILE_NAME);
        }
        (Act::Nothing, _) => log::info!("{name}: means nothing to this server"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_person_cuts_an_orderly_end() {
        use Act::*;
        let start = Instant::now();
        type Step = (Wish, u64, Act);
        let cases: &[(&str, &[Step])] = &[
            (
                "a service manager",
                &[(Wish::End, 0, End), (Wish::End, 0, GoOnEnding), (Wish::End, 90, GoOnEnding)],
            ),
            (
                "a key",
                &[(Wish::EndByKey, 0, End), (Wish::EndByKey, 1, GoOnEnding), (Wish::EndByKey, 3, EndAtOnce)],
            ),
            ("both", &[(Wish::EndByKey, 0, End), (Wish::End, 9, GoOnEnding), (Wish::EndByKey, 9, EndAtOnce)]),
            ("a person", &[(Wish::End, 0, End), (Wish::EndAtOnce, 0, EndAtOnce)]),
            (
                "rotation",
                &[
                    (Wish::Reopen, 0, Reopen),
                    (Wish::Nothing, 0, Nothing),
                    (Wish::End, 1, End),
                    (Wish::Reopen, 2, Reopen),
                ],
            ),
        ];
        for (who, steps) in cases {
            let mut ending = Ending::default();
            for (wish, second, expected) in *steps {
                let now = start + Duration::from_secs(*second);
                assert_eq!(ending.decide(*wish, now), *expected, "{who}: {wish:?} at {second} s");
            }
        }
    }
}
