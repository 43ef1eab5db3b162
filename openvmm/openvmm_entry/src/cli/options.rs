//! The options as clap reads them. Values that can be wrong are text: the module `config` parses them, to report
//! all errors together.

use clap::Parser;
use clap::Subcommand;
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0      the guest powered off
  1      the VMM or the host failed
  2      the command line or the configuration is wrong
  3      the hypervisor is missing, not permitted, or failed
  4      a VP of the guest shut down (triple fault)
  5      the guest reset the machine, with --halt-on-reset
  6      the guest's kernel panicked
  7      the guest hibernated
  8      the user quit from the console
  128+N  signal N ended the VM

Console: Ctrl-Q switches between the guest's serial port and the openvmm prompt.
Logs: OPENVMM_LOG=LEVEL or TARGET=LEVEL,… (error, warn, info, debug, trace), on standard error.";

/// A virtual machine monitor for Linux hosts, on KVM.
#[derive(Debug, Parser)]
#[command(
    name = "openvmm",
    version,
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Options {
    /// Number of virtual processors, 1 to 64
    #[arg(short = 'p', long, value_name = "COUNT", default_value = "1")]
    pub(crate) processors: String,

    /// Virtual processors per socket (default: all in one socket)
    #[arg(long, value_name = "COUNT")]
    pub(crate) vps_per_socket: Option<String>,

    /// Two hardware threads per core: force, off, or auto (which is off)
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub(crate) smt: String,

    /// The processors' x2APIC: auto or supported (a guest can turn it on)
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub(crate) x2apic: String,

    /// Nested virtualization: on gives the guest VMX or SVM, so that it can run VMs; on or off
    #[arg(long, value_name = "SWITCH", default_value = "off")]
    pub(crate) nested: String,

    /// Guest RAM: SIZE or size=SIZE; after commas any of file=PATH, shared, prefetch, thp=off, hugepages,
    /// hugepage_size=2M|1G
    #[arg(short = 'm', long, value_name = "MEMORY", default_value = "1GB")]
    pub(crate) memory: String,

    /// The same as shared in --memory
    #[arg(short = 'M', long, hide = true)]
    pub(crate) shared_memory: bool,

    /// The same as shared=off in --memory
    #[arg(long, hide = true)]
    pub(crate) private_memory: bool,

    /// The same as prefetch in --memory
    #[arg(long, hide = true)]
    pub(crate) prefetch: bool,

    /// The same as thp in --memory
    #[arg(long, hide = true)]
    pub(crate) thp: bool,

    /// Back guest RAM with a file, as file=PATH in --memory does
    #[arg(long, value_name = "FILE")]
    pub(crate) memory_backing_file: Option<PathBuf>,

    /// Linux kernel to start: bzImage or ELF vmlinux
    #[arg(short = 'k', long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// Initial RAM disk
    #[arg(short = 'r', long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,

    /// Kernel command line; given several times, the parts are joined by spaces
    #[arg(short = 'c', long, value_name = "STRING", allow_hyphen_values = true)]
    pub(crate) cmdline: Vec<String>,

    /// Entry protocol of the kernel: auto, linux64 or pvh
    #[arg(long, value_name = "PROTOCOL", default_value = "auto")]
    pub(crate) boot_protocol: String,

    /// Boot the guest in an IGVM file: type=TYPE,path=FILE, where TYPE is the machine that it expects: linux, or
    /// uefi,profile=pc-uefi for OVMF
    #[arg(long, value_name = "IGVM")]
    pub(crate) igvm: Option<String>,

    /// The type of --igvm FILE: linux-direct or uefi
    #[arg(long, value_name = "TYPE", requires = "igvm")]
    pub(crate) igvm_personality: Option<String>,

    /// Where the VTL2 in an IGVM file goes. Files of other types have final addresses: disable is the only choice
    #[arg(long, value_name = "RELOCATION", requires = "igvm", hide = true)]
    pub(crate) igvm_vtl2_relocation_type: Option<String>,

    /// Boot UEFI firmware, which starts the --kernel or what it finds on the disks
    #[arg(short = 'e', long)]
    pub(crate) uefi: bool,

    /// UEFI firmware: OVMF (a CODE file, or code and variables in one file), or that of Hyper-V's generation-2 VMs
    /// (MSVM.fd), which gets such a machine; default: the installed OVMF
    #[arg(long, value_name = "FILE")]
    pub(crate) uefi_firmware: Option<PathBuf>,

    /// UEFI variables: a copy of the firmware's VARS file, which the VM writes to
    #[arg(long, value_name = "FILE")]
    pub(crate) uefi_vars: Option<PathBuf>,

    /// Console of a generation-2 VM's firmware: default (video), com1, com2 or none; default: the first of COM1 and COM2
    #[arg(long, value_name = "MODE")]
    pub(crate) uefi_console_mode: Option<String>,

    /// Give COM1 to the debugger of a generation-2 VM's firmware
    #[arg(long)]
    pub(crate) uefi_debug: bool,

    /// Have a generation-2 VM's firmware protect its memory, which some boot loaders do not bear
    #[arg(long)]
    pub(crate) uefi_enable_memory_protections: bool,

    /// Have a generation-2 VM's firmware use bounce buffers for all DMA
    #[arg(long)]
    pub(crate) uefi_force_dma_bounce: bool,

    /// Power off when a generation-2 VM's firmware finds nothing to boot, instead of showing its front page
    #[arg(long)]
    pub(crate) disable_frontpage: bool,

    /// Have a generation-2 VM's firmware try the default boot path even if there are boot entries
    #[arg(long)]
    pub(crate) default_boot_always_attempt: bool,

    /// Have a generation-2 VM's firmware boot only what its keys allow
    #[arg(long)]
    pub(crate) secure_boot: bool,

    /// Keys of a new generation-2 VM: windows or uefi_ca; default: none, so that everybody may set them
    #[arg(long, value_name = "NAME")]
    pub(crate) secure_boot_template: Option<String>,

    /// Keys and variables of a new generation-2 VM, beside those of the template or in their place
    #[arg(long, value_name = "FILE")]
    pub(crate) custom_uefi_json: Option<PathBuf>,

    /// What of a generation-2 VM's firmware's log is logged: default (errors and warnings), info or full
    #[arg(long, value_name = "LEVEL")]
    pub(crate) efi_diagnostics_log_level: Option<String>,

    /// Keeps the VM's state (UEFI variables, and the firmware of a hibernated guest): [file:]PATH, created if missing,
    /// mem:SIZE or memdiff:PATH; after a comma fmt or fmt-on-fail
    #[arg(long, value_name = "STORE")]
    pub(crate) vmgs: Option<String>,

    /// Key of the VMGS store, 32 bytes: file:PATH, or fd:N for a descriptor that openvmm inherits. A new store is
    /// encrypted with it
    #[arg(long, value_name = "KEY", requires = "vmgs")]
    pub(crate) vmgs_key: Option<String>,

    /// Add a virtio disk: [file:]PATH[;create=SIZE][;direct], mem:SIZE or memdiff:PATH; after commas any of ro,
    /// serial=TEXT, queues=N, sector=512|4096, format=raw|vhd|qcow2, aio=io_uring|threads, slot=DEV[.FN]
    #[arg(long, visible_alias = "virtio-blk", value_name = "DISK")]
    pub(crate) disk: Vec<String>,

    /// Add a virtio network interface: tap:NAME, or user (with passt) and after commas any of ADDRESS/PREFIX,
    /// hostfwd=tcp|udp:[ADDRESS]:PORT-:PORT; for both mac=MAC, mtu=N, slot=DEV[.FN]; none adds none
    #[arg(long, visible_alias = "virtio-net", value_name = "NET")]
    pub(crate) net: Vec<String>,

    /// Add an entropy source
    #[arg(long, action = clap::ArgAction::Count)]
    pub(crate) virtio_rng: u8,

    /// Hypervisor; KVM is the only one
    #[arg(long, value_name = "NAME", default_value = "kvm")]
    pub(crate) hypervisor: String,

    /// Interrupt controllers: kernel (all in the hypervisor) or split (local APICs there, IOAPIC here)
    #[arg(long, value_name = "MODE", default_value = "kernel")]
    pub(crate) irqchip: String,

    /// Offer hibernation (ACPI S4) to the guest: on or off
    #[arg(long, value_name = "on|off", default_value = "off")]
    pub(crate) hibernation: String,

    /// When to delete the token of a hibernated guest from the VMGS file: handoff, at-start or next-transition
    #[arg(long, value_name = "POLICY", default_value = "handoff")]
    pub(crate) hibernation_consume: String,

    /// Start although a hibernated guest's firmware cannot be restored: discard (the session) or current-firmware
    #[arg(long, value_name = "HOW")]
    pub(crate) hibernation_override: Option<String>,

    /// The VM's identity (default: derived from its disks, VMGS file or kernel)
    #[arg(long, value_name = "UUID")]
    pub(crate) uuid: Option<String>,

    /// COM1: console, stderr, file=PATH, listen=PATH, listen=tcp:IP:PORT, pty or none
    #[arg(long, value_name = "SERIAL", default_value = "console")]
    pub(crate) com1: String,

    /// COM2, as --com1
    #[arg(long, value_name = "SERIAL", default_value = "none")]
    pub(crate) com2: String,

    /// COM3, as --com1
    #[arg(long, value_name = "SERIAL", default_value = "none")]
    pub(crate) com3: String,

    /// COM4, as --com1
    #[arg(long, value_name = "SERIAL", default_value = "none")]
    pub(crate) com4: String,

    /// Debug console port: PORT:SERIAL or PORT,SERIAL (example: 0x402:stderr)
    #[arg(long, value_name = "PORT:SERIAL")]
    pub(crate) debugcon: Option<String>,

    /// Send nothing to the guest's serial ports: what is typed or received for them is dropped
    #[arg(long)]
    pub(crate) serial_tx_only: bool,

    /// Go on with the VM that was saved in DIR (`save-snapshot` at the prompt), any number of times. Options can change what
    /// belongs to the host: disks (in their order), networks, serial ports
    #[arg(long, value_name = "DIR")]
    pub(crate) restore_snapshot: Option<PathBuf>,

    /// Create the VM and leave it paused
    #[arg(short = 'P', long)]
    pub(crate) paused: bool,

    /// Do not read standard input: no prompt, and the console port gets no input
    #[arg(long)]
    pub(crate) no_console: bool,

    /// Exit with code 5 when the guest resets the machine
    #[arg(long)]
    pub(crate) halt_on_reset: bool,

    /// When the guest resets: reset (the default), halt (stay for inspection), exit or exit:CODE
    #[arg(long, value_name = "ACTION")]
    pub(crate) guest_reset_action: Option<String>,

    /// When the guest powers off: reset, halt, exit or exit:CODE; default: exit with code 0. If it hibernates, reset is as
    /// the default: exit with code 7
    #[arg(long, value_name = "ACTION")]
    pub(crate) guest_shutdown_action: Option<String>,

    /// When the guest crashes: reset, halt, exit or exit:CODE; default: exit with code 4 or 6
    #[arg(long, value_name = "ACTION")]
    pub(crate) guest_crash_action: Option<String>,

    /// Take requests (JSON, one a line) at a socket: unix:PATH
    #[arg(long, value_name = "unix:PATH")]
    pub(crate) control: Option<String>,

    /// Write the process's id to FILE while the VM exists
    #[arg(long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,

    /// Write the log to FILE, which is replaced, instead of standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,

    /// There are no Hyper-V interfaces to turn off
    #[arg(long, hide = true)]
    pub(crate) no_hv: bool,

    /// There is no VMBus to turn off
    #[arg(long, hide = true)]
    pub(crate) no_vmbus: bool,

    /// There is no paravisor to turn off
    #[arg(long, hide = true)]
    pub(crate) no_get: bool,

    /// There are no child processes
    #[arg(long, hide = true)]
    pub(crate) single_process: bool,

    /// Write the VM's events as JSON lines to FILE, or with fd=N to the open file descriptor N
    #[arg(long, value_name = "FILE|fd=N")]
    pub(crate) json_events: Option<String>,

    /// Check the options, and that the files to boot from can be read, and exit
    #[arg(long)]
    pub(crate) check_config: bool,

    /// Print a completion script for SHELL and exit
    #[arg(long, value_name = "SHELL")]
    pub(crate) completions: Option<clap_complete::Shell>,

    /// The options that were given, by field.
    #[arg(skip)]
    pub(crate) given: Vec<String>,

    #[command(subcommand)]
    pub(crate) command: Option<CliCommand>,
}

/// Subcommands, for everything but running a VM.
#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Inspect the hibernation state of a VM that is off
    Hibernation {
        #[command(subcommand)]
        command: HibernationCommand,
    },
    /// Look at a snapshot, or check it
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
}

/// Subcommands of `snapshot`.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Compare all of a snapshot, guest memory too, with its digests
    Verify {
        /// The snapshot
        dir: PathBuf,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what was saved, when and where
    Info {
        /// The snapshot
        dir: PathBuf,

        /// Print the manifest
        #[arg(long)]
        json: bool,
    },
    /// Print the parts of the machine whose state was saved, and the size of each
    ListUnits {
        /// The snapshot
        dir: PathBuf,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Subcommands of `hibernation`.
#[derive(Debug, Subcommand)]
pub(crate) enum HibernationCommand {
    /// Print what the next start with --hibernation on would do, and why
    Status {
        /// The VM's VMGS file
        #[arg(long, value_name = "FILE")]
        vmgs: PathBuf,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
