//! Virtual time, in milliseconds since the run began.

#[derive(Clone, Copy, Debug)]
pub struct Clock(tokio::time::Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(tokio::time::Instant::now())
    }

    pub fn now_ms(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    pub fn at_ms(self, milliseconds: u64) -> tokio::time::Instant {
        self.0 + std::time::Duration::from_millis(milliseconds)
    }
}
