//! The end-to-end tests, as a program. `cargo xtask test --only e2e` builds it and runs it on a machine with KVM.
#![forbid(unsafe_code)]

mod tests;

use libtest_mimic::Arguments;
use libtest_mimic::Trial;
use std::process::ExitCode;
use vmm_tests::Environment;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let environment = match Environment::from_env() {
        Ok(environment) => environment,
        Err(err) => {
            eprintln!("error: {err:#}");
            return ExitCode::FAILURE;
        }
    };
    // Two tests at a time use the machine's processors better, since tests often wait. A lab has one processor, and
    // other labs run on the host's other processors.
    let at_a_time = if environment.emulated { 1 } else { 2 };
    arguments.test_threads.get_or_insert(at_a_time);
    let trials = tests::all()
        .into_iter()
        .enumerate()
        .filter(|(position, _)| environment.share.holds(*position))
        .map(|(_, test)| {
            let environment = environment.clone();
            Trial::test(test.name, move || {
                test.run(environment)
                    .map_err(|err| format!("{err:#}").into())
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
