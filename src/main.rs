//! The `doorward` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    doorward::cli::main()
}
