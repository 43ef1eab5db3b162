//! Turns the command line into a configuration, and reports all of its errors together.

use super::Options;
use super::choice::HypervisorName;
use super::choice::IrqchipChoice;
use super::choice::OnOff;
use super::choice::Smt;
use super::choice::parse_choice;
use super::memory::parse_memory;
use super::vmgs_key::KeySource;
use firmware_hibernation::ConsumePolicy;
use firmware_hibernation::UnknownName;
use openvmm_defs::config::HibernationConfig;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::BootOptions;
use openvmm_defs::start::InitialState;
use openvmm_defs::start::OnReset;
use openvmm_defs::start::Start;
use openvmm_defs::start::StartOptions;
use std::fmt;
use std::fs::File;
use std::path::Path;
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

impl Options {
    /// Parses all options, and checks them against each other and against files of the host.
    pub(crate) fn resolve(self) -> Result<Invocation, Errors> {
        let mut errors = Errors::default();

        let topology = self.topology(&mut errors);
        let irqchip = errors.take(
            "--irqchip",
            parse_choice(&self.irqchip),
            IrqchipChoice::Kernel,
        );
        let hibernation = self.hibernation(&mut errors);
        let boot = self.boot_options(&mut errors);
        let uuid = self.identity(&mut errors);
        let hypervisor = parse_choice(&self.hypervisor);
        errors.take("--hypervisor", hypervisor, HypervisorName::Kvm);

        let memory = self.memory(&mut errors);
        let load_mode = self.load_mode(&mut errors);
        if let (Some(memory), Some(load_mode)) = (&memory, &load_mode)
            && let Err(error) = openvmm_core::check_memory(memory, load_mode)
        {
            errors.add(format!("--memory: {error}"));
        }
        let pci_devices = self.pci_devices(&mut errors);

        let chipset_devices = self.chipset_devices(&mut errors);

        let events = self
            .json_events
            .as_deref()
            .and_then(|text| errors.take("--json-events", parse_events(text).map(Some), None));

        let vmgs_key = self.vmgs_key.as_deref().and_then(|text| {
            let parsed = text.parse().map(Some);
            errors.take("--vmgs-key", parsed.map_err(str::to_owned), None)
        });

        let (Some(memory), Some(load_mode), true) = (memory, load_mode, errors.0.is_empty()) else {
            return Err(errors);
        };
        Ok(Invocation {
            vm: VmConfig {
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
                vmgs: self.vmgs,
                vmgs_memory: None,
                uuid,
            },
            vmgs_key,
            start: StartOptions {
                start: Start::Boot(boot),
                initial_state: match self.paused {
                    true => InitialState::Paused,
                    false => InitialState::Running,
                },
                on_reset: match self.halt_on_reset {
                    true => OnReset::Halt,
                    false => OnReset::Restart,
                },
            },
            console: if self.no_console {
                ConsoleMode::Absent
            } else {
                ConsoleMode::Interactive
            },
            events,
        })
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
                Smt::Off => 1,
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

    fn memory(&self, errors: &mut Errors) -> Option<openvmm_defs::config::MemoryConfig> {
        let mut memory = errors.take("--memory", parse_memory(&self.memory).map(Some), None)?;
        if let Some(file) = &self.memory_backing_file {
            if memory.file.is_some() {
                errors.add("--memory-backing-file: --memory has file= already");
            }
            memory.file = Some(file.clone());
        }
        Some(memory)
    }
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("'{text}' is not a count"))
}

pub(super) fn check_readable(errors: &mut Errors, option: &str, path: &Path) {
    let checked = File::open(path).and_then(|file| file.metadata());
    match checked {
        Err(error) => errors.add(format!("{option}: cannot read {}: {error}", path.display())),
        Ok(metadata) if metadata.is_dir() => {
            errors.add(format!("{option}: {} is a directory", path.display()));
        }
        Ok(_) => {}
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
mod tests {
    use super::*;
    use clap::Parser;
    use openvmm_defs::config::LoadMode;
    use serial_16550::Serial16550Handle;
    use serial_16550::SerialEnd;

    fn resolve(args: &[&str]) -> Result<Invocation, Errors> {
        let args = std::iter::once("openvmm").chain(args.iter().copied());
        Options::try_parse_from(args).unwrap().resolve()
    }

    #[test]
    fn a_plain_invocation_resolves() {
        let kernel = tempfile::NamedTempFile::new().unwrap();
        let path = kernel.path().to_str().unwrap();
        let invocation = resolve(&[
            "--kernel", path, "-c", "a", "-c", "--b", "-p", "4", "-m", "512M",
        ])
        .unwrap();
        assert_eq!(invocation.vm.topology.processors, 4);
        assert_eq!(invocation.vm.memory.size, 512 << 20);
        let [com1] = &*invocation.vm.chipset_devices else {
            panic!("{:?}", invocation.vm.chipset_devices);
        };
        assert_eq!(com1.name, "com1");
        let port = com1.resource.handle::<Serial16550Handle>();
        assert_eq!(port.unwrap().unwrap().end, SerialEnd::Console);
        let LoadMode::LinuxDirect(linux) = invocation.vm.load_mode else {
            panic!("{:?}", invocation.vm.load_mode);
        };
        assert_eq!(linux.cmdline, "a --b");
        assert_eq!(invocation.start.initial_state, InitialState::Running);
    }

    #[test]
    fn every_error_is_reported() {
        let errors = resolve(&[
            "--kernel",
            "/nonexistent/vmlinuz",
            "--initrd",
            "/",
            "-p",
            "65",
            "-m",
            "31M",
            "--smt",
            "maybe",
            "--com1",
            "what",
            "--com2",
            "file=/tmp/a",
            "--com3",
            "file=/tmp/a",
            "--debugcon",
            "99999:stderr",
            "--irqchip",
            "none",
            "--hypervisor",
            "xen",
            "--hibernation",
            "sometimes",
            "--json-events",
            "fd=x",
            "--boot-protocol",
            "efi",
        ])
        .unwrap_err();
        let text = errors.to_string();
        for expected in [
            "--kernel: cannot read /nonexistent/vmlinuz",
            "--initrd: / is a directory",
            "65 processors",
            "32 MiB",
            "'maybe'",
            "'what'",
            "--com3: --com2 goes to the same place",
            "'99999'",
            "--irqchip: 'none'",
            "--hypervisor: 'xen'",
            "'sometimes'",
            "--json-events: 'x'",
            "--boot-protocol: 'efi'",
        ] {
            assert!(text.contains(expected), "{expected} not in:\n{text}");
        }
    }

    #[test]
    fn memory_that_uefi_firmware_cannot_use_is_an_error() {
        let firmware = tempfile::NamedTempFile::new().unwrap();
        let path = firmware.path().to_str().unwrap();
        let with = |memory| {
            let errors = resolve(&["--uefi-firmware", path, "-m", memory]);
            errors.err().map(|errors| errors.to_string())
        };
        assert!(with("32M").unwrap().contains("64 MiB"));
        assert!(with("67112960").unwrap().contains("number of MiB"));
        assert_eq!(with("64M"), None);
    }

    #[test]
    fn no_kernel_is_an_error() {
        assert_eq!(resolve(&[]).unwrap_err().0.len(), 1);
    }
}
