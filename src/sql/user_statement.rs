//! The syntax of CREATE/ALTER/DROP USER and GRANT/REVOKE.

use super::lexer::Reader;
use super::statement::syntax;
use super::users::Role;
use crate::error::ServerError;

/// A statement about users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserCommand {
    /// CREATE USER.
    Create {
        /// Its name.
        name: String,
        /// Its password.
        password: String,
    },
    /// ALTER USER: a new password.
    Alter {
        /// Its name.
        name: String,
        /// Its new password.
        password: String,
    },
    /// DROP USER.
    Drop {
        /// Its name.
        name: String,
        /// No error if it does not exist.
        if_exists: bool,
    },
    /// GRANT or REVOKE of a role.
    SetRole {
        /// The user.
        name: String,
        /// The role it has afterwards.
        role: Role,
        /// Only if it has this role now (REVOKE).
        only_from: Option<Role>,
    },
}

/// Reads what follows CREATE USER, ALTER USER or DROP USER.
pub fn user(verb: &str, reader: &mut Reader<'_>) -> Result<UserCommand, ServerError> {
    let if_exists = verb == "DROP" && reader.accept(&["IF", "EXISTS"]);
    let name = reader.name().ok_or_else(|| syntax("a user name is missing"))?;
    if verb == "DROP" {
        return if reader.at_end() {
            Ok(UserCommand::Drop { name, if_exists })
        } else {
            Err(trailing(reader))
        };
    }
    let _ = reader.accept(&["WITH"]);
    let _ = reader.accept(&["LOGIN"]);
    let _ = reader.accept(&["ENCRYPTED"]);
    if !reader.accept(&["IDENTIFIED", "BY"]) && !reader.accept(&["PASSWORD"]) {
        return Err(syntax(format!("{verb} USER takes IDENTIFIED BY '…' or WITH PASSWORD '…'")));
    }
    let password = reader.string().or_else(|| reader.name());
    let password = password.ok_or_else(|| syntax("the password is missing; it stands in single quotes"))?;
    let _ = reader.accept(&["LOGIN"]);
    if !reader.at_end() {
        return Err(trailing(reader));
    }
    Ok(if verb == "CREATE" {
        UserCommand::Create { name, password }
    } else {
        UserCommand::Alter { name, password }
    })
}

/// Reads GRANT role TO user or REVOKE role FROM user from the first token.
pub fn grant(reader: &mut Reader<'_>) -> Result<UserCommand, ServerError> {
    let granting = reader.clone().accept(&["GRANT"]);
    reader.at = 1;
    let text = reader.name().unwrap_or_default();
    let Some(role) = Role::from_granted_name(&text) else {
        return Err(ServerError::sql(
            "0A000",
            "only the roles SYS_ADMIN_ROLE, SYS_CONSOLE_ROLE, READ_WRITE_ROLE and READ_ONLY_ROLE can be granted and revoked",
        ));
    };
    if !reader.accept(&[if granting { "TO" } else { "FROM" }]) {
        return Err(syntax("write GRANT role TO user or REVOKE role FROM user"));
    }
    let name = reader.name().ok_or_else(|| syntax("a user name is missing"))?;
    if !reader.at_end() {
        return Err(trailing(reader));
    }
    if granting {
        return Ok(UserCommand::SetRole { name, role, only_from: None });
    }
    let left = if role == Role::ReadWrite { Role::ReadOnly } else { Role::ReadWrite };
    Ok(UserCommand::SetRole { name, role: left, only_from: Some(role) })
}

fn trailing(reader: &Reader<'_>) -> ServerError {
    syntax(format!("syntax error at \"{}\"", reader.rest()))
}
