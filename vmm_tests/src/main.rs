//! The end-to-end tests, as a program. `cargo xtask test --only e2e` builds it and runs it on a machine with KVM.
#![forbid(unsafe_code)]

mod tests;

use libtest_mimic::Arguments;
use libtest_mimic::Trial;
use std::io;
use std::process::ExitCode;
use vmm_tests::Environment;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list {
        let names = tests::all().into_iter().map(|test| test.name);
        let trials = names.map(|name| Trial::test(name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
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
    if environment.from_input {
        return run_from_input(arguments, &environment);
    }
    libtest_mimic::run(&arguments, trials(&environment)).exit_code()
}

/// Runs the tests whose names come from standard input, each when its name comes.
fn run_from_input(mut arguments: Arguments, environment: &Environment) -> ExitCode {
    arguments.exact = true;
    let mut all_passed = true;
    for name in io::stdin().lines() {
        match name {
            Ok(name) => arguments.filter = Some(name),
            Err(err) => {
                eprintln!("error: failed to read the name of a test: {err}");
                return ExitCode::FAILURE;
            }
        }
        all_passed &= libtest_mimic::run(&arguments, trials(environment)).num_passed == 1;
    }
    if all_passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn trials(environment: &Environment) -> Vec<Trial> {
    let tests = tests::all().into_iter().map(|test| {
        let environment = environment.clone();
        Trial::test(test.name, move || {
            test.run(environment)
                .map_err(|err| format!("{err:#}").into())
        })
    });
    tests.collect()
}
