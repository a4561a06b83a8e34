//! Values that are not of the type that they should be, and what clients are told of them.

use rusqlite::types::{Value, ValueRef};

use super::PgType;
use crate::error::ServerError;

/// Why a value does not fit a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It is none.
    Invalid,
    /// A number beyond the type's range.
    OutOfRange,
    /// No date or time, or beyond the calendar.
    NoDate,
    /// Bytes that are no text.
    NotUtf8,
    /// The type is known by its number alone.
    UnknownType,
}

impl Misfit {
    fn of_column(self, kind: &PgType, column: &str) -> ServerError {
        let (sqlstate, problem) = match self {
            Misfit::Invalid | Misfit::UnknownType => ("22P02", "that is not of its type"),
            Misfit::OutOfRange => ("22003", "that is out of the range of its type"),
            Misfit::NoDate => ("22007", "that is no date or time"),
            Misfit::NotUtf8 => ("22021", "that is not valid UTF-8"),
        };
        let name = kind.name();
        let text = format!("column \"{column}\" ({name}) holds a value {problem}; use CAST in the query");
        ServerError::sql(sqlstate, text)
    }

    fn of_text(self, kind: &PgType, text: &str) -> ServerError {
        let name = kind.name();
        match self {
            Misfit::Invalid => {
                ServerError::sql("22P02", format!("invalid input for type {name}: \"{text}\""))
            }
            Misfit::NoDate => ServerError::sql("22007", format!("invalid input for type {name}: \"{text}\"")),
            Misfit::OutOfRange => {
                ServerError::sql("22003", format!("out of range for type {name}: \"{text}\""))
            }
            Misfit::NotUtf8 => ServerError::sql("22021", "a parameter is not valid UTF-8"),
            Misfit::UnknownType => kind.not_supported(),
        }
    }

    fn of_bytes(self, kind: &PgType, bytes: &[u8]) -> ServerError {
        let (oid, name) = (kind.oid, kind.name());
        match self {
            Misfit::Invalid => {
                let length = bytes.len();
                ServerError::sql("22P03", format!("a binary parameter of type {oid} has {length} bytes"))
            }
            Misfit::NoDate => {
                ServerError::sql("22008", format!("a parameter is out of range for type {name}"))
            }
            Misfit::OutOfRange => {
                ServerError::sql("22003", format!("a parameter is out of range for type {name}"))
            }
            Misfit::NotUtf8 => ServerError::sql("22021", "a parameter is not valid UTF-8"),
            Misfit::UnknownType => kind.not_supported(),
        }
    }
}

impl PgType {
    fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or("unknown")
    }

    fn not_supported(&self) -> ServerError {
        let text = "binary parameters of a type that is not known here are not supported; send it as text";
        ServerError::sql("0A000", text)
    }

    /// Appends a value of a column, which is not NULL, as text.
    pub fn append_text(
        &self,
        out: &mut Vec<u8>,
        value: ValueRef<'_>,
        column: &str,
    ) -> Result<(), ServerError> {
        (self.text_out)(out, value).map_err(|misfit| misfit.of_column(self, column))
    }

    /// Appends a value of a column, which is not NULL, in binary.
    pub fn append_binary(
        &self,
        out: &mut Vec<u8>,
        value: ValueRef<'_>,
        column: &str,
    ) -> Result<(), ServerError> {
        (self.binary_out)(out, value).map_err(|misfit| misfit.of_column(self, column))
    }

    /// A parameter that was sent as text, as SQLite shall bind it.
    pub fn from_text(&self, bytes: &[u8]) -> Result<Value, ServerError> {
        let text = std::str::from_utf8(bytes).map_err(|_| Misfit::NotUtf8.of_text(self, ""))?;
        (self.text_in)(text).map_err(|misfit| misfit.of_text(self, text))
    }

    /// A parameter that was sent in binary, as SQLite shall bind it.
    pub fn from_binary(&self, bytes: &[u8]) -> Result<Value, ServerError> {
        (self.binary_in)(bytes).map_err(|misfit| misfit.of_bytes(self, bytes))
    }
}
