//! Random bytes of the operating system.

use crate::error::ServerError;

/// As many as the caller has room for; an error (58000) only where the system has none.
pub fn bytes<const COUNT: usize>() -> Result<[u8; COUNT], ServerError> {
    let mut bytes = [0; COUNT];
    getrandom::fill(&mut bytes)
        .map_err(|error| ServerError::sql("58000", format!("no random bytes: {error}")))?;
    Ok(bytes)
}
