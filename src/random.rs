//! Random bytes of the operating system: the one door to them.

use crate::error::ServerError;
use crate::hsb::codes::Code;

/// As many as the caller has room for; an error only where the system has none.
pub fn bytes<const COUNT: usize>() -> Result<[u8; COUNT], ServerError> {
    let mut bytes = [0; COUNT];
    getrandom::fill(&mut bytes)
        .map_err(|error| ServerError::with(Code::FAILED_UNEXPECTEDLY, format!("(random bytes: {error})")))?;
    Ok(bytes)
}
