//! What is different between the machine a guest hibernated on and the one it is to wake on.

use crate::AddressRange;
use crate::BlobDigest;
use crate::Device;
use crate::MmioRange;
use crate::PlatformView;
use chipset_device::PciAddress;
use std::collections::BTreeMap;
use std::fmt;

/// One thing that is different. Displayed, it is a line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// There is more or less RAM, in bytes.
    MemorySize {
        /// Then.
        hibernated: u64,
        /// Now.
        started: u64,
    },
    /// There is as much RAM, elsewhere.
    MemoryLayout {
        /// Then.
        hibernated: Vec<AddressRange>,
        /// Now.
        started: Vec<AddressRange>,
    },
    /// There are more or fewer processors.
    ProcessorCount {
        /// Then.
        hibernated: usize,
        /// Now.
        started: usize,
    },
    /// A processor has another APIC id.
    ApicId {
        /// Which processor.
        processor: usize,
        /// Then.
        hibernated: u32,
        /// Now.
        started: u32,
    },
    /// An MMIO range is there that was not.
    MmioAdded(MmioRange),
    /// An MMIO range is gone.
    MmioRemoved(MmioRange),
    /// An MMIO range is elsewhere or of another size.
    MmioMoved {
        /// What it is for.
        name: String,
        /// Then.
        hibernated: AddressRange,
        /// Now.
        started: AddressRange,
    },
    /// A device is there that was not.
    DeviceAdded(Device),
    /// A device is gone.
    DeviceRemoved(Device),
    /// A device is elsewhere on the PCI bus.
    DeviceMoved {
        /// The device.
        name: String,
        /// Then.
        hibernated: Option<PciAddress>,
        /// Now.
        started: Option<PciAddress>,
    },
    /// A device is another one.
    DeviceReplaced {
        /// The device.
        name: String,
        /// What it was.
        hibernated: String,
        /// What it is.
        started: String,
    },
    /// The ACPI tables are others.
    Acpi {
        /// Then.
        hibernated: BlobDigest,
        /// Now.
        started: BlobDigest,
    },
    /// The SMBIOS structures are others.
    Smbios {
        /// Then.
        hibernated: BlobDigest,
        /// Now.
        started: BlobDigest,
    },
}

/// The part of the machine that a difference is about.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// RAM.
    Memory,
    /// Processors.
    Processors,
    /// Ranges for devices' registers.
    Mmio,
    /// The set of devices.
    Devices,
    /// What the ACPI tables say.
    Acpi,
    /// What the SMBIOS structures say.
    Smbios,
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Processors => "processors",
            Self::Mmio => "mmio",
            Self::Devices => "devices",
            Self::Acpi => "acpi",
            Self::Smbios => "smbios",
        })
    }
}

impl Difference {
    /// What it is about. A VMM that gives the guest the tables it had can let [`Aspect::Acpi`] and
    /// [`Aspect::Smbios`] pass, and nothing else.
    pub fn aspect(&self) -> Aspect {
        match self {
            Self::MemorySize { .. } | Self::MemoryLayout { .. } => Aspect::Memory,
            Self::ProcessorCount { .. } | Self::ApicId { .. } => Aspect::Processors,
            Self::MmioAdded(_) | Self::MmioRemoved(_) | Self::MmioMoved { .. } => Aspect::Mmio,
            Self::DeviceAdded(_)
            | Self::DeviceRemoved(_)
            | Self::DeviceMoved { .. }
            | Self::DeviceReplaced { .. } => Aspect::Devices,
            Self::Acpi { .. } => Aspect::Acpi,
            Self::Smbios { .. } => Aspect::Smbios,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.aspect())?;
        match self {
            Self::MemorySize {
                hibernated,
                started,
            } => pair(f, Size(*hibernated), Size(*started)),
            Self::MemoryLayout {
                hibernated,
                started,
            } => pair(f, Ranges(hibernated), Ranges(started)),
            Self::ProcessorCount {
                hibernated,
                started,
            } => pair(f, hibernated, started),
            Self::ApicId {
                processor,
                hibernated,
                started,
            } => {
                write!(f, "processor {processor} ")?;
                pair(
                    f,
                    format_args!("APIC id {hibernated}"),
                    format_args!("APIC id {started}"),
                )
            }
            Self::MmioAdded(MmioRange { name, range }) => {
                write!(f, "hibernated without {name}, started with it at {range}")
            }
            Self::MmioRemoved(MmioRange { name, range }) => {
                write!(f, "hibernated with {name} at {range}, started without it")
            }
            Self::MmioMoved {
                name,
                hibernated,
                started,
            } => pair(
                f,
                format_args!("{name} at {hibernated}"),
                format_args!("{name} at {started}"),
            ),
            Self::DeviceAdded(device) => {
                write!(f, "hibernated without {device}, started with it")
            }
            Self::DeviceRemoved(device) => {
                write!(f, "hibernated with {device}, started without it")
            }
            Self::DeviceMoved {
                name,
                hibernated,
                started,
            } => pair(
                f,
                format_args!("{name} {}", Place(*hibernated)),
                format_args!("{name} {}", Place(*started)),
            ),
            Self::DeviceReplaced {
                name,
                hibernated,
                started,
            } => pair(
                f,
                format_args!("{name} being {hibernated}"),
                format_args!("{name} being {started}"),
            ),
            Self::Acpi {
                hibernated,
                started,
            }
            | Self::Smbios {
                hibernated,
                started,
            } => pair(f, Blob(hibernated), Blob(started)),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if self.pci.is_some() {
            write!(f, " {}", Place(self.pci))?;
        }
        if !self.identity.is_empty() {
            write!(f, " ({})", self.identity)?;
        }
        Ok(())
    }
}

fn pair(
    f: &mut fmt::Formatter<'_>,
    hibernated: impl fmt::Display,
    started: impl fmt::Display,
) -> fmt::Result {
    write!(f, "hibernated with {hibernated}, started with {started}")
}

/// Bytes in MiB, where that is exact.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1 << 20) {
            write!(f, "{} MiB", self.0 >> 20)
        } else {
            write!(f, "{} bytes", self.0)
        }
    }
}

