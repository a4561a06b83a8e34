//! `solid demo`
pub mod pair;
use crate::command_line::DemoOptions;
use crate::error::ServerError;
/// demo
pub fn run(_: &DemoOptions) -> Result<(), ServerError> {
    Ok(())
}
