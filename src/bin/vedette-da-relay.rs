//! The program `vedette-da-relay`; all of it is in the library.

fn main() -> std::process::ExitCode {
    vedette::relay::cli::main()
}
