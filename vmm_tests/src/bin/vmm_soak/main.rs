//! Long tests: a scenario that is repeated until a guest hangs, or a guest that prints for many minutes. `cargo xtask soak`
//! builds it and runs it on a machine with KVM.
#![forbid(unsafe_code)]

use anyhow::Context;
use anyhow::ensure;
use clap::Parser;
use clap::Subcommand;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;
use vmm_tests::Environment;
use vmm_tests::GuestSession;
use vmm_tests::KilledSession;
use vmm_tests::UefiMachine;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;
use vmm_tests::bare_flood;

/// The time limit for each openvmm, on a real and on an emulated machine. A guest that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);
const EMULATED_LIMIT: Duration = Duration::from_secs(300);

/// The time limit for openvmm to print its state when the guest hangs.
const INSPECT_LIMIT: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct VmmSoakArgs {
    #[command(subcommand)]
    kind: Soak,
}

#[derive(Subcommand)]
enum Soak {
    /// Firmware and a kernel boot, and the guest powers off.
    UefiBoot { count: u32 },
    /// A session hibernates and resumes COUNT times; the host's firmware changes each time.
    Hibernate { count: u32 },
    /// The same, but openvmm is killed each time.
    Killed { count: u32 },
    /// A guest prints MIB MiB, and every byte is checked.
    Flood { mib: u32 },
}

fn main() -> ExitCode {
    let result = Environment::from_env().and_then(|environment| match VmmSoakArgs::parse().kind {
        Soak::UefiBoot { count } => uefi_boot(&environment, count),
        Soak::Hibernate { count } => hibernate(&environment, count),
        Soak::Killed { count } => killed(&environment, count),
        Soak::Flood { mib } => flood(&environment, mib),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            println!("soak: stopped: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn limit(environment: &Environment) -> Duration {
    if environment.emulated {
        EMULATED_LIMIT
    } else {
        LIMIT
    }
}

fn uefi_boot(environment: &Environment, count: u32) -> anyhow::Result<()> {
    let machine = UefiMachine::new(environment, limit(environment))?;
    let builder = machine.linux("").args(["-p", "2"]);
    for number in 1..=count {
        let started = Instant::now();
        let mut ready = Duration::ZERO;
        run_vm(&builder, |vm| {
            vm.wait_for_guest("ready")?;
            ready = started.elapsed();
            vm.power_off()
        })
        .with_context(|| format!("boot {number} of {count}"))?;
        println!(
            "soak: boot {number} of {count}: ready after {:.1} s, off after {:.1} s",
            ready.as_secs_f64(),
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn hibernate(environment: &Environment, count: u32) -> anyhow::Result<()> {
    let mut machine = UefiMachine::new(environment, limit(environment))?;
    machine.add_swap_disk()?;
    machine.add_vmgs();
    let mut session = None;
    for number in 0..=count {
        machine.update_firmware(if number.is_multiple_of(2) {
            &environment.ovmf_4m
        } else {
            &environment.ovmf_2m
        })?;
        let builder = machine.hibernating().args(["-p", "2"]);
        let started = Instant::now();
        let mut resumed = Duration::ZERO;
        run_vm(&builder, |vm| {
            session = Some(match &session {
                None => {
                    vm.wait_for_guest("ready")?;
                    let created = vm.ask("efivar create kept one", "efivar create ")?;
                    ensure!(created == "0", "creating a variable: {created}");
                    GuestSession::ask(vm)?
                }
                Some(session) => {
                    let session = GuestSession::resumed(session, vm)?;
                    let kept = vm.ask("efivar get kept", "efivar kept ")?;
                    ensure!(kept == "one", "the variable {kept}");
                    session
                }
            });
            resumed = started.elapsed();
            if number == count {
                vm.power_off()
            } else {
                GuestSession::hibernate(vm)
            }
        })
        .with_context(|| format!("after {number} of {count} hibernations"))?;
        println!(
            "soak: hibernation {number} of {count}: resumed after {:.1} s, ended after {:.1} s",
            resumed.as_secs_f64(),
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn killed(environment: &Environment, count: u32) -> anyhow::Result<()> {
    let mut session = KilledSession::new(environment, limit(environment))?;
    for number in 1..=count {
        let started = Instant::now();
        let killed = session
            .kill(number)
            .with_context(|| format!("kill {number} of {count}"))?;
        println!(
            "soak: kill {number} of {count}: {killed}, all in {:.1} s",
            started.elapsed().as_secs_f64()
        );
    }
    session.finish()
}

fn flood(environment: &Environment, mib: u32) -> anyhow::Result<()> {
    let started = Instant::now();
    let openvmm = VmBuilder::new(environment, limit(environment).saturating_mul(mib));
    bare_flood(openvmm, usize::try_from(mib)? << 20)?;
    let seconds = started.elapsed().as_secs_f64();
    println!("soak: all bytes of {mib} MiB arrived, in {seconds:.0} s");
    Ok(())
}

/// Runs openvmm once. If `scenario` fails, the error includes openvmm's state.
fn run_vm(
    builder: &VmBuilder,
    scenario: impl FnOnce(&mut Vm) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut vm = builder.start()?;
    scenario(&mut vm).map_err(|err| {
        let state = vm
            .inspect(INSPECT_LIMIT)
            .unwrap_or_else(|err| format!("not available: {err:#}"));
        err.context(format!("openvmm's state: {state}"))
    })
}
