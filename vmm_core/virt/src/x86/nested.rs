//! Nested state: what a processor keeps for the guests of its guest.
//!
//! The state is saved as the bytes of Linux's `struct kvm_nested_state`, which its ABI keeps stable: a header of 128
//! bytes, and up to two pages. A header alone is state too: VMX operation without a VMCS, or SVM's global interrupt flag.
//! All numbers are little-endian.
//!
//! | Offset | Size | VMX | SVM |
//! |---|---|---|---|
//! | 0 | 2 | flags | flags |
//! | 2 | 2 | format: 0 | format: 1 |
//! | 4 | 4 | bytes of the whole | bytes of the whole |
//! | 8 | 8 | address of the VMXON region | address of the guest's VMCB |
//! | 16 | 8 | address of the current VMCS | flags of the header (4 bytes), from newer kernels |
//! | 24 | 2 | flags of system management mode | PAT of the guest's guest |
//! | 28 | 4 | flags of the header | |
//! | 32 | 8 | deadline of the preemption timer | |
//! | 128 | 4096 | current VMCS, in KVM's own format | VMCB control area, and the guest's state at VMRUN |
//! | 4224 | 4096 | shadow VMCS | |

use std::fmt;

/// Bytes of the header.
pub const NESTED_HEADER_SIZE: usize = 128;
/// Bytes of a VMCS in KVM's format, or of a VMCB.
const PAGE_SIZE: usize = 4096;
/// Bytes of the largest nested state there is: that of VMX with a shadow VMCS.
pub const MAX_NESTED_STATE: usize = NESTED_HEADER_SIZE + 2 * PAGE_SIZE;

/// The address of what is not there.
const NOWHERE: u64 = u64::MAX;
/// What KVM's format of a VMCS has for a revision.
const VMCS_REVISION: u32 = 0x11e5_7ed0;
/// Of the revision: it is that of a shadow VMCS.
const SHADOW_VMCS: u32 = 1 << 31;
/// EFER.SVME: SVM instructions are enabled.
const EFER_SVME: u64 = 1 << 12;

/// Flags of the header.
mod flag {
    pub(super) const GUEST_MODE: u16 = 1;
    pub(super) const RUN_PENDING: u16 = 2;
    pub(super) const ENLIGHTENED_VMCS: u16 = 4;
    pub(super) const MTF_PENDING: u16 = 8;
    pub(super) const GIF_SET: u16 = 0x100;
}

/// Flags of system management mode in a VMX header.
mod smm_flag {
    pub(super) const GUEST_MODE: u16 = 1;
    pub(super) const VMXON: u16 = 2;
}

/// How a processor virtualizes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum NestedFormat {
    /// Intel VMX.
    Vmx,
    /// AMD SVM.
    Svm,
}

impl fmt::Display for NestedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmx => "Intel VMX",
            Self::Svm => "AMD SVM",
        })
    }
}

impl NestedFormat {
    /// The state of a processor that is not in VMX operation, or that has never executed a guest and takes interrupts.
    /// Writing it leaves whatever the processor was in. It is not all zeros: that would be VMX operation with a region at
    /// address zero, and on SVM a processor that takes no interrupts.
    pub fn state_at_reset(self) -> Vec<u8> {
        let mut state = vec![0; NESTED_HEADER_SIZE];
        match self {
            Self::Vmx => state[8..24].fill(0xff),
            Self::Svm => {
                state[0..2].copy_from_slice(&flag::GIF_SET.to_le_bytes());
                state[2..4].copy_from_slice(&1_u16.to_le_bytes());
            }
        }
        state[4..8].copy_from_slice(&(NESTED_HEADER_SIZE as u32).to_le_bytes());
        state
    }
}

