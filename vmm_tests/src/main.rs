//! The end-to-end tests, as a program: `cargo xtask test --only e2e` builds it and runs it where there
//! is a KVM.
#![forbid(unsafe_code)]

mod tests;

use libtest_mimic::Arguments;
use libtest_mimic::Trial;
use std::process::ExitCode;
use vmm_tests::Environment;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Guests share the machine's processors; two at a time keep the waiting ones from idling.
    arguments.test_threads.get_or_insert(2);
    let environment = match Environment::from_env() {
        Ok(environment) => environment,
        Err(err) => {
            eprintln!("error: {err:#}");
            return ExitCode::FAILURE;
        }
    };
    let trials = tests::all()
        .into_iter()
        .map(|test| {
            let environment = environment.clone();
            Trial::test(test.name, move || {
                test.run(environment)
                    .map_err(|err| format!("{err:#}").into())
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
