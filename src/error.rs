//! The one error that reaches a user: number, SQLSTATE, what happened, to what, what to do next.

use crate::hsb::codes::Code;

/// An error as a client, an operator or the message log sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    /// Number of errors.md; none for plain SQL errors.
    pub code: Option<Code>,
    /// Five characters, as SQL clients expect them.
    pub sqlstate: &'static str,
    /// One or two sentences; with a number, it stands in front.
    pub message: String,
}

impl ServerError {
    /// An error of the code table with its own text.
    pub fn new(code: Code) -> ServerError {
        ServerError {
            code: Some(code),
            sqlstate: code.sqlstate(),
            message: format!("{}: {}", code.number(), code.text()),
        }
    }

    /// An error of the code table with a text that says more about this case.
    pub fn with(code: Code, detail: impl std::fmt::Display) -> ServerError {
        let message = format!("{}: {} {detail}", code.number(), code.text());
        ServerError { code: Some(code), sqlstate: code.sqlstate(), message }
    }

    /// Whether the disk is full or fails, which says nothing about what was asked for.
    pub fn is_of_the_medium(&self) -> bool {
        self.code == Some(Code::DISK_FULL) || self.sqlstate == "58030"
    }

    /// A plain SQL error.
    pub fn sql(sqlstate: &'static str, message: impl Into<String>) -> ServerError {
        ServerError { code: None, sqlstate, message: message.into() }
    }
}

/// An invalid argument whose text stands alone: the general sentence of 14526 speaks of commands.
pub fn invalid(message: impl std::fmt::Display) -> ServerError {
    let code = Code::INVALID_ARGUMENT;
    ServerError {
        code: Some(code),
        sqlstate: code.sqlstate(),
        message: format!("{}: {message}", code.number()),
    }
}
