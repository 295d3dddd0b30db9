//! STUB
pub(super) fn demo() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
