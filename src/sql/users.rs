//! Users: what they may do and how their passwords are checked.
//!
//! Only SCRAM-SHA-256 verifiers are stored (table `_hsb_users`, replicated like any other); a password never is.
//! Names are kept in small letters.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use super::errors;
use super::user_statement::UserCommand;
use crate::error::ServerError;
use crate::services::context::Rights;
use crate::storage::database::{self, Database};

/// Rounds of the password hash; what PostgreSQL uses.
pub const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;

/// What a user may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Everything (SYS_ADMIN_ROLE).
    Admin,
    /// Use the database and give HSB and informing admin commands (SYS_CONSOLE_ROLE).
    Console,
    /// Use the database.
    ReadWrite,
    /// Read the database.
    ReadOnly,
}

impl Role {
    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Role::Admin => "ADMIN",
            Role::Console => "CONSOLE",
            Role::ReadWrite => "READWRITE",
            Role::ReadOnly => "READONLY",
        }
    }

    /// From what is stored; what is not known may do the least.
    pub fn parse(name: &str) -> Role {
        [Role::Admin, Role::Console, Role::ReadWrite]
            .into_iter()
            .find(|role| role.name().eq_ignore_ascii_case(name))
            .unwrap_or(Role::ReadOnly)
    }

    /// From the name in GRANT and REVOKE.
    pub fn from_granted_name(name: &str) -> Option<Role> {
        match name.to_ascii_uppercase().as_str() {
            "SYS_ADMIN_ROLE" => Some(Role::Admin),
            "SYS_CONSOLE_ROLE" => Some(Role::Console),
            "READ_WRITE_ROLE" => Some(Role::ReadWrite),
            "READ_ONLY_ROLE" => Some(Role::ReadOnly),
            _ => None,
        }
    }

    /// What it may do with ADMIN COMMAND and at the console; none: nothing.
    pub fn rights(self) -> Option<Rights> {
        match self {
            Role::Admin => Some(Rights::Administrator),
            Role::Console => Some(Rights::Console),
            Role::ReadWrite | Role::ReadOnly => None,
        }
    }
}

/// What the server keeps instead of a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verifier {
    /// Random bytes.
    pub salt: Vec<u8>,
    /// Rounds.
    pub iterations: u32,
    /// SHA-256 of the client key.
    pub stored_key: [u8; 32],
    /// Proves the server to the client.
    pub server_key: [u8; 32],
}

/// HMAC-SHA-256.
pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(message);
            mac.finalize().into_bytes().into()
        }
        // HMAC takes keys of any length.
        Err(_) => [0; 32],
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Verifier {
    /// Of a password, with fresh salt. A verifier in PostgreSQL's notation is taken as it is.
    pub fn of_password(password: &str) -> Result<Verifier, ServerError> {
        match Verifier::from_notation(password) {
            Some(verifier) => Ok(verifier),
            None => Ok(Verifier::derive(password, &crate::random::bytes::<SALT_BYTES>()?, ITERATIONS)),
        }
    }

    /// Of a password with this salt.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Verifier {
        let mut salted = [0u8; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut salted);
        let stored_key = sha256(&hmac(&salted, b"Client Key"));
        Verifier { salt: salt.to_vec(), iterations, stored_key, server_key: hmac(&salted, b"Server Key") }
    }

    /// `SCRAM-SHA-256$iterations:salt$stored:server`, as psql's \password sends it.
    fn from_notation(text: &str) -> Option<Verifier> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let iterations = iterations.parse().ok().filter(|count| (4096..=1_000_000).contains(count))?;
        let salt = STANDARD.decode(salt).ok()?;
        Some(Verifier { salt, iterations, stored_key: key(stored)?, server_key: key(server)? })
    }
}

/// True if two secrets are equal; takes the same time wherever they differ.
pub fn equal_in_constant_time(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0u8, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// Looks a user up.
pub fn find(connection: &Connection, user: &str) -> Result<Option<(Role, Verifier)>, ServerError> {
    let sql = "SELECT role, salt, iterations, stored_key, server_key FROM _hsb_users WHERE name = ?1";
    let found = connection.prepare_cached(sql).and_then(|mut statement| {
        let row = statement.query_row([user.to_lowercase()], |row| {
            let role: String = row.get(0)?;
            let verifier = Verifier {
                salt: row.get(1)?,
                iterations: row.get(2)?,
                stored_key: row.get(3)?,
                server_key: row.get(4)?,
            };
            Ok((Role::parse(&role), verifier))
        });
        row.optional()
    });
    found.map_err(|error| errors::from_sqlite(&error))
}

/// What a log-in under this name is checked against. A name that is none has no role and a verifier that no password
/// fits; whoever tries cannot tell it from a user's: its salt is the same at both servers and after every start, its
/// rounds are what most users have, and it takes the same work.
pub fn find_for_login(connection: &Connection, user: &str) -> Result<(Option<Role>, Verifier), ServerError> {
    let found = find(connection, user)?;
    let usual =
        "SELECT iterations, length(salt) FROM _hsb_users GROUP BY 1, 2 ORDER BY count(*) DESC, 1, 2 LIMIT 1";
    let usual = connection
        .prepare_cached(usual)
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional());
    let (iterations, salt_bytes) =
        usual.map_err(|error| errors::from_sqlite(&error))?.unwrap_or((ITERATIONS, SALT_BYTES as u32));
    let mut salt = vec![0; salt_bytes as usize];
    let secret = database::read_secret(connection)?;
    pbkdf2::pbkdf2_hmac::<Sha256>(&secret, user.to_lowercase().as_bytes(), 1, &mut salt);
    let nobody = Verifier { salt, iterations, stored_key: [0; 32], server_key: [0; 32] };
    Ok(found.map_or((None, nobody), |(role, verifier)| (Some(role), verifier)))
}