struct Ranges<'a>(&'a [AddressRange]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RAM at ")?;
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { " and " };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

struct Place(Option<PciAddress>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "at {address}"),
            None => f.write_str("off the PCI bus"),
        }
    }
}

struct Blob<'a>(&'a BlobDigest);

impl fmt::Display for Blob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlobDigest { length, sha256 } = self.0;
        if *self.0 == BlobDigest::default() {
            return f.write_str("none");
        }
        let digest = sha256.to_string();
        // Enough of it to tell two apart by eye.
        let short = digest.get(..16).unwrap_or(&digest);
        write!(f, "{length} bytes of SHA-256 {short}…")
    }
}

/// What is different, by aspect in the order of [`Aspect`]. For two views that can be encoded, it is empty
/// exactly if their encodings are equal.
pub fn differences(hibernated: &PlatformView, started: &PlatformView) -> Vec<Difference> {
    let mut found = Vec::new();
    memory(&mut found, hibernated, started);
    processors(&mut found, hibernated, started);
    mmio(&mut found, hibernated, started);
    devices(&mut found, hibernated, started);
    if hibernated.acpi != started.acpi {
        found.push(Difference::Acpi {
            hibernated: hibernated.acpi,
            started: started.acpi,
        });
    }
    if hibernated.smbios != started.smbios {
        found.push(Difference::Smbios {
            hibernated: hibernated.smbios,
            started: started.smbios,
        });
    }
    found
}

fn memory(found: &mut Vec<Difference>, hibernated: &PlatformView, started: &PlatformView) {
    let sorted = |view: &PlatformView| {
        let mut ram = view.ram.clone();
        ram.sort_unstable();
        ram
    };
    let (then, now) = (sorted(hibernated), sorted(started));
    if hibernated.ram_size() != started.ram_size() {
        found.push(Difference::MemorySize {
            hibernated: hibernated.ram_size(),
            started: started.ram_size(),
        });
    } else if then != now {
        found.push(Difference::MemoryLayout {
            hibernated: then,
            started: now,
        });
    }
}

fn processors(found: &mut Vec<Difference>, hibernated: &PlatformView, started: &PlatformView) {
    let (then, now) = (&hibernated.apic_ids, &started.apic_ids);
    if then.len() != now.len() {
        found.push(Difference::ProcessorCount {
            hibernated: then.len(),
            started: now.len(),
        });
        return;
    }
    for (processor, (then, now)) in then.iter().zip(now).enumerate() {
        if then != now {
            found.push(Difference::ApicId {
                processor,
                hibernated: *then,
                started: *now,
            });
        }
    }
}

fn mmio(found: &mut Vec<Difference>, hibernated: &PlatformView, started: &PlatformView) {
    for pairing in by_name(&hibernated.mmio, &started.mmio, |m| &m.name) {
        match pairing {
            Pairing::Removed(then) => found.push(Difference::MmioRemoved(then.clone())),
            Pairing::Added(now) => found.push(Difference::MmioAdded(now.clone())),
            Pairing::Both(then, now) => {
                if then.range != now.range {
                    found.push(Difference::MmioMoved {
                        name: then.name.clone(),
                        hibernated: then.range,
                        started: now.range,
                    });
                }
            }
        }
    }
}

fn devices(found: &mut Vec<Difference>, hibernated: &PlatformView, started: &PlatformView) {
    for pairing in by_name(&hibernated.devices, &started.devices, |d| &d.name) {
        match pairing {
            Pairing::Removed(then) => found.push(Difference::DeviceRemoved(then.clone())),
            Pairing::Added(now) => found.push(Difference::DeviceAdded(now.clone())),
            Pairing::Both(then, now) => {
                if then.pci != now.pci {
                    found.push(Difference::DeviceMoved {
                        name: then.name.clone(),
                        hibernated: then.pci,
                        started: now.pci,
                    });
                }
                if then.identity != now.identity {
                    found.push(Difference::DeviceReplaced {
                        name: then.name.clone(),
                        hibernated: then.identity.clone(),
                        started: now.identity.clone(),
                    });
                }
            }
        }
    }
}

enum Pairing<'a, T> {
    Removed(&'a T),
    Added(&'a T),
    Both(&'a T, &'a T),
}

/// Matches entries by their names, which are unique in a view.
fn by_name<'a, T>(
    then: &'a [T],
    now: &'a [T],
    name: impl Fn(&T) -> &String,
) -> Vec<Pairing<'a, T>> {
    let mut names: BTreeMap<&String, (Option<&T>, Option<&T>)> = BTreeMap::new();
    for entry in then {
        names.entry(name(entry)).or_default().0 = Some(entry);
    }
    for entry in now {
        names.entry(name(entry)).or_default().1 = Some(entry);
    }
    names
        .into_values()
        .filter_map(|pairing| match pairing {
            (Some(then), Some(now)) => Some(Pairing::Both(then, now)),
            (Some(then), None) => Some(Pairing::Removed(then)),
            (None, Some(now)) => Some(Pairing::Added(now)),
            (None, None) => None,
        })
        .collect()
}

#[cfg(test)]
#[path = "compare_test.rs"]
mod tests;