/// Why nested state cannot be restored.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NestedStateError {
    /// The guest has nested virtualization and the saved state does not.
    #[error("it is missing: the state was saved of a guest without nested virtualization")]
    Missing,
    /// The saved state has nested virtualization and the guest does not.
    #[error("there is some ({0} bytes), but nested virtualization is off")]
    NotOffered(usize),
    /// The state ends early.
    #[error("it is truncated: {len} bytes of at least {needed}")]
    Truncated {
        /// Bytes there are.
        len: usize,
        /// Bytes there should be.
        needed: usize,
    },
    /// There is more than any state has, or than this host takes.
    #[error("it has {len} bytes, more than the {most} that this host takes")]
    TooLong {
        /// Bytes there are.
        len: usize,
        /// The most there can be.
        most: usize,
    },
    /// The header has another size.
    #[error("it has {len} bytes, but its header says {header}")]
    Size {
        /// Bytes there are.
        len: usize,
        /// Bytes by the header.
        header: u32,
    },
    /// The format is neither vendor's.
    #[error("its format {0} is unknown")]
    UnknownFormat(u16),
    /// It is that of another vendor's processor.
    #[error("it was saved on a processor with {saved}, and this host has {host}")]
    OtherVendor {
        /// Where it was saved.
        saved: NestedFormat,
        /// The host's.
        host: NestedFormat,
    },
    /// Flags have bits that nobody knows, or not for this vendor.
    #[error("bits {bits:#x} of {what} are unknown")]
    UnknownFlags {
        /// Which flags.
        what: &'static str,
        /// The bits.
        bits: u32,
    },
    /// Things that exclude or require each other.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
    /// It needs an interface of Hyper-V.
    #[error("its guest used an enlightened VMCS, which is not offered here")]
    EnlightenedVmcs,
    /// An address is not one of a page of RAM.
    #[error("the address {gpa:#x} of {what} is not that of a page of RAM")]
    Address {
        /// What is there.
        what: &'static str,
        /// The guest-physical address.
        gpa: u64,
    },
    /// A VMCS has another format.
    #[error("the revision {revision:#x} of {what} is unknown")]
    Revision {
        /// Which VMCS.
        what: &'static str,
        /// Its first four bytes.
        revision: u32,
    },
}

/// What nested state has to fit to.
pub struct NestedGuest<'a> {
    /// The host's format.
    pub format: NestedFormat,
    /// Bytes of the largest state that the host takes.
    pub max_size: usize,
    /// EFER, which is restored with it.
    pub efer: u64,
    /// Whether the processor is restored to system management mode.
    pub smm: bool,
    /// Whether the page at a guest-physical address is RAM.
    pub is_ram: &'a dyn Fn(u64) -> bool,
}

/// The state's bytes, of which the header is there.
struct Parts<'a> {
    header: &'a [u8; NESTED_HEADER_SIZE],
    pages: &'a [u8],
}

impl Parts<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        std::array::from_fn(|n| self.header[offset + n])
    }

    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes(offset))
    }

    /// The first number of a page after the header.
    fn revision(&self, page: usize) -> Option<u32> {
        let bytes = self.pages.get(page * PAGE_SIZE..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }
}

/// Refuses bits other than `known`.
fn known(what: &'static str, flags: u32, known: u32) -> Result<(), NestedStateError> {
    match flags & !known {
        0 => Ok(()),
        bits => Err(NestedStateError::UnknownFlags { what, bits }),
    }
}

/// Refuses what must not be.
fn consistent(possible: bool, otherwise: &'static str) -> Result<(), NestedStateError> {
    let refused = NestedStateError::Contradiction(otherwise);
    possible.then_some(()).ok_or(refused)
}

