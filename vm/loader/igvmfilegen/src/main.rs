//! `igvmfilegen`: see `igvmfilegen --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    igvmfilegen::main()
}
