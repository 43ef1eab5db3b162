//! A Linux guest on stock firmware, whose VMM is killed while the guest hibernates and resumes.

use crate::DiskFile;
use crate::Environment;
use crate::GuestSession;
use crate::HibernationStatus;
use crate::OpenvmmExit;
use crate::UefiMachine;
use crate::Vm;
use anyhow::Context;
use anyhow::ensure;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// What Linux has at the end of the first page of swap space with a hibernation image, and where. It puts the signature of
/// usual swap space there before it reads the image, so a crash after this loses the session on any machine.
const IMAGE_SIGNATURE: &[u8; 9] = b"S1SUSPEND";
const SIGNATURE_AT: u64 = 4096 - 10;

/// What is known of the guest while it does not run.
#[derive(Debug)]
enum LinuxGuest {
    /// It has no session that must be resumed.
    Off,
    /// This session hibernated on this firmware and must be resumed.
    Hibernated(GuestSession, String),
    /// It had begun to read its image. It may boot again, but only on this firmware.
    Waking(String),
}

/// A machine whose host changes the firmware before each start.
#[derive(Debug)]
pub struct KilledSession {
    environment: Environment,
    machine: UefiMachine,
    swap: DiskFile,
    guest: LinuxGuest,
    starts: u32,
    /// How long hibernating took, from the command on.
    hibernating: Duration,
    /// How long it took from the start until the guest reads its image.
    starting: Duration,
}

impl KilledSession {
    /// All waits end `limit` after a start at the latest.
    pub fn new(environment: &Environment, limit: Duration) -> anyhow::Result<Self> {
        let mut machine = UefiMachine::new(environment, limit)?;
        let swap = machine.add_swap_disk()?;
        machine.add_vmgs();
        Ok(Self {
            environment: environment.clone(),
            machine,
            swap,
            guest: LinuxGuest::Off,
            starts: 0,
            hibernating: Duration::ZERO,
            starting: Duration::ZERO,
        })
    }

    /// Kills openvmm once: while the guest resumes if `point` is even, else while it hibernates. Returns a description.
    pub fn kill(&mut self, point: u32) -> anyhow::Result<String> {
        if self.starts == 0 {
            // To measure how long it takes.
            self.hibernate()?;
        }
        if point.is_multiple_of(2) {
            self.kill_waking()
        } else {
            self.kill_hibernating()
        }
    }

