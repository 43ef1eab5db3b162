//! A VM's life with the power failing at every write and every flush of its store.
//!
//! The guest's disk is simulated beside the store: it either has a hibernation image, which expects the
//! firmware it was made under, or it has none. After every cut, for everything the store's medium may then
//! hold, the VM is started on a host whose firmware is another. Then
//!
//! - the store opens, and it never promises firmware that it does not have;
//! - a guest that has an image finds the firmware that the image expects, and the tables.
//!
//! A guest that does not announce that it hibernates (ACPI's `_PTS`) has a window in which that does not hold: while the
//! token is being committed. It is one commit long, and closes before `hibernate` returns.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use firmware_hibernation::*;
use std::collections::BTreeSet;
use support::*;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Vmgs;
use vmgs::testing::FaultModel;
use vmgs::testing::RecordingDevice;

/// A step of the life, in which only the store's device can tell when the power failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The VMM opens the store and starts the VM, on a host with this firmware.
    Start(u8),
    /// The guest's operating system takes over, having used its image up.
    TakeOver,
    /// The guest announces that it will hibernate.
    Announce,
    /// The guest makes its image and hibernates.
    Hibernate,
    /// The guest powers off.
    PowerOff,
    /// The guest resets the machine.
    Reset,
    /// The machine resets without the guest's operating system having run.
    EarlyReset,
    /// A VP shuts down.
    Crash,
    /// The guest finds that it does not want its image any more.
    GiveUpImage,
}

use Step::Announce;
use Step::Crash;
use Step::EarlyReset;
use Step::GiveUpImage;
use Step::Hibernate;
use Step::PowerOff;
use Step::Reset;
use Step::Start;
use Step::TakeOver;

const LIFE: &[Step] = &[
    Start(1),
    Announce,
    Hibernate,
    // The host is updated, and the guest wakes.
    Start(2),
    TakeOver,
    // A chain: it is still the first firmware that is kept.
    Announce,
    Hibernate,
    Start(3),
    // The loader resets the machine before the guest has woken, and then a VP shuts down.
    EarlyReset,
    Start(4),
    Crash,
    Start(5),
    TakeOver,
    PowerOff,
    // Only now does the guest get the host's firmware.
    Start(6),
    Announce,
    Hibernate,
    Start(7),
    TakeOver,
    Reset,
    Start(7),
    Announce,
    Hibernate,
    // The guest begins to hibernate and goes down before it has an image.
    Start(8),
    TakeOver,
    Announce,
    Crash,
    Start(9),
    TakeOver,
    Announce,
    Hibernate,
    Start(9),
    // It cannot wake, boots anew, and is shut down: that does not show that it is past its image.
    GiveUpImage,
    PowerOff,
    Start(9),
    Announce,
    Hibernate,
    Start(9),
    TakeOver,
    PowerOff,
    Start(9),
    Crash,
    // Nothing has changed since.
    Start(9),
    PowerOff,
];

/// What the matrix saw.
#[derive(Default)]
struct Tally {
    contents: usize,
    windows: usize,
    /// Cuts at which the host's firmware ran although the guest's image expects another, by step.
    in_window: Vec<(usize, BTreeSet<usize>, usize)>,
}

struct World {
    device: RecordingDevice,
    sector: u32,
    setup: Setup,
    vm: Option<HibernationEngine>,
    /// The firmware that runs or ran last.
    running: u8,
    /// The firmware that the guest's image expects.
    image: Option<u8>,
    /// The store may have a token although there is no image.
    may_have_token: bool,
    /// The guest announced its hibernation.
    announced: bool,
}

impl World {
    fn new(sector: u32, blocks: usize, setup: Setup) -> Self {
        let device = RecordingDevice::new(sector, vec![0; blocks * 4096]);
        let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        if let Some(key) = setup.key {
            store.encrypt(&vmgs::Key::new([key; 32])).unwrap();
        }
        // Something else has to survive too.
        store
            .write(vmgs::FileId(1), vmgs::Protection::IfEncrypted, b"variables")
            .unwrap();
        Self {
            device,
            sector,
            setup,
            vm: None,
            running: 0,
            image: None,
            may_have_token: false,
            announced: false,
        }
    }

