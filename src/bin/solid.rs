//! The node's binary. Everything it does is in the library.

fn main() -> std::process::ExitCode {
    hotstandby::program::run()
}