    /// Has the guest run and power off.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let (mut vm, _, _) = self.awake()?;
        vm.power_off()?;
        // A guest that was booted anew, because it was killed before its image was complete, is not known to be off.
        let kept = vm
            .events()
            .iter()
            .any(|event| event.name == "hibernation_token_kept");
        ensure!(
            kept || self.next_start()? == "cold",
            "the guest is off, but the next start would resume"
        );
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
        self.machine.hibernating().start()
    }

    /// Starts the guest. Returns its session, checked to be the one that must be resumed, and its firmware.
    fn awake(&mut self) -> anyhow::Result<(Vm, GuestSession, String)> {
        let started = Instant::now();
        let mut vm = self.start()?;
        let event = match &self.guest {
            LinuxGuest::Off => "hibernation_captured",
            LinuxGuest::Hibernated(..) | LinuxGuest::Waking(_) => "hibernation_restored",
        };
        let event = vm.wait_for_event(event, 1)?;
        let running = event.text("image_digest").unwrap_or_default().to_owned();
        if let LinuxGuest::Hibernated(_, firmware) | LinuxGuest::Waking(firmware) = &self.guest {
            ensure!(running == *firmware, "{running} was restored");
        }
        let session = match &self.guest {
            LinuxGuest::Hibernated(session, _) => {
                vm.wait_for_guest("resuming from")?;
                self.starting = started.elapsed();
                session.resumed(&mut vm)?
            }
            // The session may still be resumed, if the image is complete and the firmware is the same.
            LinuxGuest::Off | LinuxGuest::Waking(_) => {
                match vm.wait_for_any(&["resumed", "ready"])? {
                    ("resumed", _) => GuestSession::read(&mut vm)?,
                    _ => GuestSession::ask(&mut vm)?,
                }
            }
        };
        self.guest = LinuxGuest::Off;
        Ok((vm, session, running))
    }

    fn hibernate(&mut self) -> anyhow::Result<()> {
        let (mut vm, session, firmware) = self.awake()?;
        let told = Instant::now();
        GuestSession::hibernate(&mut vm)?;
        self.hibernating = told.elapsed();
        ensure!(
            self.next_start()? == "resume",
            "the guest hibernated, but the next start would not resume"
        );
        self.guest = LinuxGuest::Hibernated(session, firmware);
        Ok(())
    }

    fn next_start(&self) -> anyhow::Result<String> {
        Ok(HibernationStatus::of(&self.environment, &self.machine.vmgs())?.next_start)
    }

    fn kill_hibernating(&mut self) -> anyhow::Result<String> {
        let (mut vm, session, firmware) = self.awake()?;
        let moment = random_time(self.hibernating);
        vm.type_line("hibernate")?;
        thread::sleep(moment);
        let exit = vm.kill()?;
        let promised = exit == OpenvmmExit::Hibernated
            || vm
                .events()
                .iter()
                .any(|event| event.name == "hibernation_token_written");
        let resumes = self.next_start()? == "resume";
        let image = has_image(self.swap.path())?;
        ensure!(
            !promised || (resumes && image),
            "{}",
            vm.failure("the session must be resumed, but is lost")
        );
        self.guest = match (resumes, image) {
            (true, true) => LinuxGuest::Hibernated(session, firmware),
            // The token is of an earlier session, whose image was lost.
            (true, false) => LinuxGuest::Waking(firmware),
            (false, _) => LinuxGuest::Off,
        };
        Ok(format!(
            "{:.1} s after the command to hibernate: {}",
            moment.as_secs_f64(),
            match self.guest {
                LinuxGuest::Hibernated(..) => "hibernated",
                LinuxGuest::Waking(_) | LinuxGuest::Off => "not hibernated",
            }
        ))
    }

    fn kill_waking(&mut self) -> anyhow::Result<String> {
        if !matches!(self.guest, LinuxGuest::Hibernated(..)) {
            self.hibernate()?;
        }
        // The first time, the usual time is not known.
        let usual = self.starting.max(Duration::from_secs(2));
        let moment = random_time(usual);
        let vm = self.start()?;
        thread::sleep(moment);
        vm.kill()?;
        // What the guest printed last may have been lost with openvmm; what it wrote to its disk is not.
        let image = has_image(self.swap.path())?;
        let consumed = vm
            .events()
            .iter()
            .any(|event| event.name == "hibernation_consumed");
        let resumes = self.next_start()? == "resume";
        ensure!(
            resumes || !image,
            "{}",
            vm.failure("the token is gone, but the guest had not resumed")
        );
        ensure!(
            !(resumes && consumed),
            "{}",
            vm.failure("the token is back")
        );
        let guest = std::mem::replace(&mut self.guest, LinuxGuest::Off);
        self.guest = match guest {
            LinuxGuest::Hibernated(_, firmware) if resumes && !image => {
                LinuxGuest::Waking(firmware)
            }
            guest if resumes => guest,
            _ => LinuxGuest::Off,
        };
        Ok(format!(
            "{:.1} s after its start: {}",
            moment.as_secs_f64(),
            match self.guest {
                LinuxGuest::Off => "resumed",
                LinuxGuest::Hibernated(..) => "still hibernated",
                LinuxGuest::Waking(_) => "had begun to read its image",
            }
        ))
    }
}

/// Whether the swap space in this file has an image that no kernel has begun to read.
fn has_image(swap: &Path) -> anyhow::Result<bool> {
    let mut signature = [0; IMAGE_SIGNATURE.len()];
    File::open(swap)
        .and_then(|file| file.read_exact_at(&mut signature, SIGNATURE_AT))
        .with_context(|| format!("cannot read {}", swap.display()))?;
    Ok(signature == *IMAGE_SIGNATURE)
}

/// A random time, of up to a little more than `usual`.
pub fn random_time(usual: Duration) -> Duration {
    let most = (usual + usual / 8).as_micros() as u64;
    Duration::from_micros(fastrand::u64(..most.max(1)))
}
