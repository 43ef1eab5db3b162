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
    let environment = match Environment::from_env() {
        Ok(environment) => environment,
        Err(err) => {
            eprintln!("error: {err:#}");
            return ExitCode::FAILURE;
        }
    };
    // Guests share the machine's processors; two at a time keep the waiting ones from idling. An emulated machine
    // has one processor, and other labs beside it for the host's others.
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
