//! Why something was refused or has failed: a number of the code table and what this case adds to its sentence.
//!
//! One shape for what the heart decides, what a copy or a rewind ends with and what the other server says. What a client
//! or an operator is told of it is a [`ServerError`](crate::error::ServerError), into which it turns and from which it
//! comes there. Invariant: `detail` never repeats the code's sentence; both are put together by `in_words` alone.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use super::codes::Code;

/// See the module. Shown, its number stands in front.
#[derive(Clone, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub code: Code,
    /// The particulars; may be empty.
    pub detail: String,
}

impl Refusal {
    /// For this reason, with these particulars.
    pub fn new(code: Code, detail: impl Into<String>) -> Refusal {
        Refusal { code, detail: detail.into() }
    }

    /// What is wrong, what to do, and the particulars, without the number.
    pub fn text(&self) -> String {
        in_words(self.code.text(), &self.detail)
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Refusal {
        Refusal::new(code, "")
    }
}

impl Display for Refusal {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.code.number(), self.text())
    }
}

/// A sentence of the code table and the particulars behind it; either may be empty.
pub(crate) fn in_words(sentence: &str, detail: &str) -> String {
    format!("{sentence} {detail}").trim().to_owned()
}
