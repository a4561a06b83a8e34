//! User and password: from a file, the environment, or a terminal. Invariant: a password is never an argument, where
//! every user of the machine could see it.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use crate::error::{ServerError, invalid};

/// Environment variable with the user.
pub const USER_VARIABLE: &str = "SOLID_USER";
/// Environment variable with the password.
pub const PASSWORD_VARIABLE: &str = "SOLID_PASSWORD";

/// Who logs in.
#[derive(Clone)]
pub struct Credentials {
    /// One word.
    pub user: String,
    /// One line.
    pub password: String,
}

impl Credentials {
    /// What is given; the rest from the environment, or else asked for; `whose` tells what for.
    pub fn complete(
        user: Option<String>,
        password: Option<String>,
        whose: &str,
    ) -> Result<Credentials, ServerError> {
        let user =
            given(user).or_else(|| from_environment(USER_VARIABLE)).map_or_else(|| ask_user(whose), Ok)?;
        let password = given(password)
            .or_else(|| from_environment(PASSWORD_VARIABLE))
            .map_or_else(|| ask_password(&user, whose), Ok)?;
        Ok(Credentials { user, password })
    }
}

/// The first line of a file.
pub fn password_from(file: &Path) -> Result<String, ServerError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| invalid(format!("The password file {} cannot be read: {error}.", file.display())))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(invalid(format!(
            "The first line of the password file {} is empty; it holds the password.",
            file.display()
        )));
    }
    Ok(line.to_owned())
}

fn given(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

fn from_environment(variable: &str) -> Option<String> {
    given(std::env::var(variable).ok())
}

fn ask_user(whose: &str) -> Result<String, ServerError> {
    if !std::io::stdin().is_terminal() {
        return Err(invalid(format!(
            "No user for {whose}: set {USER_VARIABLE}, or start on a terminal to be asked."
        )));
    }
    let _ = write!(std::io::stderr(), "User for {whose}: ");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| invalid(format!("The user cannot be read: {error}.")))?;
    Ok(line.trim().to_owned())
}

fn ask_password(user: &str, whose: &str) -> Result<String, ServerError> {
    rpassword::prompt_password(format!("Password of {user} for {whose}: ")).map_err(|error| {
        invalid(format!(
            "No password of {user} for {whose} ({error}): set {PASSWORD_VARIABLE}, name a file, or start on a terminal to be asked."
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_is_its_first_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "pass word \nsecond line\n").unwrap();
        assert_eq!(password_from(&file).unwrap(), "pass word ");
        std::fs::write(&file, "\n").unwrap();
        assert!(password_from(&file).unwrap_err().message().contains("empty"));
        assert!(password_from(&directory.path().join("none")).is_err());
    }

    #[test]
    fn what_is_given_is_not_asked_for() {
        let credentials = Credentials::complete(Some("u".into()), Some("p".into()), "tcp 1").unwrap();
        assert_eq!((credentials.user.as_str(), credentials.password.as_str()), ("u", "p"));
    }
}