impl NestedGuest<'_> {
    /// Refuses nested state that this guest cannot have: all that a hypervisor would refuse without saying why, but for
    /// what is inside a VMCS or VMCB.
    pub fn check(&self, state: &[u8]) -> Result<(), NestedStateError> {
        let len = state.len();
        if len == 0 {
            return Err(NestedStateError::Missing);
        }
        let Some((header, pages)) = state.split_first_chunk() else {
            let needed = NESTED_HEADER_SIZE;
            return Err(NestedStateError::Truncated { len, needed });
        };
        let state = Parts { header, pages };
        let saved = match state.u16(2) {
            0 => NestedFormat::Vmx,
            1 => NestedFormat::Svm,
            other => return Err(NestedStateError::UnknownFormat(other)),
        };
        if saved != self.format {
            let host = self.format;
            return Err(NestedStateError::OtherVendor { saved, host });
        }
        let header = state.u32(4);
        if len < header as usize {
            let needed = header as usize;
            return Err(NestedStateError::Truncated { len, needed });
        }
        let most = self.max_size.min(MAX_NESTED_STATE);
        if len > most {
            return Err(NestedStateError::TooLong { len, most });
        }
        if len != header as usize {
            return Err(NestedStateError::Size { len, header });
        }
        let flags = state.u16(0);
        let has = |flag| flags & flag != 0;
        consistent(
            has(flag::GUEST_MODE) || !has(flag::RUN_PENDING),
            "it enters a guest but is not in guest mode",
        )?;
        match saved {
            NestedFormat::Vmx => self.check_vmx(&state, flags),
            NestedFormat::Svm => self.check_svm(&state, flags),
        }
    }

    fn page(&self, what: &'static str, gpa: u64) -> Result<(), NestedStateError> {
        let possible = gpa.is_multiple_of(PAGE_SIZE as u64) && (self.is_ram)(gpa);
        let refused = NestedStateError::Address { what, gpa };
        possible.then_some(()).ok_or(refused)
    }

    fn check_svm(&self, state: &Parts<'_>, flags: u16) -> Result<(), NestedStateError> {
        use flag::*;
        known(
            "its flags",
            flags.into(),
            (GUEST_MODE | RUN_PENDING | GIF_SET).into(),
        )?;
        // Bit 0: the header has the PAT of the guest's guest.
        known("its SVM flags", state.u32(16), 1)?;
        consistent(
            self.efer & EFER_SVME != 0 || flags == GIF_SET,
            "SVM is disabled in EFER, but it is in guest mode or takes no interrupts",
        )?;
        if flags & GUEST_MODE == 0 {
            return Ok(());
        }
        consistent(
            !self.smm,
            "it is in guest mode and in system management mode",
        )?;
        let (len, needed) = (
            NESTED_HEADER_SIZE + state.pages.len(),
            NESTED_HEADER_SIZE + PAGE_SIZE,
        );
        if len < needed {
            return Err(NestedStateError::Truncated { len, needed });
        }
        self.page("its VMCB", state.u64(8))
    }

    fn check_vmx(&self, state: &Parts<'_>, flags: u16) -> Result<(), NestedStateError> {
        use flag::*;
        let smm = state.u16(24);
        let (vmxon, vmcs) = (state.u64(8), state.u64(16));
        let (guest_mode, in_smm_guest_mode) =
            (flags & GUEST_MODE != 0, smm & smm_flag::GUEST_MODE != 0);
        let all = GUEST_MODE | RUN_PENDING | ENLIGHTENED_VMCS | MTF_PENDING;
        known("its flags", flags.into(), all.into())?;
        known(
            "its flags of system management mode",
            smm.into(),
            (smm_flag::GUEST_MODE | smm_flag::VMXON).into(),
        )?;
        known("its VMX flags", state.u32(28), 1)?;
        if flags & ENLIGHTENED_VMCS != 0 {
            return Err(NestedStateError::EnlightenedVmcs);
        }
        if vmxon == NOWHERE {
            return consistent(
                flags == 0 && smm == 0 && vmcs == NOWHERE,
                "it is not in VMX operation, but has flags or a VMCS",
            );
        }
        self.page("its VMXON region", vmxon)?;
        consistent(
            self.smm || smm == 0,
            "it has VMX state of system management mode outside of that mode",
        )?;
        consistent(
            !self.smm || !guest_mode,
            "it is in guest mode and in system management mode",
        )?;
        consistent(
            !in_smm_guest_mode || smm & smm_flag::VMXON != 0,
            "system management mode interrupted guest mode, but not VMX operation",
        )?;
        if vmcs == NOWHERE {
            return consistent(
                !guest_mode && state.pages.is_empty(),
                "it is in guest mode or has a VMCS, but not its address",
            );
        }
        self.page("its VMCS", vmcs)?;
        consistent(vmcs != vmxon, "its VMCS is its VMXON region")?;
        let (len, needed) = (
            NESTED_HEADER_SIZE + state.pages.len(),
            NESTED_HEADER_SIZE + PAGE_SIZE,
        );
        if len < needed {
            return Err(NestedStateError::Truncated { len, needed });
        }
        let revision = state.revision(0).unwrap_or_default();
        if revision != VMCS_REVISION {
            let what = "its VMCS";
            return Err(NestedStateError::Revision { what, revision });
        }
        match state.revision(1) {
            Some(revision) if revision != VMCS_REVISION | SHADOW_VMCS => {
                let what = "its shadow VMCS";
                Err(NestedStateError::Revision { what, revision })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "nested_test.rs"]
mod tests;
