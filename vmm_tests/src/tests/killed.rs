//! openvmm is killed while its guest hibernates and wakes, under firmware that changes at every start. A guest that was
//! promised its session finds the firmware of that session.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;
use vmm_tests::Dice;
use vmm_tests::Exit;
use vmm_tests::HibernationStatus;
use vmm_tests::KilledSession;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;
use vmm_tests::payload;
use vmm_tests::payload::RomSize;

/// How often openvmm is killed.
const POINTS: u32 = 50;

/// What happens to openvmm, in order, while its guest hibernates.
const WHILE_HIBERNATING: [&str; 2] = ["hibernation_token_written", "halted"];
/// And when it is started, up to where the guest runs.
const WHILE_STARTING: [&str; 4] = [
    "created",
    "hibernation_restored",
    "started",
    "first_instruction",
];

/// What the guest is between two starts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Guest {
    /// Nothing: it was off, or crashed.
    Off,
    /// Asleep on firmware with this digest.
    Hibernated(String),
}

/// When openvmm is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// This long after the guest, or openvmm, was told to do something.
    After(Duration),
    /// When this has happened.
    Event(&'static str),
}

impl Moment {
    fn wait(self, vm: &Vm) -> anyhow::Result<()> {
        match self {
            Self::After(time) => thread::sleep(time),
            Self::Event(name) => drop(vm.wait_for_event(name, 1)?),
        }
        Ok(())
    }
}

/// One of these events, or a time that is mostly within `usual`.
fn moment(dice: &mut Dice, events: &[&'static str], usual: Duration) -> Moment {
    match events.get(dice.throw(3 * events.len() as u64) as usize) {
        Some(event) => Moment::Event(event),
        None => Moment::After(dice.time(usual)),
    }
}

/// A machine whose host has other firmware at each start.
struct Machine<'a> {
    context: &'a Context,
    dir: TempDir,
    starts: u16,
    guest: Guest,
}

