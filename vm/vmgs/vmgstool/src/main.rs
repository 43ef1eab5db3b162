//! The command `vmgstool`.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmgstool::main()
}
