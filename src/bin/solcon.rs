//! The console client. Everything it does is in the library.

fn main() -> std::process::ExitCode {
    hotstandby::client::solcon::run()
}
