//! What takes long: a story repeated until it has been told often enough or a guest hangs, or a guest that prints for
//! many minutes. `cargo xtask soak` builds it and runs it where there is a KVM.
#![forbid(unsafe_code)]

use anyhow::Context;
use anyhow::ensure;
use clap::Parser;
use clap::Subcommand;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;
use vmm_tests::Environment;
use vmm_tests::Exit;
use vmm_tests::KilledSession;
use vmm_tests::Session;
use vmm_tests::UefiMachine;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;
use vmm_tests::bare_flood;

/// How long a guest may take from its start to its end before it counts as hanging, where guests run at full speed, and
/// where the machine is emulated.
const LIMIT: Duration = Duration::from_secs(120);
const EMULATED_LIMIT: Duration = Duration::from_secs(300);

/// How long openvmm may take to tell its state once the guest hangs.
const INSPECT_LIMIT: Duration = Duration::from_secs(30);

/// Room for what the guest has in memory.
const SWAP: u64 = 1 << 30;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    story: Story,
}

#[derive(Subcommand)]
enum Story {
    /// Firmware and a kernel boot, and the guest powers off.
    UefiBoot { count: u32 },
    /// A session hibernates and resumes, again and again, and the host's firmware changes each time.
    Hibernate { count: u32 },
    /// The same, and openvmm is killed each time.
    Killed { count: u32 },
    /// A guest prints so many MiB, and none of it gets lost.
    Flood { mib: u32 },
}

fn main() -> ExitCode {
    let result = Environment::from_env().and_then(|environment| match Args::parse().story {
        Story::UefiBoot { count } => uefi_boot(&environment, count),
        Story::Hibernate { count } => hibernate(&environment, count),
        Story::Killed { count } => killed(&environment, count),
        Story::Flood { mib } => flood(&environment, mib),
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
        live(&builder, |vm| {
            vm.wait_for_guest("ready")?;
            ready = started.elapsed();
            vm.type_line("poweroff")?;
            vm.expect_halt(Exit::PoweredOff, "power_off")
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
    machine.add_empty_disk("SWAP", SWAP)?;
    machine.add_vmgs();
    let mut session = None;
    for number in 0..=count {
        machine.update_firmware(if number.is_multiple_of(2) {
            &environment.ovmf_4m
        } else {
            &environment.ovmf_2m
        })?;
        let builder = machine.linux("").args(["-p", "2", "--hibernation", "on"]);
        let started = Instant::now();
        let mut resumed = Duration::ZERO;
        live(&builder, |vm| {
            session = Some(match &session {
                None => {
                    vm.wait_for_guest("ready")?;
                    let created = vm.ask("efivar create kept one", "efivar create ")?;
                    ensure!(created == "0", "creating a variable: {created}");
                    Session::ask(vm)?
                }
                Some(session) => {
                    let session = Session::resumed(session, vm)?;
                    let kept = vm.ask("efivar get kept", "efivar kept ")?;
                    ensure!(kept == "one", "the variable {kept}");
                    session
                }
            });
            resumed = started.elapsed();
            if number == count {
                vm.type_line("poweroff")?;
                vm.expect_halt(Exit::PoweredOff, "power_off")
            } else {
                Session::hibernate(vm)
            }
        })
        .with_context(|| format!("after {number} of {count} hibernations"))?;
        println!(
            "soak: hibernation {number} of {count}: awake after {:.1} s, ended after {:.1} s",
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

/// One life of openvmm. If it does not go as expected, what openvmm tells of its state is part of the evidence.
fn live(
    builder: &VmBuilder,
    story: impl FnOnce(&mut Vm) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut vm = builder.start()?;
    story(&mut vm).map_err(|err| {
        let state = vm
            .inspect(INSPECT_LIMIT)
            .unwrap_or_else(|err| format!("not to be had: {err:#}"));
        err.context(format!("openvmm's state: {state}"))
    })
}
