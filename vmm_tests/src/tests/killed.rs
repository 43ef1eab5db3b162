//! openvmm is killed while its guest hibernates and wakes up, with other firmware at every start. A guest whose session
//! must be resumed gets the firmware of that session.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;
use vmm_tests::HibernationStatus;
use vmm_tests::KilledSession;
use vmm_tests::OpenvmmExit;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;
use vmm_tests::payload;
use vmm_tests::payload::RomSize;
use vmm_tests::random_time;

/// How many times openvmm is killed.
const POINTS: u32 = 50;

/// The events while a guest hibernates, in order.
const WHILE_HIBERNATING: [&str; 2] = ["hibernation_token_written", "halted"];
/// The events of a start, until the guest runs, in order.
const WHILE_STARTING: [&str; 4] = [
    "created",
    "hibernation_restored",
    "started",
    "first_instruction",
];

/// The guest's state between two starts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RomGuest {
    /// It was off, or crashed.
    Off,
    /// It hibernated on firmware with this digest.
    Hibernated(String),
}

/// When openvmm is killed.
#[derive(Debug, Clone, Copy)]
enum KillPoint {
    /// This long after the command or the start.
    After(Duration),
    /// At this event.
    Event(&'static str),
}

impl KillPoint {
    fn wait(self, vm: &Vm) -> anyhow::Result<()> {
        match self {
            Self::After(time) => thread::sleep(time),
            Self::Event(name) => drop(vm.wait_for_event(name, 1)?),
        }
        Ok(())
    }
}

/// Picks one of these events, or a time of up to a little more than `usual`.
fn kill_point(events: &[&'static str], usual: Duration) -> KillPoint {
    match events.get(fastrand::usize(..3 * events.len())) {
        Some(event) => KillPoint::Event(event),
        None => KillPoint::After(random_time(usual)),
    }
}

/// A machine whose host changes the firmware before each start.
struct KilledMachine<'a> {
    context: &'a Context,
    dir: TempDir,
    starts: u16,
    guest: RomGuest,
}

impl<'a> KilledMachine<'a> {
    fn new(context: &'a Context) -> anyhow::Result<Self> {
        Ok(Self {
            context,
            dir: tempfile::Builder::new()
                .prefix("vmm-tests-killed-")
                .tempdir()?,
            starts: 0,
            guest: RomGuest::Off,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts openvmm with new firmware. Returns the firmware's digest too.
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

    /// Waits for the firmware's banner, and checks that it is the expected firmware. Returns its digest.
    fn expect_firmware(&self, vm: &mut Vm, host: String) -> anyhow::Result<String> {
        let expected = match &self.guest {
            RomGuest::Off => host,
            RomGuest::Hibernated(digest) => digest.clone(),
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

    /// Starts openvmm and has the guest run; wakes it up if it hibernated. Returns its firmware's digest too.
    fn awake(&mut self) -> anyhow::Result<(Vm, String)> {
        let (mut vm, host) = self.start()?;
        let running = self.expect_firmware(&mut vm, host)?;
        if self.guest != RomGuest::Off {
            vm.type_line(payload::WAKE)?;
            vm.wait_for_output(payload::AWAKE)?;
            vm.wait_for_event("hibernation_consumed", 1)?;
        }
        self.guest = RomGuest::Off;
        Ok((vm, running))
    }

    /// Starts the guest and has it hibernate, without killing openvmm.
    fn hibernate(&mut self) -> anyhow::Result<()> {
        let (mut vm, running) = self.awake()?;
        vm.type_line(payload::HIBERNATE)?;
        vm.expect_halt(OpenvmmExit::Hibernated, "hibernate")?;
        self.guest = RomGuest::Hibernated(running);
        ensure!(
            self.will_resume()?,
            "the guest hibernated, but the next start would not resume"
        );
        Ok(())
    }

    /// Whether the next start would resume the guest. Fails if it would be neither that nor a cold start.
    fn will_resume(&self) -> anyhow::Result<bool> {
        let status = HibernationStatus::of(&self.context.environment, &self.file("vmgs"))?;
        match status.next_start.as_str() {
            "resume" => Ok(true),
            "cold" => Ok(false),
            _ => anyhow::bail!("{status:?}"),
        }
    }

    /// Kills openvmm while the guest hibernates.
    fn killed_hibernating(&mut self, moment: KillPoint) -> anyhow::Result<()> {
        let (mut vm, running) = self.awake()?;
        vm.type_line(payload::HIBERNATE)?;
        moment.wait(&vm)?;
        let exit = vm.kill()?;
        let promised = exit == OpenvmmExit::Hibernated
            || vm
                .events()
                .iter()
                .any(|event| WHILE_HIBERNATING.contains(&event.name.as_str()));
        let resumes = self.will_resume()?;
        ensure!(
            resumes || !promised,
            "{}",
            vm.failure("the session must be resumed, but is lost")
        );
        if resumes {
            self.guest = RomGuest::Hibernated(running);
        }
        Ok(())
    }

    /// Kills openvmm while it starts, before the guest wakes up.
    fn killed_starting(&mut self, moment: KillPoint) -> anyhow::Result<()> {
        let (vm, _) = self.start()?;
        moment.wait(&vm)?;
        vm.kill()?;
        let expected = self.guest != RomGuest::Off;
        ensure!(
            self.will_resume()? == expected,
            "{}",
            vm.failure(&format!("the next start is wrong for {:?}", self.guest))
        );
        Ok(())
    }

    /// Kills openvmm while the guest wakes up.
    fn killed_waking(&mut self, moment: KillPoint) -> anyhow::Result<()> {
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
            self.guest = RomGuest::Off;
        }
        Ok(())
    }
}

/// How long it takes without being killed.
struct UsualTimes {
    starting: Duration,
    waking: Duration,
    hibernating: Duration,
}

impl UsualTimes {
    fn measure(machine: &mut KilledMachine<'_>) -> anyhow::Result<Self> {
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
        vm.expect_halt(OpenvmmExit::Hibernated, "hibernate")?;
        machine.guest = RomGuest::Hibernated(running);
        Ok(Self {
            starting,
            waking,
            hibernating: started.elapsed(),
        })
    }
}

pub(super) fn while_hibernating_and_waking(context: &Context) -> anyhow::Result<()> {
    let mut machine = KilledMachine::new(context)?;
    let usual = UsualTimes::measure(&mut machine)?;
    for point in 0..POINTS {
        let result = match point % 4 {
            // Whatever the last point left: a cold start or a resume.
            0 | 2 => {
                let moment = kill_point(&WHILE_HIBERNATING, usual.hibernating);
                let result = machine.killed_hibernating(moment);
                result.with_context(|| format!("killed hibernating, {moment:?}"))
            }
            1 => {
                if machine.guest == RomGuest::Off {
                    machine.hibernate()?;
                }
                let moment = kill_point(&WHILE_STARTING, usual.starting);
                let result = machine.killed_starting(moment);
                result.with_context(|| format!("killed starting, {moment:?}"))
            }
            _ => {
                if machine.guest == RomGuest::Off {
                    machine.hibernate()?;
                }
                let moment = kill_point(&["hibernation_consumed"], usual.waking);
                let result = machine.killed_waking(moment);
                result.with_context(|| format!("killed waking, {moment:?}"))
            }
        };
        result.with_context(|| format!("point {point} of {POINTS}"))?;
    }
    // The machine still works.
    machine.hibernate()?;
    let (mut vm, _) = machine.awake()?;
    vm.type_line(payload::POWER_OFF)?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;
    ensure!(
        !machine.will_resume()?,
        "the guest is off, but the next start would resume"
    );
    let (mut vm, host) = machine.start()?;
    machine.expect_firmware(&mut vm, host)?;
    vm.type_line(payload::RESET)?;
    vm.wait_for_event("reset", 1)?;
    vm.wait_for_output(payload::BANNER)?;
    Ok(())
}

/// Killing openvmm while a cold start stores the firmware does not keep the next start from storing it.
pub(super) fn while_firmware_is_stored(context: &Context) -> anyhow::Result<()> {
    const POINTS: u32 = 10;
    let mut machine = KilledMachine::new(context)?;
    let started = Instant::now();
    let (mut vm, host) = machine.start()?;
    machine.expect_firmware(&mut vm, host)?;
    let starting = started.elapsed();
    vm.kill()?;
    for point in 0..POINTS {
        let moment = KillPoint::After(random_time(starting));
        machine
            .killed_starting(moment)
            .with_context(|| format!("killed starting, {moment:?}, point {point} of {POINTS}"))?;
    }
    machine.hibernate()?;
    let (vm, _) = machine.awake()?;
    vm.kill()?;
    Ok(())
}

/// The same with Linux on stock firmware.
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
