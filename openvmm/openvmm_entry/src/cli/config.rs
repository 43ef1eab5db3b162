//! Turns the command line into a configuration, and reports all of its errors together.

use super::Options;
use super::actions;
use super::actions::ParsedAction;
use super::choice::HypervisorName;
use super::choice::IrqchipChoice;
use super::choice::OnOff;
use super::choice::Smt;
use super::choice::X2Apic;
use super::choice::parse_choice;
use super::files;
use super::vmgs_key::KeySource;
use crate::actions::GuestActions;
use file_identity::FileUse;
use firmware_hibernation::ConsumePolicy;
use firmware_hibernation::UnknownName;
use openvmm_defs::config::HibernationConfig;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::AfterEnd;
use openvmm_defs::start::AfterGuest;
use openvmm_defs::start::BootOptions;
use openvmm_defs::start::InitialState;
use openvmm_defs::start::Start;
use openvmm_defs::start::StartOptions;
use std::fmt;
use std::path::PathBuf;
use virt::IrqchipMode;
use virt::Topology;
use virt::TopologyConfig;
use virt::TopologyError;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    /// The VM.
    pub(crate) vm: VmConfig,
    /// How it starts.
    pub(crate) start: StartOptions,
    /// Whether the console reads standard input.
    pub(crate) console: ConsoleMode,
    /// Where the VM's events are written.
    pub(crate) events: Option<EventsTarget>,
    /// Where the key of the VMGS store is.
    pub(crate) vmgs_key: Option<KeySource>,
    /// The socket for requests.
    pub(crate) control: Option<PathBuf>,
    /// What happens when the guest ends.
    pub(crate) actions: GuestActions,
    /// The file for the process's id.
    pub(crate) pidfile: Option<PathBuf>,
    /// The file for the log, instead of standard error.
    pub(crate) log_file: Option<PathBuf>,
}

/// Whether the console reads standard input.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum ConsoleMode {
    Interactive,
    Absent,
}

/// Where the VM's events are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EventsTarget {
    File(PathBuf),
    Descriptor(i32),
}

/// The errors of a command line. While they are collected, a stand-in replaces each wrong value, so that the other options
/// can be checked; an invocation is made only if there are no errors.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors(Vec<String>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.0 {
            writeln!(f, "error: {error}")?;
        }
        Ok(())
    }
}

impl Errors {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, error: impl Into<String>) {
        self.0.push(error.into());
    }

    pub(super) fn take<T>(&mut self, option: &str, result: Result<T, String>, stand_in: T) -> T {
        result.unwrap_or_else(|error| {
            self.add(format!("{option}: {error}"));
            stand_in
        })
    }
}

/// What belongs to one process that runs a VM.
pub(super) struct Session {
    after_guest: AfterGuest,
    actions: GuestActions,
    pub(super) events: Option<EventsTarget>,
    vmgs_key: Option<KeySource>,
    control: Option<PathBuf>,
    /// The files that it uses.
    pub(super) files: Vec<FileUse>,
}

impl Session {
    /// All that the command line asks for.
    pub(super) fn invocation(self, options: &Options, vm: VmConfig, start: Start) -> Invocation {
        Invocation {
            vm,
            vmgs_key: self.vmgs_key,
            control: self.control,
            start: StartOptions {
                start,
                initial_state: match options.paused {
                    true => InitialState::Paused,
                    false => InitialState::Running,
                },
                after_guest: self.after_guest,
            },
            console: if options.no_console {
                ConsoleMode::Absent
            } else {
                ConsoleMode::Interactive
            },
            events: self.events,
            actions: self.actions,
            pidfile: options.pidfile.clone(),
            log_file: options.log_file.clone(),
        }
    }
}

impl Options {
    /// Parses all options, and checks them against each other and against files of the host.
    pub(crate) fn resolve(mut self) -> Result<Invocation, Errors> {
        if let Some(dir) = self.restore_snapshot.take() {
            return self.restore(&dir);
        }
        let mut errors = Errors::default();

        let topology = self.topology(&mut errors);
        let irqchip = errors.take(
            "--irqchip",
            parse_choice(&self.irqchip),
            IrqchipChoice::Kernel,
        );
        let nested = errors.take("--nested", parse_choice(&self.nested), OnOff::Off);
        let hibernation = self.hibernation(&mut errors);
        let mut boot = self.boot_options(&mut errors);
        let x2apic = parse_choice(&self.x2apic);
        match errors.take("--x2apic", x2apic, X2Apic::Auto) {
            X2Apic::Auto | X2Apic::Supported => {}
            X2Apic::Off | X2Apic::On => errors.add(format!(
                "--x2apic: not supported yet: {} (a guest can always turn on its x2APICs)",
                self.x2apic
            )),
        }
        let session = self.session(&mut errors);

        let mut files = session.files.clone();
        let memory = self.memory(&mut errors);
        let store = self.store_options(&mut errors);
        let uuid = self.identity(&mut errors, store.path.as_deref());
        let load_mode = self.load_mode(&mut errors);
        if let (Some(memory), Some(load_mode)) = (&memory, &load_mode)
            && let Err(error) = openvmm_core::check_memory(memory, load_mode)
        {
            errors.add(format!("--memory: {error}"));
        }
        let pci_devices = self.pci_devices(&mut errors, &mut files);
        let chipset_devices = self.chipset_devices(&mut errors, &mut files);

        files.extend(self.used_files(memory.as_ref(), &store, load_mode.as_ref()));
        files::check_distinct(&mut errors, &files, session.events.as_ref());
        boot.vmgs_format = store.format;

        let (Some(memory), Some(load_mode), true) = (memory, load_mode, errors.0.is_empty()) else {
            return Err(errors);
        };
        let vm = VmConfig {
            topology,
            irqchip: match irqchip {
                IrqchipChoice::Kernel => IrqchipMode::Kernel,
                IrqchipChoice::Split => IrqchipMode::Split,
            },
            memory,
            load_mode,
            chipset_devices,
            hibernation,
            pci_devices,
            vmgs: store.path,
            vmgs_memory: store.memory,
            nested: nested == OnOff::On,
            uuid,
        };
        Ok(session.invocation(&self, vm, Start::Boot(boot)))
    }

