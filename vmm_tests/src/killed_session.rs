//! Linux behind stock firmware, whose VMM is killed while it hibernates and wakes.

use crate::Dice;
use crate::Environment;
use crate::Exit;
use crate::HibernationStatus;
use crate::Session;
use crate::UefiMachine;
use crate::Vm;
use anyhow::ensure;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Room for what a guest of 512 MiB has in memory.
const SWAP: u64 = 1 << 30;

/// What the guest's init says before it lets the kernel read its image. The kernel marks the image as read before it
/// goes on from it, so a crash after this is one that the guest does not survive on any machine.
const READS_IMAGE: &str = "vmtest: resuming from";

/// The guest, as far as can be told while it does not run.
#[derive(Debug)]
enum Guest {
    /// No session was promised.
    Off,
    /// This session sleeps on this firmware, and was promised to come back.
    Hibernated(Session, String),
    /// It had begun to read its image. It may start anew, but on no other firmware.
    Waking(String),
}

/// A machine that has other firmware at each start.
#[derive(Debug)]
pub struct KilledSession {
    environment: Environment,
    machine: UefiMachine,
    guest: Guest,
    starts: u32,
    dice: Dice,
    /// How long it took to hibernate, from when the guest was told to.
    hibernating: Duration,
    /// How long it took from the start to where the guest reads its image.
    starting: Duration,
}

impl KilledSession {
    /// Nothing waits for longer than `limit` after a start.
    pub fn new(environment: &Environment, limit: Duration) -> anyhow::Result<Self> {
        let mut machine = UefiMachine::new(environment, limit)?;
        machine.add_empty_disk("SWAP", SWAP)?;
        machine.add_vmgs();
        Ok(Self {
            environment: environment.clone(),
            machine,
            guest: Guest::Off,
            starts: 0,
            dice: Dice::new(),
            hibernating: Duration::ZERO,
            starting: Duration::ZERO,
        })
    }

    /// Kills openvmm once: at every other call while it hibernates, and while it wakes. Returns what it was like.
    pub fn kill(&mut self, point: u32) -> anyhow::Result<String> {
        if self.starts == 0 {
            // To know how long it takes.
            self.hibernate()?;
        }
        if point.is_multiple_of(2) {
            self.kill_waking()
        } else {
            self.kill_hibernating()
        }
    }

    /// Has the guest run again, and power off.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let (mut vm, _, _) = self.awake()?;
        vm.type_line("poweroff")?;
        vm.expect_halt(Exit::PoweredOff, "power_off")?;
        ensure!(self.next_start()? == "cold", "off, and would resume");
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<Vm> {
        let firmware = if self.starts.is_multiple_of(2) {
            &self.environment.ovmf_4m
        } else {
            &self.environment.ovmf_2m
        };
        self.starts += 1;
        self.machine.update_firmware(firmware)?;
        self.machine.linux("").args(["--hibernation", "on"]).start()
    }

    /// Starts the guest. Returns its session, which is the promised one if there is one, and its firmware.
    fn awake(&mut self) -> anyhow::Result<(Vm, Session, String)> {
        let started = Instant::now();
        let mut vm = self.start()?;
        let event = match &self.guest {
            Guest::Off => "hibernation_captured",
            Guest::Hibernated(..) | Guest::Waking(_) => "hibernation_restored",
        };
        let event = vm.wait_for_event(event, 1)?;
        let running = event.text("image_digest").unwrap_or_default().to_owned();
        if let Guest::Hibernated(_, firmware) | Guest::Waking(firmware) = &self.guest {
            ensure!(running == *firmware, "{running} was restored");
        }
        let session = match &self.guest {
            Guest::Hibernated(session, _) => {
                vm.wait_for_guest("resuming from")?;
                self.starting = started.elapsed();
                session.resumed(&mut vm)?
            }
            // Nothing was promised, but where the image is whole and the firmware the same the session may be back.
            Guest::Off | Guest::Waking(_) => match vm.wait_for_any(&["resumed", "ready"])? {
                ("resumed", _) => Session::read(&mut vm)?,
                _ => Session::ask(&mut vm)?,
            },
        };
        self.guest = Guest::Off;
        Ok((vm, session, running))
    }

    fn hibernate(&mut self) -> anyhow::Result<()> {
        let (mut vm, session, firmware) = self.awake()?;
        let told = Instant::now();
        Session::hibernate(&mut vm)?;
        self.hibernating = told.elapsed();
        ensure!(
            self.next_start()? == "resume",
            "hibernated, and will not resume"
        );
        self.guest = Guest::Hibernated(session, firmware);
        Ok(())
    }

    fn next_start(&self) -> anyhow::Result<String> {
        Ok(HibernationStatus::of(&self.environment, &self.machine.vmgs())?.next_start)
    }

    fn kill_hibernating(&mut self) -> anyhow::Result<String> {
        let (mut vm, session, firmware) = self.awake()?;
        let moment = self.dice.time(self.hibernating);
        vm.type_line("hibernate")?;
        thread::sleep(moment);
        let exit = vm.kill()?;
        let promised = exit == Exit::Hibernated
            || vm
                .events()
                .iter()
                .any(|event| event.name == "hibernation_token_written");
        let resumes = self.next_start()? == "resume";
        ensure!(
            resumes || !promised,
            "{}",
            vm.failure("the session was promised and is lost")
        );
        if resumes {
            self.guest = Guest::Hibernated(session, firmware);
        }
        Ok(format!(
            "{:.1} s after it was told to hibernate: {}",
            moment.as_secs_f64(),
            if resumes { "asleep" } else { "not yet asleep" }
        ))
    }

    fn kill_waking(&mut self) -> anyhow::Result<String> {
        if !matches!(self.guest, Guest::Hibernated(..)) {
            self.hibernate()?;
        }
        // The first time it is not known.
        let usual = self.starting.max(Duration::from_secs(2));
        let moment = self.dice.time(usual);
        let vm = self.start()?;
        thread::sleep(moment);
        vm.kill()?;
        let read = String::from_utf8_lossy(&vm.output()).contains(READS_IMAGE);
        let consumed = vm
            .events()
            .iter()
            .any(|event| event.name == "hibernation_consumed");
        let resumes = self.next_start()? == "resume";
        ensure!(
            resumes || read,
            "{}",
            vm.failure("the token is gone, and the guest had not woken")
        );
        ensure!(
            !(resumes && consumed),
            "{}",
            vm.failure("the token is back")
        );
        let guest = std::mem::replace(&mut self.guest, Guest::Off);
        self.guest = match guest {
            Guest::Hibernated(_, firmware) if read && resumes => Guest::Waking(firmware),
            guest if resumes => guest,
            _ => Guest::Off,
        };
        Ok(format!(
            "{:.1} s after its start: {}",
            moment.as_secs_f64(),
            match self.guest {
                Guest::Off => "awake",
                Guest::Hibernated(..) => "still asleep",
                Guest::Waking(_) => "had begun to read its image",
            }
        ))
    }
}
