//! `hsb verify`: whether both databases say the same.

use std::time::Duration;

use super::{AdminServices, Call, Rows, one};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::Purpose;
use crate::hsb::phase::Activity;
use crate::hsb::state::State;
use crate::net::peer::verify::{self, Comparison};

/// Time for reaching the other server.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn verify(services: &AdminServices, _: &Call) -> Rows {
    let now = services.node.status.snapshot();
    match now.state {
        // Nobody expects the databases to agree while one is replaced by the other. 'hsb copy' is the same phase.
        _ if now.activity == Activity::Copying => return Err(ServerError::new(Code::COPY_ACTIVE)),
        State::PrimaryActive | State::PrimaryAlone => {}
        State::PrimaryUncertain => return Err(ServerError::new(Code::UNCERTAIN)),
        State::Standalone => return Err(ServerError::new(Code::NOT_IN_STANDALONE)),
        _ => return Err(ServerError::new(Code::SERVER_IS_SECONDARY)),
    }
    let (mut stream, _) = services.dial(Purpose::Verify, DIAL_PATIENCE)?;
    let comparison = verify::compare(&mut stream, &services.node.database, &services.node.writer)?;
    match comparison.differing().first() {
        None => {
            let rows: u64 = comparison.here.iter().map(|sum| sum.1).sum();
            let tables = comparison.here.len();
            one(format!("SAME at {}: {tables} tables with {rows} rows", comparison.position))
        }
        Some(first) => Ok(different(&comparison, first)),
    }
}

fn different(comparison: &Comparison, first: &str) -> Vec<(u32, String)> {
    let of = |sums: &[verify::TableSum]| match sums.iter().find(|sum| sum.0 == first) {
        Some((_, rows, sum)) => format!("{rows} rows, checksum {sum:032x}"),
        None => "no such table".into(),
    };
    let code = Code::NOT_SYNCHRONIZED.number();
    let number = comparison.differing().len();
    let line = |text: String| (code, text);
    vec![
        line(format!("DIFFERENT at {}: table '{first}'", comparison.position)),
        line(format!("here: {}; there: {}", of(&comparison.here), of(&comparison.there))),
        line(format!(
            "{number} tables differ in all. To replace the secondary's database: 'hsb disconnect', 'hsb netcopy', 'hsb connect'."
        )),
    ]
}