    /// Parses what belongs to this process, and not to the machine.
    pub(super) fn session(&self, errors: &mut Errors) -> Session {
        let hypervisor = parse_choice(&self.hypervisor);
        errors.take("--hypervisor", hypervisor, HypervisorName::Kvm);
        let (after_guest, actions) = self.guest_actions(errors);
        let events = self
            .json_events
            .as_deref()
            .and_then(|text| errors.take("--json-events", parse_events(text).map(Some), None));
        let vmgs_key = self.vmgs_key.as_deref().and_then(|text| {
            let parsed = text.parse().map(Some);
            errors.take("--vmgs-key", parsed.map_err(str::to_owned), None)
        });
        for (option, path) in [("--pidfile", &self.pidfile), ("--log-file", &self.log_file)] {
            if path
                .as_ref()
                .is_some_and(|path| path.as_os_str().is_empty())
            {
                errors.add(format!("{option}: a path is needed"));
            }
        }
        let control = self
            .control
            .as_deref()
            .and_then(|text| errors.take("--control", parse_control(text).map(Some), None));
        let mut files = self.session_files(events.as_ref());
        files.extend(control.iter().map(|path| FileUse::write("--control", path)));
        if let Some(KeySource::File(path)) = &vmgs_key {
            files.push(FileUse::read("--vmgs-key", path));
        }
        Session {
            after_guest,
            actions,
            events,
            vmgs_key,
            control,
            files,
        }
    }

    /// What the machine does when the guest has ended, and what openvmm does if the machine has halted.
    fn guest_actions(&self, errors: &mut Errors) -> (AfterGuest, GuestActions) {
        let mut parse = |option: &str, text: Option<&str>| {
            let action = text.and_then(|text| {
                let parsed = actions::parse_action(text).map(Some);
                errors.take(option, parsed, None)
            });
            action.unwrap_or_default()
        };
        let reset = parse("--guest-reset-action", self.guest_reset_action.as_deref());
        let shutdown = parse(
            "--guest-shutdown-action",
            self.guest_shutdown_action.as_deref(),
        );
        let crash = parse("--guest-crash-action", self.guest_crash_action.as_deref());
        if self.halt_on_reset && self.guest_reset_action.is_some() {
            errors.add("--halt-on-reset: --guest-reset-action says what a reset does");
        }
        let restarts = |action| match action {
            ParsedAction::Reset => AfterEnd::Restart,
            _ => AfterEnd::Halt,
        };
        let after_guest = AfterGuest {
            reset: match (reset, self.halt_on_reset) {
                (ParsedAction::Default, false) => AfterEnd::Restart,
                (action, _) => restarts(action),
            },
            power_off: restarts(shutdown),
            crash: restarts(crash),
        };
        let actions = GuestActions {
            reset: reset.into(),
            shutdown: shutdown.into(),
            crash: crash.into(),
        };
        (after_guest, actions)
    }

    fn hibernation(&self, errors: &mut Errors) -> HibernationConfig {
        let switch = parse_choice(&self.hibernation);
        let consume = self.hibernation_consume.parse();
        HibernationConfig {
            enabled: errors.take("--hibernation", switch, OnOff::Off) == OnOff::On,
            consume: errors.take(
                "--hibernation-consume",
                consume.map_err(|error: UnknownName| error.to_string()),
                ConsumePolicy::default(),
            ),
        }
    }

    fn boot_options(&self, errors: &mut Errors) -> BootOptions {
        let hibernation_override = self.hibernation_override.as_deref().and_then(|text| {
            let parsed = text.parse().map(Some);
            errors.take(
                "--hibernation-override",
                parsed.map_err(|error: UnknownName| error.to_string()),
                None,
            )
        });
        BootOptions {
            hibernation_override,
            vmgs_format: None,
        }
    }

    fn topology(&self, errors: &mut Errors) -> TopologyConfig {
        let processors = errors.take("--processors", count(&self.processors), 1);
        let vps_per_socket = self
            .vps_per_socket
            .as_deref()
            .and_then(|text| errors.take("--vps-per-socket", count(text).map(Some), None));
        let config = TopologyConfig {
            processors,
            vps_per_socket,
            threads_per_core: match errors.take("--smt", parse_choice(&self.smt), Smt::Off) {
                Smt::Auto | Smt::Off => 1,
                Smt::Force => 2,
            },
        };
        if let Err(error) = Topology::new(config) {
            let option = match error {
                TopologyError::Processors(_) | TopologyError::ThreadsPerCore(_) => "--processors",
                TopologyError::VpsPerSocket { .. } => "--vps-per-socket",
            };
            errors.add(format!("{option}: {error}"));
        }
        config
    }
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("'{text}' is not a count"))
}

fn parse_control(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(format!("'{text}' is not unix:PATH")),
    }
}

fn parse_events(text: &str) -> Result<EventsTarget, String> {
    match text.strip_prefix("fd=") {
        None if text.is_empty() => Err("a file name or fd=N is needed".into()),
        None => Ok(EventsTarget::File(text.into())),
        Some(number) => match number.parse() {
            Ok(fd) if fd >= 0 => Ok(EventsTarget::Descriptor(fd)),
            _ => Err(format!("'{number}' is not a file descriptor")),
        },
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
