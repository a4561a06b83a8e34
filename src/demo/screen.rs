//! What the demo shows: on a terminal one line that is redrawn while something goes on, otherwise a line for each step;
//! at the end the timeline.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line is redrawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);
/// Clears the line.
const CLEAR: &str = "\r\x1b[2K";

/// See the module.
pub struct Screen {
    terminal: bool,
    start: Instant,
    drawn: Option<Instant>,
    timeline: Vec<Entry>,
}

struct Entry {
    at: Duration,
    what: String,
    took: Option<Duration>,
}

impl Screen {
    /// Time begins.
    pub fn new() -> Screen {
        let terminal = std::io::stdout().is_terminal();
        Screen { terminal, start: Instant::now(), drawn: None, timeline: Vec::new() }
    }

    /// A step begins.
    pub fn begin(&mut self, what: &str) {
        if self.terminal {
            print(&format!("{CLEAR}{what} …"));
            self.drawn = None;
        } else {
            print(&format!("{what} …\n"));
        }
    }

    /// What is going on now; only a terminal shows it.
    pub fn progress(&mut self, text: &str) {
        if self.terminal && self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW_INTERVAL) {
            print(&format!("{CLEAR}{text}"));
            self.drawn = Some(Instant::now());
        }
    }

    /// An entry of the timeline, now.
    pub fn note(&mut self, what: impl Into<String>, took: Option<Duration>) {
        self.timeline.push(Entry { at: self.start.elapsed(), what: what.into(), took });
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        let clear = if self.terminal { CLEAR } else { "" };
        print(&format!("{clear}{text}\n"));
    }

    /// Everything noted, with its times.
    pub fn print_timeline(&self) {
        if self.timeline.is_empty() {
            return;
        }
        self.say("\n   at (s)   took (ms)");
        for entry in &self.timeline {
            let took = entry.took.map_or(String::new(), |took| format!("{:.1}", milliseconds(took)));
            print(&format!("{:9.3} {took:>11}   {}\n", entry.at.as_secs_f64(), entry.what));
        }
    }
}

/// For people.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading any more; the exit status still tells.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