    fn vm(&mut self) -> &mut HibernationEngine {
        self.vm.as_mut().unwrap()
    }

    /// What the guest's disk is like while the step is under way, and the step itself.
    fn perform(&mut self, step: Step) {
        let setup = self.setup;
        match step {
            Start(host) => {
                let mut vm = vm(
                    open(self.device.clone(), setup.key),
                    setup,
                    &Heard::default(),
                );
                let ran = start(&mut vm, host).unwrap();
                self.running = match self.image {
                    Some(image) => {
                        assert_eq!(ran, Ran::restored(image));
                        image
                    }
                    None if self.may_have_token => {
                        assert_eq!(ran, Ran::restored(self.running));
                        self.running
                    }
                    None => {
                        assert_eq!(ran, Ran::Host);
                        host
                    }
                };
                self.vm = Some(vm);
            }
            TakeOver => take_over(self.vm(), setup),
            Announce => announce(self.vm()),
            Hibernate => self.vm().hibernate().unwrap(),
            PowerOff => self.vm().power_off(),
            Reset | EarlyReset => self.vm().reset(),
            Crash => self.vm().crash(),
            GiveUpImage => {}
        }
    }

    /// The VM is started on what the crash left, on a host with other firmware.
    fn check(&self, step: Step, cut: usize, returned: bool, content: Vec<u8>, place: &str) -> bool {
        let setup = self.setup;
        let device = MemoryDevice::with_bytes(self.sector, content);
        let mut store = open(device.clone(), setup.key);
        assert_eq!(
            store.read(vmgs::FileId(1)).unwrap(),
            b"variables",
            "{place}"
        );
        let status = status(
            &mut store,
            Some((Architecture::X86_64, &usual_machine())),
            None,
        );
        assert_eq!(status.refusal, None, "{place}: {}", status.reason);
        assert_eq!(status.stored_problem, None, "{place}");
        drop(store);

        let host = 99;
        let mut next = vm(open(device.clone(), setup.key), setup, &Heard::default());
        let ran = start(&mut next, host).unwrap_or_else(|error| panic!("{place}: {error}"));
        let in_window = match (self.image, &ran) {
            (Some(image), Ran::Restored(..)) => {
                assert_eq!(ran, Ran::restored(image), "{place}");
                false
            }
            // The window.
            (Some(_), Ran::Host) => {
                let hibernating = step == Hibernate && !returned && !self.announced;
                // What the policy to consume the token at the start accepts.
                let not_yet_taken_over =
                    setup.consume == ConsumePolicy::AtStart && matches!(step, Start(_));
                assert!(
                    hibernating || not_yet_taken_over,
                    "{place}: the session is lost"
                );
                hibernating
            }
            // Once more on the old firmware does no harm; it is what this VM ran.
            (None, Ran::Restored(..)) => {
                assert_eq!(ran, Ran::restored(self.running), "{place}");
                false
            }
            (None, Ran::Host) => false,
        };
        // Life goes on, and the next hibernation is kept just as well.
        let running = match ran {
            Ran::Host => host,
            Ran::Restored(..) => self.running,
        };
        take_over(&mut next, setup);
        hibernate(&mut next).unwrap();
        drop(next);
        if cut.is_multiple_of(3) {
            let mut last = vm(open(device, setup.key), setup, &Heard::default());
            let ran = start(&mut last, 100).unwrap();
            assert_eq!(ran, Ran::restored(running), "{place}, then hibernated");
        }
        in_window
    }
}

/// A life without accidents before the guest has woken.
const QUIET_LIFE: &[Step] = &[
    Start(1),
    Announce,
    Hibernate,
    Start(2),
    TakeOver,
    Announce,
    Hibernate,
    Start(3),
    TakeOver,
    PowerOff,
    Start(4),
    Announce,
    Hibernate,
    Start(5),
    TakeOver,
    Reset,
    Start(6),
];

