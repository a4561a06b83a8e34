//! What a session refuses after a CREATE TRIGGER that the client has cut at the semicolons of its body.
//!
//! Some clients, psql among them, send a text up to each semicolon. The first piece is no statement; the pieces after it
//! are, and nobody meant them to be carried out on their own. So nothing is, up to the piece END.

use super::statement::{Kind, Statement, syntax};
use crate::error::ServerError;

const ADVICE: &str =
    "Write the body in dollar quotes, which are not cut: CREATE TRIGGER … ON … AS $$ …; …; $$";

/// See the module.
#[derive(Debug, Default)]
pub struct CutTrigger {
    is_open: bool,
}

impl CutTrigger {
    /// Takes notice of a statement that the client sends, and refuses it if it is a piece.
    pub fn check(&mut self, statement: &Statement) -> Result<(), ServerError> {
        if matches!(statement.kind, Kind::CutTrigger) {
            self.is_open = true;
            return Err(syntax(format!(
                "CREATE TRIGGER has no END: the client has cut it at a semicolon. Nothing of it is carried out; what follows is refused up to its END. {ADVICE}"
            )));
        }
        if !self.is_open {
            return Ok(());
        }
        if is_end(statement) {
            self.is_open = false;
            return Err(syntax(format!(
                "here ends the CREATE TRIGGER that the client has cut; nothing of it was carried out. {ADVICE}"
            )));
        }
        // No body of a trigger has these.
        if matches!(statement.kind, Kind::Rollback | Kind::Discard) {
            self.is_open = false;
            return Ok(());
        }
        Err(syntax(
            "not carried out: this is taken for a piece of the CREATE TRIGGER that the client has cut. END or ROLLBACK ends that",
        ))
    }

    /// A statement that is passed over after an error before it.
    pub fn pass(&mut self, statement: &Statement) {
        self.is_open &= !is_end(statement);
    }

    /// True while pieces are refused.
    pub fn is_open(&self) -> bool {
        self.is_open
    }
}

fn is_end(statement: &Statement) -> bool {
    matches!(statement.kind, Kind::Commit) && statement.sql.eq_ignore_ascii_case("end")
}
