//! The one error that reaches a user: number, SQLSTATE, what happened, to what, what to do next.
//!
//! Beside it there is [`Refusal`] alone, for what is decided without SQL: each turns into the other here.

use std::fmt::{Display, Formatter};

use crate::hsb::codes::Code;
use crate::hsb::refusal::{Refusal, in_words};

/// An error as a client, an operator or the message log sees it. Shown, its number stands in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// Number of errors.md; none for plain SQL errors.
    pub code: Option<Code>,
    /// Five characters, as SQL clients expect them.
    pub sqlstate: &'static str,
    /// The code's own; empty where the detail says all.
    sentence: &'static str,
    detail: String,
}

impl Display for ServerError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(formatter, "{}: {}", code.number(), self.message()),
            None => formatter.write_str(&self.message()),
        }
    }
}

impl std::error::Error for ServerError {}

impl ServerError {
    /// An error of the code table with its own text.
    pub fn new(code: Code) -> ServerError {
        ServerError::with(code, "")
    }

    /// An error of the code table with a text that says more about this case.
    pub fn with(code: Code, detail: impl Display) -> ServerError {
        let (sqlstate, sentence) = (code.sqlstate(), code.text());
        ServerError { code: Some(code), sqlstate, sentence, detail: detail.to_string() }
    }

    /// A plain SQL error.
    pub fn sql(sqlstate: &'static str, message: impl Into<String>) -> ServerError {
        ServerError::heard(None, sqlstate, message)
    }

    /// What a server has said: its text is whole.
    pub fn heard(code: Option<Code>, sqlstate: &'static str, message: impl Into<String>) -> ServerError {
        ServerError { code, sqlstate, sentence: "", detail: message.into() }
    }

    /// The same error in other words, which stand alone.
    pub fn saying(self, message: impl Into<String>) -> ServerError {
        ServerError { sentence: "", detail: message.into(), ..self }
    }

    /// The same error under another SQLSTATE.
    pub fn under(self, sqlstate: &'static str) -> ServerError {
        ServerError { sqlstate, ..self }
    }

    /// The commit was under way when this server ceased to be the one that decides it.
    pub fn in_doubt() -> ServerError {
        let message = "The outcome of the transaction is not known here: its commit was under way and may yet come to be, here or at the other server. Do not repeat it blindly. If it has a token (SET TRANSACTION TOKEN), ask the primary: SELECT HOTSTANDBY_OUTCOME('token'), or try it there again with the same token, for a token commits once. If it has none, look at the primary whether its changes are there.";
        ServerError::new(Code::COMMIT_SENT).saying(message).under("08007")
    }

    /// Whether it leaves open if the transaction has happened. No other error does.
    pub fn is_in_doubt(&self) -> bool {
        self.sqlstate == "08007"
    }

    /// Whether the disk is full or fails, which says nothing about what was asked for.
    pub fn is_of_the_medium(&self) -> bool {
        self.code == Some(Code::DISK_FULL) || self.sqlstate == "58030"
    }

    /// Whether it passes without anybody's mending the database: somebody else has a lock, or memory or descriptors are
    /// short. It says nothing about what was asked for, which is to be tried again.
    pub fn passes(&self) -> bool {
        matches!(self.sqlstate, "55P03" | "53200" | "53000")
    }

    /// Whether the server tries by itself again what it has to do: it passes, or the disk is full.
    pub fn is_tried_again(&self) -> bool {
        self.passes() || self.code == Some(Code::DISK_FULL)
    }

    /// What it says besides the sentence of its code: for whoever shows that code, or puts another one in front.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What is wrong, in one or two sentences, without the number.
    pub fn message(&self) -> String {
        in_words(self.sentence, &self.detail)
    }

    /// As a row of an answer: RC and TEXT. A plain SQL error has no number, and an answer needs one.
    pub fn row(self) -> (u32, String) {
        (self.code.unwrap_or(Code::OPERATION_FAILED).number(), self.message())
    }
}

/// An invalid argument whose text stands alone: the general sentence of 14526 speaks of commands.
pub fn invalid(message: impl Display) -> ServerError {
    ServerError::new(Code::INVALID_ARGUMENT).saying(message.to_string())
}

impl From<Refusal> for ServerError {
    fn from(Refusal { code, detail }: Refusal) -> ServerError {
        ServerError::with(code, detail)
    }
}

/// A plain SQL error has no number, and a refusal needs one.
impl From<ServerError> for Refusal {
    fn from(error: ServerError) -> Refusal {
        Refusal { code: error.code.unwrap_or(Code::OPERATION_FAILED), detail: error.detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_sentence_stand_there_once() {
        let full = ServerError::with(Code::DISK_FULL, "database or disk is full");
        assert_eq!(full.to_string().matches("11002").count(), 1);
        assert_eq!(full.detail(), "database or disk is full");
        assert!(!full.message().contains("11002"));
        assert_eq!(full.to_string(), Refusal::from(full.clone()).to_string());
        assert_eq!(ServerError::from(Refusal::from(full.clone())), full);
        assert_eq!(ServerError::new(Code::DISK_FULL).detail(), "");
        let plain = ServerError::sql("42601", "syntax error");
        assert_eq!((plain.to_string().as_str(), plain.detail()), ("syntax error", "syntax error"));
        assert_eq!(plain.row(), (Code::OPERATION_FAILED.number(), "syntax error".into()));
    }
}
