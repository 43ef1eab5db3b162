use crate::ImageFileError;
use guest_memory::MemoryRange;
use igvm_format::IgvmError;
use igvm_format::MAX_FILE;
use igvm_format::PlatformType;
use std::path::Path;
use std::path::PathBuf;

/// Why an IGVM file cannot be loaded. All of this is found before anything is imported.
#[derive(Debug, thiserror::Error)]
pub enum IgvmLoadError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] ImageFileError),
    /// The file cannot be loaded on this machine, or on none.
    #[error("cannot load the IGVM file {}: {problem}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: Box<IgvmProblem>,
    },
}

impl IgvmLoadError {
    pub(super) fn new(path: &Path, problem: impl Into<IgvmProblem>) -> Self {
        Self::Image {
            path: path.into(),
            problem: Box::new(problem.into()),
        }
    }
}

/// Why a file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum IgvmProblem {
    /// It is larger than the format allows.
    #[error("it has {len} bytes, more than the {MAX_FILE} that the format allows")]
    TooLarge {
        /// Its length in bytes.
        len: u64,
    },
    /// It does not obey the format's rules.
    #[error(transparent)]
    Malformed(#[from] IgvmError),
    /// It is for another architecture.
    #[error("it is for guests of the architecture AArch64, not x86-64")]
    Architecture,
    /// It cannot be loaded on a machine without isolation.
    #[error(
        "it is for the platforms {}; a guest without isolation needs NATIVE, or VSM_ISOLATION without VTL2",
        names(offered)
    )]
    Platform {
        /// What the file offers.
        offered: Vec<PlatformType>,
    },
    /// It needs VTL2.
    #[error(
        "it needs VTL2, as OpenHCL does: its platform VSM_ISOLATION has the highest VTL {highest_vtl}"
    )]
    NeedsVtl2 {
        /// The platform's highest VTL.
        highest_vtl: u8,
    },
    /// There is no RAM where the file puts something.
    #[error(
        "{what} at offset {offset:#x} is for {range}, but this guest has RAM at {}; more memory may help",
        ranges(ram)
    )]
    NoRam {
        /// The record's name.
        what: &'static str,
        /// Its offset in the file.
        offset: u64,
        /// The addresses.
        range: MemoryRange,
        /// The RAM.
        ram: Vec<MemoryRange>,
    },
    /// Something of the host goes where the file has something.
    #[error(
        "{what} at {range} overlaps {other_range}, which the file fills ({other} at offset {offset:#x})"
    )]
    Overlap {
        /// What the host puts there.
        what: &'static str,
        /// Where.
        range: MemoryRange,
        /// The record's name.
        other: &'static str,
        /// Its offset in the file.
        offset: u64,
        /// What it fills.
        other_range: MemoryRange,
    },
    /// The command line contains a NUL, at which it would end.
    #[error("the command line has a NUL at byte {position}")]
    CommandLineNul {
        /// Offset of the NUL, in bytes.
        position: usize,
    },
    /// There is a command line, but no parameter for it.
    #[error("it takes no command line: it has no COMMAND_LINE parameter")]
    NoCommandLine,
    /// A parameter does not fit into its area.
    #[error(
        "the parameter {kind} at offset {offset:#x} has {needed} bytes here, but from byte {byte_offset} of parameter \
         area {area} there are {available}"
    )]
    ParameterTooLarge {
        /// The parameter.
        kind: &'static str,
        /// Its record's offset in the file.
        offset: u64,
        /// The area.
        area: u32,
        /// Where in the area, in bytes.
        byte_offset: u32,
        /// The value's length.
        needed: u64,
        /// The room.
        available: u64,
    },
    /// A parameter has no value on this machine.
    #[error("the parameter {kind} at offset {offset:#x} is not supported for this kind of guest")]
    UnsupportedParameter {
        /// The parameter.
        kind: &'static str,
        /// Its record's offset in the file.
        offset: u64,
    },
    /// A VP context cannot be used.
    #[error("the VP context at offset {offset:#x} {problem}")]
    VpContext {
        /// Its record's offset in the file.
        offset: u64,
        /// What is wrong.
        problem: VpContextProblem,
    },
    /// There is nothing that could run.
    #[error(
        "it has no VP context, and no page at the reset vector 0xfffffff0: there is nothing to run"
    )]
    NothingToRun,
}

/// Why a VP context cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VpContextProblem {
    /// It is for another VP than the first.
    #[error("is for VP {vp_index}; only that of VP 0 is supported")]
    Vp {
        /// The VP.
        vp_index: u16,
    },
    /// There is one already.
    #[error("is the second one of VP 0")]
    Repeated,
    /// It is of a lower VTL than the platform's highest.
    #[error("is for VTL {vtl}, but the platform's highest VTL is {highest_vtl}")]
    Vtl {
        /// The context's.
        vtl: u8,
        /// The platform's.
        highest_vtl: u8,
    },
    /// A register is unknown, or not one that a guest starts with.
    #[error("sets the register {name:#010x}, which is not known")]
    UnknownRegister {
        /// Its number in Hyper-V's interface.
        name: u32,
    },
    /// A register is set twice.
    #[error("sets the register {name:#010x} twice")]
    DuplicateRegister {
        /// Its number in Hyper-V's interface.
        name: u32,
    },
    /// A register has a value with which no processor starts.
    #[error("has {value:#x} in {register}: {expected}")]
    Value {
        /// The register.
        register: &'static str,
        /// Its value.
        value: u64,
        /// What is needed.
        expected: &'static str,
    },
}

fn names(platforms: &[PlatformType]) -> String {
    let names: Vec<_> = platforms.iter().map(|platform| platform.name()).collect();
    names.join(", ")
}

fn ranges(ranges: &[MemoryRange]) -> String {
    let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    ranges.join(", ")
}