/// Lives the life, and tries every crash in it.
fn live(life: &[Step], sector: u32, blocks: usize, setup: Setup) -> Tally {
    let mut world = World::new(sector, blocks, setup);
    let mut tally = Tally::default();
    for (n, step) in life.iter().copied().enumerate() {
        world.device.restart();
        // The guest's disk changes before the store does, so it is as it will be during the whole step.
        match step {
            Hibernate => world.image = Some(world.running),
            TakeOver => {
                world.image = None;
                world.may_have_token = false;
            }
            Announce | GiveUpImage => {
                world.image = None;
                world.may_have_token = true;
            }
            _ => {}
        }
        match step {
            Announce => world.announced = true,
            Start(_) => world.announced = false,
            _ => {}
        }
        world.perform(step);
        let total = world.device.operations().len();
        let mut window = BTreeSet::new();
        for model in FaultModel::ALL {
            world.device.for_each_crash(model, |cut, what, content| {
                let place = format!(
                    "step {n} {step:?}, cut at {cut} of {total}, {model:?}, {what}, {setup:?}"
                );
                tally.contents += 1;
                if world.check(step, cut, cut == total, content, &place) {
                    window.insert(cut);
                    tally.windows += 1;
                }
            });
        }
        if !window.is_empty() {
            tally.in_window.push((n, window, total));
        }
        match step {
            Crash | EarlyReset => assert_eq!(total, 0, "step {n} {step:?} wrote something"),
            // A start on what is stored already, or from a token, writes nothing.
            Start(_) if world.image.is_some() && setup.consume != ConsumePolicy::AtStart => {
                assert_eq!(total, 0, "step {n} {step:?}");
            }
            _ => {}
        }
    }
    tally
}

fn check_windows(life: &[Step], tally: &Tally, setup: Setup) {
    let announced = life.contains(&Announce);
    assert_eq!(tally.in_window.is_empty(), announced, "{setup:?}");
    for (n, cuts, total) in &tally.in_window {
        assert_eq!(life[*n], Hibernate);
        // One commit: data, tables, flush, header, flush.
        assert!(*total <= 6, "step {n}: the window has {total} operations");
        // Nothing of it is left when the commit is done.
        assert!(cuts.iter().all(|cut| cut < total), "step {n}: {cuts:?}");
    }
}

/// Lives the life in several ways.
fn matrix(life: &[Step], setups: &[Setup], shapes: &[(u32, usize)]) -> usize {
    let mut contents = 0;
    for setup in setups {
        for (sector, blocks) in shapes {
            let tally = live(life, *sector, *blocks, *setup);
            check_windows(life, &tally, *setup);
            contents += tally.contents;
        }
    }
    println!("{contents} contents of the medium");
    contents
}

/// Stores with room for two records, and with room for hardly one.
const SHAPES: &[(u32, usize)] = &[(512, 40), (4096, 13)];

#[test]
fn power_fails_at_every_write_and_flush() {
    let contents = matrix(LIFE, &[Setup::default()], SHAPES);
    assert!(contents > 2000, "{contents}");
}

#[test]
fn power_fails_while_a_guest_hibernates_unannounced() {
    let setup = Setup::default();
    let life = [Start(1), Hibernate, Start(2), TakeOver, Hibernate, Start(3)];
    assert!(matrix(&life, &[setup], &SHAPES[..1]) > 20);
}

#[test]
fn power_fails_under_the_policy_next_transition() {
    let setup = Setup {
        consume: ConsumePolicy::NextTransition,
        ..Setup::default()
    };
    assert!(matrix(LIFE, &[setup], &[(512, 13)]) > 500);
}

/// Power fails at every write and flush of the quiet life.
fn power_fails_in_the_quiet_life(setups: &[Setup]) {
    assert!(matrix(QUIET_LIFE, setups, &[(512, 40)]) > 500);
}

#[test]
fn power_fails_under_the_policy_at_start() {
    power_fails_in_the_quiet_life(&[Setup {
        consume: ConsumePolicy::AtStart,
        ..Setup::default()
    }]);
}

#[test]
fn power_fails_with_a_handoff_signal() {
    let policies = [ConsumePolicy::Handoff, ConsumePolicy::NextTransition];
    power_fails_in_the_quiet_life(&policies.map(|consume| Setup {
        consume,
        takeover: TakeoverSignal::RuntimeHandoff,
        ..Setup::default()
    }));
}

#[test]
fn power_fails_on_an_encrypted_store() {
    power_fails_in_the_quiet_life(&[Setup {
        key: Some(7),
        ..Setup::default()
    }]);
}
