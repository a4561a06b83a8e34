//! The watchdog of a pair. Everything it does is in the library.

fn main() -> std::process::ExitCode {
    hotstandby::watchdog::run()
}