impl<'a> Machine<'a> {
    fn new(context: &'a Context) -> anyhow::Result<Self> {
        Ok(Self {
            context,
            dir: tempfile::Builder::new()
                .prefix("vmm-tests-killed-")
                .tempdir()?,
            starts: 0,
            guest: Guest::Off,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts openvmm on new firmware. Returns what its digest is.
    fn start(&mut self) -> anyhow::Result<(Vm, String)> {
        self.starts += 1;
        let size = if self.starts.is_multiple_of(3) {
            RomSize::Large
        } else {
            RomSize::Small
        };
        let rom = payload::rom(self.starts, size);
        let path = self.file("rom");
        std::fs::write(&path, &rom)?;
        let vm = VmBuilder::new(&self.context.environment, self.context.limit)
            .arg("--uefi-firmware")
            .arg(&path)
            .arg("--vmgs")
            .arg(self.file("vmgs"))
            .args(["--hibernation", "on"])
            .memory("64M")
            .start()?;
        Ok((vm, payload::rom_digest(&rom)))
    }

    /// Waits for the firmware to say which it is, and checks that it is the right one. Returns its digest.
    fn expect_firmware(&self, vm: &mut Vm, host: String) -> anyhow::Result<String> {
        let expected = match &self.guest {
            Guest::Off => host,
            Guest::Hibernated(digest) => digest.clone(),
        };
        let banner = vm.wait_for_output(payload::BANNER)?;
        let running = banner.split_whitespace().next_back().unwrap_or_default();
        ensure!(
            running == expected,
            "{}",
            vm.failure(&format!(
                "the firmware is {running} instead of {expected}; the guest: {:?}",
                self.guest
            ))
        );
        Ok(expected)
    }

    /// Starts openvmm, and has the guest run: awake, if it slept. Returns its firmware's digest.
    fn awake(&mut self) -> anyhow::Result<(Vm, String)> {
        let (mut vm, host) = self.start()?;
        let running = self.expect_firmware(&mut vm, host)?;
        if self.guest != Guest::Off {
            vm.type_line(payload::WAKE)?;
            vm.wait_for_output(payload::AWAKE)?;
            vm.wait_for_event("hibernation_consumed", 1)?;
        }
        self.guest = Guest::Off;
        Ok((vm, running))
    }

    /// Has the guest hibernate, undisturbed, whatever it was.
    fn hibernate(&mut self) -> anyhow::Result<()> {
        let (mut vm, running) = self.awake()?;
        vm.type_line(payload::HIBERNATE)?;
        vm.expect_halt(Exit::Hibernated, "hibernate")?;
        self.guest = Guest::Hibernated(running);
        ensure!(self.will_resume()?, "hibernated, and will not resume");
        Ok(())
    }

    /// Whether the next start would resume the guest. Nothing else than that and a cold start is right.
    fn will_resume(&self) -> anyhow::Result<bool> {
        let status = HibernationStatus::of(&self.context.environment, &self.file("vmgs"))?;
        match status.next_start.as_str() {
            "resume" => Ok(true),
            "cold" => Ok(false),
            _ => anyhow::bail!("{status:?}"),
        }
    }

    /// Kills openvmm while the guest hibernates.
    fn killed_hibernating(&mut self, moment: Moment) -> anyhow::Result<()> {
        let (mut vm, running) = self.awake()?;
        vm.type_line(payload::HIBERNATE)?;
        moment.wait(&vm)?;
        let exit = vm.kill()?;
        let promised = exit == Exit::Hibernated
            || vm
                .events()
                .iter()
                .any(|event| WHILE_HIBERNATING.contains(&event.name.as_str()));
        let resumes = self.will_resume()?;
        ensure!(
            resumes || !promised,
            "{}",
            vm.failure("the session was promised and is lost")
        );
        if resumes {
            self.guest = Guest::Hibernated(running);
        }
        Ok(())
    }

    /// Kills openvmm while it starts, before the guest is awake.
    fn killed_starting(&mut self, moment: Moment) -> anyhow::Result<()> {
        let (vm, _) = self.start()?;
        moment.wait(&vm)?;
        vm.kill()?;
        let expected = self.guest != Guest::Off;
        ensure!(
            self.will_resume()? == expected,
            "{}",
            vm.failure(&format!("it was {:?}", self.guest))
        );
        Ok(())
    }

    /// Kills openvmm while the guest says that it is awake.
    fn killed_waking(&mut self, moment: Moment) -> anyhow::Result<()> {
        let (mut vm, host) = self.start()?;
        self.expect_firmware(&mut vm, host)?;
        vm.type_line(payload::WAKE)?;
        moment.wait(&vm)?;
        vm.kill()?;
        let consumed = vm
            .events()
            .iter()
            .any(|event| event.name == "hibernation_consumed");
        let resumes = self.will_resume()?;
        ensure!(
            !(consumed && resumes),
            "{}",
            vm.failure("the token is back")
        );
        if !resumes {
            self.guest = Guest::Off;
        }
        Ok(())
    }
}

/// How long it takes, undisturbed.
struct Usual {
    starting: Duration,
    waking: Duration,
    hibernating: Duration,
}

impl Usual {
    fn measure(machine: &mut Machine<'_>) -> anyhow::Result<Self> {
        machine.hibernate()?;
        let started = Instant::now();
        let (mut vm, host) = machine.start()?;
        let running = machine.expect_firmware(&mut vm, host)?;
        let starting = started.elapsed();
        let started = Instant::now();
        vm.type_line(payload::WAKE)?;
        vm.wait_for_event("hibernation_consumed", 1)?;
        let waking = started.elapsed();
        vm.wait_for_output(payload::AWAKE)?;
        let started = Instant::now();
        vm.type_line(payload::HIBERNATE)?;
        vm.expect_halt(Exit::Hibernated, "hibernate")?;
        machine.guest = Guest::Hibernated(running);
        Ok(Self {
            starting,
            waking,
            hibernating: started.elapsed(),
        })
    }
}

pub(super) fn while_hibernating_and_waking(context: &Context) -> anyhow::Result<()> {
    let mut dice = Dice::new();
    let mut machine = Machine::new(context)?;
    let usual = Usual::measure(&mut machine)?;
    for point in 0..POINTS {
        let told = match point % 4 {
            // From what the last point left: a cold start, or one that wakes.
            0 | 2 => {
                let moment = moment(&mut dice, &WHILE_HIBERNATING, usual.hibernating);
                let result = machine.killed_hibernating(moment);
                result.with_context(|| format!("killed hibernating, {moment:?}"))
            }
            1 => {
                if machine.guest == Guest::Off {
                    machine.hibernate()?;
                }
                let moment = moment(&mut dice, &WHILE_STARTING, usual.starting);
                let result = machine.killed_starting(moment);
                result.with_context(|| format!("killed starting, {moment:?}"))
            }
            _ => {
                if machine.guest == Guest::Off {
                    machine.hibernate()?;
                }
                let moment = moment(&mut dice, &["hibernation_consumed"], usual.waking);
                let result = machine.killed_waking(moment);
                result.with_context(|| format!("killed waking, {moment:?}"))
            }
        };
        told.with_context(|| format!("point {point} of {POINTS}"))?;
    }
    // And it still works.
    machine.hibernate()?;
    let (mut vm, _) = machine.awake()?;
    vm.type_line(payload::POWER_OFF)?;
    vm.expect_halt(Exit::PoweredOff, "power_off")?;
    ensure!(!machine.will_resume()?, "off, and would resume");
    let (mut vm, host) = machine.start()?;
    machine.expect_firmware(&mut vm, host)?;
    vm.type_line(payload::RESET)?;
    vm.wait_for_event("reset", 1)?;
    vm.wait_for_output(payload::BANNER)?;
    Ok(())
}

/// A cold start that is killed while it stores the firmware leaves nothing that keeps the next one from doing so.
pub(super) fn while_firmware_is_stored(context: &Context) -> anyhow::Result<()> {
    const POINTS: u32 = 10;
    let mut dice = Dice::new();
    let mut machine = Machine::new(context)?;
    let started = Instant::now();
    let (mut vm, host) = machine.start()?;
    machine.expect_firmware(&mut vm, host)?;
    let starting = started.elapsed();
    vm.kill()?;
    for point in 0..POINTS {
        let moment = Moment::After(dice.time(starting));
        machine
            .killed_starting(moment)
            .with_context(|| format!("killed starting, {moment:?}, point {point} of {POINTS}"))?;
    }
    machine.hibernate()?;
    let (vm, _) = machine.awake()?;
    vm.kill()?;
    Ok(())
}

/// Linux, behind firmware as it is shipped.
pub(super) fn stock_software(context: &Context) -> anyhow::Result<()> {
    const POINTS: u32 = 5;
    let mut session = KilledSession::new(&context.environment, context.limit)?;
    for point in 0..POINTS {
        session
            .kill(point)
            .with_context(|| format!("point {point} of {POINTS}"))?;
    }
    session.finish()
}
