//! Comparing the machine that a guest hibernated on with the one that is started.

use crate::AddressRange;
use crate::BlobDigest;
use crate::BootFile;
use crate::DiskContent;
use crate::MmioRange;
use crate::PlatformDevice;
use crate::PlatformDisk;
use crate::PlatformProcessor;
use crate::PlatformView;
use crate::cpu_features;
use chipset_device::PciAddress;
use std::collections::BTreeMap;
use std::fmt;

/// A difference between two machines. Displayed, it is one line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    aspect: Aspect,
    text: String,
}

impl Difference {
    /// The part of the machine that differs. A VMM that gives the guest its pinned tables can ignore
    /// [`Aspect::Acpi`] and [`Aspect::Smbios`], and nothing else.
    pub fn aspect(&self) -> Aspect {
        self.aspect
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.aspect, self.text)
    }
}

/// The part of the machine that a difference is about.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// RAM.
    Memory,
    /// Processors.
    Processors,
    /// MMIO ranges.
    Mmio,
    /// The set of devices.
    Devices,
    /// The disks and what is on them.
    Disks,
    /// What the VMM gives the firmware to boot.
    BootFiles,
    /// The ACPI tables.
    Acpi,
    /// The SMBIOS structures.
    Smbios,
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Processors => "processors",
            Self::Mmio => "mmio",
            Self::Devices => "devices",
            Self::Disks => "disks",
            Self::BootFiles => "boot files",
            Self::Acpi => "acpi",
            Self::Smbios => "smbios",
        })
    }
}

impl fmt::Display for PlatformDevice {
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

/// A size in MiB if that is exact, otherwise in bytes.
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
        // Enough to tell two digests apart.
        let short = digest.get(..16).unwrap_or(&digest);
        write!(f, "{length} bytes of SHA-256 {short}…")
    }
}

/// Collects differences.
#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, aspect: Aspect, text: String) {
        self.0.push(Difference { aspect, text });
    }

    /// Adds the values of an item that differs.
    fn changed(
        &mut self,
        aspect: Aspect,
        hibernated: impl fmt::Display,
        started: impl fmt::Display,
    ) {
        self.add(
            aspect,
            format!("hibernated with {hibernated}, started with {started}"),
        );
    }
}

/// The largest difference of two frequencies of the time stamp counter that is none: hosts measure theirs, and a
/// guest's own clock synchronization corrects up to 500 parts per million.
const TSC_TOLERANCE_PPM: u64 = 500;

/// The differences, in the order of [`Aspect`]. What one of the views does not have because of its version is not
/// compared. Processors may have more features than those that the guest hibernated on.
pub fn differences(hibernated: &PlatformView, started: &PlatformView) -> Vec<Difference> {
    let mut found = Differences::default();
    memory(&mut found, hibernated, started);
    processors(&mut found, &hibernated.apic_ids, &started.apic_ids);
    if let (Some(then), Some(now)) = (&hibernated.processor, &started.processor) {
        processor(&mut found, then, now);
    }
    mmio(&mut found, &hibernated.mmio, &started.mmio);
    devices(&mut found, &hibernated.devices, &started.devices);
    if let (Some(then), Some(now)) = (&hibernated.disks, &started.disks) {
        disks(&mut found, then, now);
    }
    if let (Some(then), Some(now)) = (&hibernated.boot_files, &started.boot_files) {
        boot_files(&mut found, then, now);
    }
    for (aspect, then, now) in [
        (Aspect::Acpi, &hibernated.acpi, &started.acpi),
        (Aspect::Smbios, &hibernated.smbios, &started.smbios),
    ] {
        if then != now {
            found.changed(aspect, Blob(then), Blob(now));
        }
    }
    found.0
}

fn memory(found: &mut Differences, hibernated: &PlatformView, started: &PlatformView) {
    let sorted = |view: &PlatformView| {
        let mut ram = view.ram.clone();
        ram.sort_unstable();
        ram
    };
    let (then, now) = (sorted(hibernated), sorted(started));
    let (then_size, now_size) = (hibernated.ram_size(), started.ram_size());
    if then_size != now_size {
        found.changed(Aspect::Memory, Size(then_size), Size(now_size));
    } else if then != now {
        found.changed(Aspect::Memory, Ranges(&then), Ranges(&now));
    }
}

fn processors(found: &mut Differences, hibernated: &[u32], started: &[u32]) {
    if hibernated.len() != started.len() {
        found.changed(Aspect::Processors, hibernated.len(), started.len());
        return;
    }
    for (processor, (then, now)) in hibernated.iter().zip(started).enumerate() {
        if then != now {
            let text = format!(
                "processor {processor} hibernated with APIC id {then}, started with APIC id {now}"
            );
            found.add(Aspect::Processors, text);
        }
    }
}