/// The role of a user whose password is right.
pub fn check_password(database: &Database, user: &str, password: &str) -> Result<Role, ServerError> {
    let (role, verifier) = database.ask(|connection| find_for_login(connection, user))?;
    let derived = Verifier::derive(password, &verifier.salt, verifier.iterations);
    let fits = equal_in_constant_time(&derived.stored_key, &verifier.stored_key);
    role.filter(|_| fits).ok_or_else(|| {
        ServerError::sql("28P01", format!("password authentication failed for user \"{user}\""))
    })
}

/// Stores a new user.
pub fn insert(
    connection: &Connection,
    user: &str,
    role: Role,
    verifier: &Verifier,
) -> Result<(), ServerError> {
    let sql = "INSERT INTO _hsb_users (name, role, salt, iterations, stored_key, server_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = rusqlite::params![
        user.to_lowercase(),
        role.name(),
        verifier.salt,
        verifier.iterations,
        verifier.stored_key,
        verifier.server_key
    ];
    connection.execute(sql, values).map(drop).map_err(|error| errors::from_sqlite(&error))
}

/// Carries out a statement about users; the caller is inside a write transaction and not in a client's scope.
pub fn execute(connection: &Connection, command: &UserCommand) -> Result<(), ServerError> {
    let absent = |name: &str| ServerError::sql("42704", format!("user \"{name}\" does not exist"));
    match command {
        UserCommand::Create { name, password } => {
            if name.to_lowercase().starts_with("_hsb_") || name.is_empty() {
                return Err(ServerError::sql("42939", "this user name is reserved"));
            }
            if find(connection, name)?.is_some() {
                return Err(ServerError::sql("42710", format!("user \"{name}\" already exists")));
            }
            insert(connection, name, Role::ReadWrite, &Verifier::of_password(password)?)
        }
        UserCommand::Alter { name, password } => {
            let verifier = Verifier::of_password(password)?;
            let sql = "UPDATE _hsb_users SET salt = ?2, iterations = ?3, stored_key = ?4, server_key = ?5 WHERE name = ?1";
            let values = rusqlite::params![
                name.to_lowercase(),
                verifier.salt,
                verifier.iterations,
                verifier.stored_key,
                verifier.server_key
            ];
            let changed = connection.execute(sql, values).map_err(|error| errors::from_sqlite(&error))?;
            if changed == 0 { Err(absent(name)) } else { Ok(()) }
        }
        UserCommand::Drop { name, if_exists } => {
            let sql = "DELETE FROM _hsb_users WHERE name = ?1";
            let dropped = connection
                .execute(sql, [name.to_lowercase()])
                .map_err(|error| errors::from_sqlite(&error))?;
            if dropped == 0 && !if_exists {
                return Err(absent(name));
            }
            keep_an_admin(connection)
        }
        UserCommand::SetRole { name, role, only_from } => {
            let (present, _) = find(connection, name)?.ok_or_else(|| absent(name))?;
            if only_from.is_some_and(|from| from != present) {
                return Err(ServerError::sql("42704", format!("user \"{name}\" does not have this role")));
            }
            let sql = "UPDATE _hsb_users SET role = ?2 WHERE name = ?1";
            let values = rusqlite::params![name.to_lowercase(), role.name()];
            connection.execute(sql, values).map_err(|error| errors::from_sqlite(&error))?;
            keep_an_admin(connection)
        }
    }
}

fn keep_an_admin(connection: &Connection) -> Result<(), ServerError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM _hsb_users WHERE role = 'ADMIN')";
    let some: bool =
        connection.query_row(sql, [], |row| row.get(0)).map_err(|error| errors::from_sqlite(&error))?;
    if some { Ok(()) } else { Err(ServerError::sql("2BP01", "one user must keep SYS_ADMIN_ROLE")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_was_made_without_a_secret_has_steady_salts_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("solid.db");
        let administrator = Verifier::of_password("secret").unwrap();
        Database::at(path.clone(), 0)
            .create(4096, |connection| insert(connection, "dba", Role::Admin, &administrator))
            .unwrap();
        let shown = |user: &str| {
            let database = Database::at(path.clone(), 0);
            let (role, verifier) = database.ask(|connection| find_for_login(connection, user)).unwrap();
            assert_eq!(check_password(&database, user, "secret").ok(), role);
            assert!(check_password(&database, user, "another").is_err());
            verifier
        };
        let with_secret = shown("nobody");
        assert_eq!(shown("NOBODY"), with_secret);
        Connection::open(&path).unwrap().execute("DELETE FROM _hsb_meta WHERE key = 'secret'", []).unwrap();
        let without = shown("nobody");
        assert_ne!(without, with_secret);
        assert_eq!(shown("nobody"), without);
        assert_eq!(shown("dba"), administrator);
        assert_eq!((without.salt.len(), without.iterations), (SALT_BYTES, ITERATIONS));
    }
}
