//! The program `vedette`; all of it is in the library.

fn main() -> std::process::ExitCode {
    vedette::cli::main()
}