fn processor(found: &mut Differences, then: &PlatformProcessor, now: &PlatformProcessor) {
    let aspect = Aspect::Processors;
    let (sockets_then, sockets_now) = (then.vps_per_socket, now.vps_per_socket);
    if sockets_then != sockets_now {
        let sockets = |vps| format!("{vps} in a socket");
        found.changed(aspect, sockets(sockets_then), sockets(sockets_now));
    }
    let (threads_then, threads_now) = (then.threads_per_core, now.threads_per_core);
    if threads_then != threads_now {
        let threads = |threads| format!("{threads} threads in a core");
        found.changed(aspect, threads(threads_then), threads(threads_now));
    }
    let difference = u64::from(then.tsc_khz.abs_diff(now.tsc_khz));
    let known = then.tsc_khz != 0 && now.tsc_khz != 0;
    if known && difference * 1_000_000 > u64::from(then.tsc_khz) * TSC_TOLERANCE_PPM {
        let counter = |khz| format!("a time stamp counter of {khz} kHz");
        found.changed(aspect, counter(then.tsc_khz), counter(now.tsc_khz));
    }
    let (vendor_then, vendor_now) = (
        cpu_features::vendor(&then.cpuid).unwrap_or_default(),
        cpu_features::vendor(&now.cpuid).unwrap_or_default(),
    );
    if vendor_then != vendor_now {
        found.changed(aspect, vendor_then, vendor_now);
    }
    let (bits_then, bits_now) = (
        cpu_features::address_bits(&then.cpuid),
        cpu_features::address_bits(&now.cpuid),
    );
    if bits_then > bits_now {
        let bits = |bits| format!("{bits} address bits");
        found.changed(aspect, bits(bits_then), bits(bits_now));
    }
    let lost = cpu_features::lost(&then.cpuid, &now.cpuid);
    if !lost.is_empty() {
        let features = lost.join(", ");
        found.add(
            aspect,
            format!("hibernated with {features}, started without"),
        );
    }
}

fn disks(found: &mut Differences, hibernated: &[PlatformDisk], started: &[PlatformDisk]) {
    for pairing in by_name(hibernated, started, |disk| &disk.name) {
        // A disk that is missing is missing as a device.
        let Pairing::Both(then, now) = pairing else {
            continue;
        };
        let name = &then.name;
        let mut changed = |then: String, now: String| {
            found.changed(
                Aspect::Disks,
                format_args!("{name} {then}"),
                format_args!("{name} {now}"),
            );
        };
        if then.size != now.size {
            let size = |size| format!("of {}", Size(size));
            changed(size(then.size), size(now.size));
        }
        if then.sector != now.sector {
            let sectors = |sector| format!("with sectors of {sector} bytes");
            changed(sectors(then.sector), sectors(now.sector));
        }
        if then.read_only != now.read_only {
            let access = |read_only| match read_only {
                true => "read-only".to_owned(),
                false => "writable".to_owned(),
            };
            changed(access(then.read_only), access(now.read_only));
        }
        if then.serial != now.serial {
            let serial = |serial: &str| match serial {
                "" => "without a serial number".to_owned(),
                serial => format!("with serial number {serial}"),
            };
            changed(serial(&then.serial), serial(&now.serial));
        }
        let content = |content: &DiskContent| match content {
            DiskContent::NotRead => None,
            DiskContent::Unknown => Some("containing nothing known".to_owned()),
            DiskContent::Known(text) => Some(format!("containing {text}")),
        };
        if let (Some(then), Some(now)) = (content(&then.content), content(&now.content))
            && then != now
        {
            changed(then, now);
        }
    }
}

fn boot_files(found: &mut Differences, hibernated: &[BootFile], started: &[BootFile]) {
    for pairing in by_name(hibernated, started, |file| &file.name) {
        match pairing {
            Pairing::Removed(BootFile { name, .. }) => found.add(
                Aspect::BootFiles,
                format!("hibernated with a {name}, started without"),
            ),
            Pairing::Added(BootFile { name, .. }) => found.add(
                Aspect::BootFiles,
                format!("hibernated without a {name}, started with one"),
            ),
            Pairing::Both(then, now) if then.content != now.content => found.changed(
                Aspect::BootFiles,
                format_args!("a {} of {}", then.name, Blob(&then.content)),
                format_args!("one of {}", Blob(&now.content)),
            ),
            Pairing::Both(..) => {}
        }
    }
}

fn mmio(found: &mut Differences, hibernated: &[MmioRange], started: &[MmioRange]) {
    for pairing in by_name(hibernated, started, |mmio| &mmio.name) {
        match pairing {
            Pairing::Removed(MmioRange { name, range }) => found.add(
                Aspect::Mmio,
                format!("hibernated with {name} at {range}, started without it"),
            ),
            Pairing::Added(MmioRange { name, range }) => found.add(
                Aspect::Mmio,
                format!("hibernated without {name}, started with it at {range}"),
            ),
            Pairing::Both(then, now) if then.range != now.range => found.changed(
                Aspect::Mmio,
                format_args!("{} at {}", then.name, then.range),
                format_args!("{} at {}", now.name, now.range),
            ),
            Pairing::Both(..) => {}
        }
    }
}

fn devices(found: &mut Differences, hibernated: &[PlatformDevice], started: &[PlatformDevice]) {
    for pairing in by_name(hibernated, started, |device| &device.name) {
        match pairing {
            Pairing::Removed(device) => found.add(
                Aspect::Devices,
                format!("hibernated with {device}, started without it"),
            ),
            Pairing::Added(device) => found.add(
                Aspect::Devices,
                format!("hibernated without {device}, started with it"),
            ),
            Pairing::Both(then, now) => {
                let name = &then.name;
                if then.pci != now.pci {
                    found.changed(
                        Aspect::Devices,
                        format_args!("{name} {}", Place(then.pci)),
                        format_args!("{name} {}", Place(now.pci)),
                    );
                }
                if then.identity != now.identity {
                    found.changed(
                        Aspect::Devices,
                        format_args!("{name} being {}", then.identity),
                        format_args!("{name} being {}", now.identity),
                    );
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
