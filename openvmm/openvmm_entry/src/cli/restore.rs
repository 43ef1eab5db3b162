//! `--restore-snapshot`: the snapshot says what the machine is, and options may change what belongs to the host.

use super::Options;
use super::config::Errors;
use super::config::Invocation;
use super::files;
use super::net::parse_net;
use super::pci::disk_file;
use super::serial::parse_serial;
use clap::CommandFactory as _;
use clap::FromArgMatches as _;
use clap::parser::ValueSource;
use disk_spec::DiskSpec;
use disk_spec::ParseError;
use disk_spec::VirtioBlkHandle;
use error_chain::Chain;
use file_identity::FileUse;
use openvmm_core::RestorableVm;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::Start;
use serial_16550::Serial16550Handle;
use serial_16550::SerialInput;
use std::ffi::OsString;
use std::path::Path;
use virtio_net::VirtioNetHandle;
use vm_resource::Resource;

/// The options that can be given with `--restore-snapshot`, by their field. All others describe the machine.
const ALLOWED: &[&str] = &[
    "restore_snapshot",
    "disk",
    "net",
    "com1",
    "com2",
    "com3",
    "com4",
    "serial_tx_only",
    "vmgs_key",
    "hypervisor",
    "paused",
    "no_console",
    "halt_on_reset",
    "guest_reset_action",
    "guest_shutdown_action",
    "guest_crash_action",
    "control",
    "pidfile",
    "log_file",
    "json_events",
    "check_config",
    "single_process",
];

impl Options {
    /// Parses a command line. Remembers which options were given.
    pub(crate) fn parse_given(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut options =
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let given = matches
            .ids()
            .map(clap::Id::as_str)
            .filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
        // The group of all options is an id too.
        let known = |id: &&str| {
            command
                .get_arguments()
                .any(|argument| argument.get_id() == id)
        };
        options.given = given.filter(known).map(str::to_owned).collect();
        Ok(options)
    }

    /// The machine in the snapshot, with what the options change of it.
    pub(super) fn restore(self, dir: &Path) -> Result<Invocation, Errors> {
        let mut errors = Errors::default();
        for id in &self.given {
            if !ALLOWED.contains(&id.as_str()) {
                errors.add(format!(
                    "--{}: the snapshot says what the machine is; this cannot be changed with --restore-snapshot",
                    id.replace('_', "-")
                ));
            }
        }
        let session = self.session(&mut errors);
        let restorable = match openvmm_core::open_snapshot(dir) {
            Ok(restorable) => restorable,
            Err(error) => {
                errors.add(format!("--restore-snapshot: {}", Chain(&error)));
                return Err(errors);
            }
        };
        let RestorableVm { mut config, saved } = restorable;
        let mut files = session.files.clone();
        self.override_disks(&mut errors, &mut config, &mut files);
        self.override_networks(&mut errors, &mut config);
        self.override_serial_ports(&mut errors, &mut config, &mut files);
        files.push(FileUse::read("--restore-snapshot", dir.join("memory.bin")));
        files::check_distinct(&mut errors, &files, session.events.as_ref());
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(session.invocation(&self, config, Start::Restore(Box::new(saved))))
    }

    fn override_disks(&self, errors: &mut Errors, config: &mut VmConfig, files: &mut Vec<FileUse>) {
        let mut given = self.disk.iter();
        for device in &mut config.pci_devices {
            let Some(Ok(saved)) = device.resource.handle::<VirtioBlkHandle>() else {
                continue;
            };
            let disk = match given.next() {
                None => saved.disk,
                Some(text) => {
                    let parsed = text.parse::<DiskSpec>();
                    let parsed = parsed.map_err(|error: ParseError| error.to_string());
                    let Some(disk) = errors.take("--disk", parsed.map(Some), None) else {
                        continue;
                    };
                    DiskSpec {
                        // What the guest sees of it.
                        serial: disk.serial.or(saved.disk.serial),
                        queues: disk.queues.or(saved.disk.queues),
                        sector: disk.sector.or(saved.disk.sector),
                        ..disk
                    }
                }
            };
            // The guest knows what is on it.
            let disk = DiskSpec {
                create: None,
                ..disk
            };
            if let Err(error) = disk.check() {
                errors.add(format!("{}: {}", device.name, Chain(&error)));
            }
            files.extend(disk_file(device.name.clone(), &disk));
            device.resource = Resource::new(&VirtioBlkHandle { disk });
        }
        if given.next().is_some() {
            errors.add("--disk: the saved machine has fewer disks");
        }
    }

    fn override_networks(&self, errors: &mut Errors, config: &mut VmConfig) {
        let mut given = self.net.iter();
        for device in &mut config.pci_devices {
            let Some(Ok(saved)) = device.resource.handle::<VirtioNetHandle>() else {
                continue;
            };
            let Some(text) = given.next() else {
                break;
            };
            let parsed = parse_net(text).map(Some);
            if let Some(net) = errors.take("--net", parsed, None) {
                device.resource = Resource::new(&VirtioNetHandle {
                    mac: net.mac.or(saved.mac),
                    mtu: net.mtu.or(saved.mtu),
                    ..net
                });
            }
        }
        if given.next().is_some() {
            errors.add("--net: the saved machine has fewer network interfaces");
        }
    }

    fn override_serial_ports(
        &self,
        errors: &mut Errors,
        config: &mut VmConfig,
        files: &mut Vec<FileUse>,
    ) {
        for (n, text) in (1..).zip([&self.com1, &self.com2, &self.com3, &self.com4]) {
            let (name, option) = (format!("com{n}"), format!("--com{n}"));
            let given = self.given.contains(&name);
            let mut devices = config.chipset_devices.iter_mut();
            let device = devices.find(|device| device.name == name);
            let handle = device
                .as_ref()
                .and_then(|device| device.resource.handle::<Serial16550Handle>());
            let (Some(device), Some(Ok(mut handle))) = (device, handle) else {
                if given {
                    errors.add(format!("{option}: the saved machine has no such port"));
                }
                continue;
            };
            if given {
                match errors.take(&option, parse_serial(text).map(Some), None) {
                    Some(Some(end)) => {
                        files.extend(super::serial::end_file(&option, &end));
                        handle.end = end;
                    }
                    Some(None) => errors.add(format!(
                        "{option}: the saved machine has this port; it cannot be removed"
                    )),
                    None => {}
                }
            }
            if self.serial_tx_only {
                handle.input = Some(SerialInput::Dropped);
            }
            device.resource = Resource::new(&handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(arguments: &[&str]) -> String {
        let arguments = ["openvmm", "--restore-snapshot", "/missing"]
            .iter()
            .chain(arguments);
        let options = Options::parse_given(arguments).unwrap();
        options.resolve().unwrap_err().to_string()
    }

    #[test]
    fn what_the_snapshot_says_is_not_given_again() {
        let text = refused(&["-m", "1G", "--virtio-rng", "--kernel", "k"]);
        for option in ["--memory", "--virtio-rng", "--kernel"] {
            assert!(text.contains(option), "{text}");
        }
        let text = refused(&[
            "--paused",
            "--com1",
            "stderr",
            "--disk",
            "/d",
            "--no-console",
        ]);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("no snapshot at /missing"), "{text}");
    }

    #[test]
    fn each_allowed_option_exists() {
        let command = Options::command();
        for id in ALLOWED {
            assert!(
                command
                    .get_arguments()
                    .any(|argument| argument.get_id() == id),
                "{id}"
            );
        }
    }
}
