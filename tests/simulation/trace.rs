//! What happened, as one hash: two runs with the same hash took the same course.

use std::fmt::{Arguments, Write};

use xxhash_rust::xxh3::Xxh3;

/// Written by everything that happens.
pub struct Trace {
    hash: Xxh3,
    line: String,
    /// Every line is printed too.
    loud: bool,
}

impl Trace {
    pub fn new(loud: bool) -> Trace {
        Trace { hash: Xxh3::new(), line: String::new(), loud }
    }

    pub fn add(&mut self, now: u64, what: Arguments<'_>) {
        self.line.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.line, "{now:>7} {what}");
        self.hash.update(self.line.as_bytes());
        if self.loud {
            println!("{}", self.line);
        }
    }

    pub fn digest(&self) -> u64 {
        self.hash.digest()
    }
}
