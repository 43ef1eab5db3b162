//! Platform views: comparing, encoding and decoding them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use chipset_device::PciAddress;
use platform_digest::AddressRange;
use platform_digest::Aspect;
use platform_digest::BlobDigest;
use platform_digest::BootFile;
use platform_digest::CpuidLeaf;
use platform_digest::Digest;
use platform_digest::DiskContent;
use platform_digest::InvalidView;
use platform_digest::MAX_ENCODED_LEN;
use platform_digest::MmioRange;
use platform_digest::PlatformDevice;
use platform_digest::PlatformDisk;
use platform_digest::PlatformProcessor;
use platform_digest::PlatformView;
use platform_digest::ViewDecodeError;
use platform_digest::differences;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn pci(device: u8) -> Option<PciAddress> {
    Some(PciAddress {
        bus: 0,
        device,
        function: 0,
    })
}

fn device(name: &str, place: Option<PciAddress>, identity: &str) -> PlatformDevice {
    PlatformDevice {
        name: name.into(),
        pci: place,
        identity: identity.into(),
    }
}

fn view() -> PlatformView {
    PlatformView {
        ram: vec![AddressRange::new(0, 2048 * MIB)],
        mmio: vec![
            MmioRange {
                name: "pci32".into(),
                range: AddressRange::new(0xc000_0000, 0x3c00_0000),
            },
            MmioRange {
                name: "ecam".into(),
                range: AddressRange::new(0xb000_0000, 0x1000_0000),
            },
        ],
        apic_ids: vec![0, 1],
        acpi: BlobDigest::of([("etc/acpi/tables", &b"tables"[..])]),
        smbios: BlobDigest::of([("etc/smbios/smbios-tables", &b"smbios"[..])]),
        devices: vec![
            device("disk0", pci(3), "virtio-blk serial a"),
            device("com1", None, ""),
        ],
        ..PlatformView::default()
    }
}

fn cpuid(leaf: u32, subleaf: Option<u32>, registers: [u32; 4]) -> CpuidLeaf {
    CpuidLeaf {
        leaf,
        subleaf,
        registers,
    }
}

/// A machine with all that a view can have.
fn full_view() -> PlatformView {
    let [ebx, edx, ecx] = [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes);
    PlatformView {
        disks: Some(vec![
            PlatformDisk {
                name: "disk0".into(),
                size: 2000 * MIB,
                sector: 512,
                read_only: false,
                serial: String::new(),
                content: DiskContent::Known("GPT disk 1".into()),
            },
            PlatformDisk {
                name: "disk1".into(),
                size: 512,
                sector: 4096,
                read_only: true,
                serial: "abc".into(),
                content: DiskContent::Unknown,
            },
        ]),
        processor: Some(PlatformProcessor {
            vps_per_socket: 2,
            threads_per_core: 1,
            tsc_khz: 2_000_000,
            cpuid: vec![
                cpuid(0, None, [0xd, ebx, ecx, edx]),
                // pclmulqdq and the hypervisor bit.
                cpuid(1, None, [0, 0, 1 << 31 | 2, 0]),
                // avx2.
                cpuid(7, Some(0), [0, 1 << 5, 0, 0]),
                cpuid(0x8000_0008, None, [40, 0, 0, 0]),
            ],
        }),
        boot_files: Some(vec![
            BootFile {
                name: "command line".into(),
                content: BlobDigest::of([("command line", &b"quiet"[..])]),
            },
            BootFile {
                name: "kernel".into(),
                content: BlobDigest::of([("kernel", &b"MZ"[..])]),
            },
        ]),
        ..view()
    }
}

fn lines(started: &PlatformView) -> Vec<String> {
    differences(&view(), started)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn each_difference_reads_as_a_line() {
    let mut v = view();
    assert_eq!(lines(&v), [""; 0]);
    v.ram[0].length = 4096 * MIB;
    v.apic_ids = vec![0, 1, 2, 3];
    assert_eq!(
        lines(&v),
        [
            "memory: hibernated with 2048 MiB, started with 4096 MiB",
            "processors: hibernated with 2, started with 4",
        ]
    );

    let mut v = view();
    v.ram = vec![
        AddressRange::new(0x1_0000_0000, 1024 * MIB),
        AddressRange::new(0, 1024 * MIB),
    ];
    v.apic_ids[1] = 2;
    v.mmio[0].range.start = 0xd000_0000;
    v.mmio[1].name = "ecam2".into();
    assert_eq!(
        lines(&v),
        [
            "memory: hibernated with RAM at 0x0-0x7fffffff, \
             started with RAM at 0x0-0x3fffffff and 0x100000000-0x13fffffff",
            "processors: processor 1 hibernated with APIC id 1, started with APIC id 2",
            "mmio: hibernated with ecam at 0xb0000000-0xbfffffff, started without it",
            "mmio: hibernated without ecam2, started with it at 0xb0000000-0xbfffffff",
            "mmio: hibernated with pci32 at 0xc0000000-0xfbffffff, \
             started with pci32 at 0xd0000000-0x10bffffff",
        ]
    );

    let mut v = view();
    v.ram[0].length += 1;
    v.devices = vec![
        device("disk0", pci(4), "virtio-blk serial b"),
        device("net0", pci(5), "virtio-net 02:00:00:00:00:01"),
    ];
    v.acpi = BlobDigest::default();
    v.smbios = BlobDigest {
        length: 5,
        sha256: Digest([0xab; 32]),
    };
    assert_eq!(
        lines(&v)[..5],
        [
            "memory: hibernated with 2048 MiB, started with 2147483649 bytes",
            "devices: hibernated with com1, started without it",
            "devices: hibernated with disk0 at 00:03.0, started with disk0 at 00:04.0",
            "devices: hibernated with disk0 being virtio-blk serial a, \
             started with disk0 being virtio-blk serial b",
            "devices: hibernated without net0 at 00:05.0 (virtio-net 02:00:00:00:00:01), started with it",
        ]
    );
    assert!(lines(&v)[5].starts_with("acpi: hibernated with 6 bytes of SHA-256 "));
    assert!(lines(&v)[5].ends_with("…, started with none"));
    assert!(lines(&v)[6].ends_with("started with 5 bytes of SHA-256 abababababababab…"));
    v.devices[0].pci = None;
    assert!(lines(&v)[2].ends_with("at 00:03.0, started with disk0 off the PCI bus"));
}

#[test]
fn a_replaced_disk_reads_as_a_line() {
    let changed = |change: &dyn Fn(&mut Vec<PlatformDisk>)| {
        let mut started = full_view();
        change(started.disks.as_mut().unwrap());
        let found = differences(&full_view(), &started);
        assert!(found.iter().all(|d| d.aspect() == Aspect::Disks));
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        changed(&|disks| disks[0].size = 899 * MIB),
        ["disks: hibernated with disk0 of 2000 MiB, started with disk0 of 899 MiB"]
    );
    assert_eq!(
        changed(&|disks| disks[1].sector = 512),
        [
            "disks: hibernated with disk1 with sectors of 4096 bytes, started with disk1 with sectors of 512 bytes"
        ]
    );
    assert_eq!(
        changed(&|disks| disks[1].read_only = false),
        ["disks: hibernated with disk1 read-only, started with disk1 writable"]
    );
    assert_eq!(
        changed(&|disks| disks[1].serial.clear()),
        [
            "disks: hibernated with disk1 with serial number abc, started with disk1 without a serial number"
        ]
    );
    assert_eq!(
        changed(&|disks| disks[0].content = DiskContent::Known("XFS 2".into())),
        ["disks: hibernated with disk0 containing GPT disk 1, started with disk0 containing XFS 2"]
    );
    assert_eq!(
        changed(&|disks| disks[1].content = DiskContent::Known("XFS 2".into())),
        [
            "disks: hibernated with disk1 containing nothing known, started with disk1 containing XFS 2"
        ]
    );
    // Two disks swapped.
    let swapped = changed(&|disks| {
        let [a, b] = disks.as_mut_slice() else {
            unreachable!("two disks")
        };
        std::mem::swap(&mut a.name, &mut b.name);
    });
    assert_eq!(swapped.len(), 10, "{swapped:?}");
    // A content that was not read is not compared, and a missing disk is a missing device.
    assert_eq!(
        changed(&|disks| disks[0].content = DiskContent::NotRead),
        [""; 0]
    );
    assert_eq!(changed(&|disks| disks.clear()), [""; 0]);
}

#[test]
fn a_processor_that_lacks_what_the_guest_was_told_reads_as_a_line() {
    let changed = |change: &dyn Fn(&mut PlatformProcessor)| {
        let mut started = full_view();
        change(started.processor.as_mut().unwrap());
        let found = differences(&full_view(), &started);
        assert!(found.iter().all(|d| d.aspect() == Aspect::Processors));
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let none = [""; 0];
    assert_eq!(
        changed(&|p| {
            p.cpuid[1].registers[2] &= !2;
            p.cpuid[2].registers[1] = 0;
        }),
        ["processors: hibernated with pclmulqdq, avx2, started without"]
    );
    assert_eq!(changed(&|p| p.cpuid[2].registers[1] |= 1 << 16), none);
    // Family, model and stepping are not what software relies on.
    assert_eq!(changed(&|p| p.cpuid[1].registers[0] = 0x906a3), none);
    assert_eq!(
        changed(&|p| p.cpuid[0].registers[1] = u32::from_le_bytes(*b"Auth")),
        ["processors: hibernated with GenuineIntel, started with AuthineIntel"]
    );
    assert_eq!(
        changed(&|p| p.cpuid[3].registers[0] = 39),
        ["processors: hibernated with 40 address bits, started with 39 address bits"]
    );
    assert_eq!(changed(&|p| p.cpuid[3].registers[0] = 46), none);
    assert_eq!(
        changed(&|p| p.vps_per_socket = 1),
        ["processors: hibernated with 2 in a socket, started with 1 in a socket"]
    );
    assert_eq!(
        changed(&|p| p.threads_per_core = 2),
        ["processors: hibernated with 1 threads in a core, started with 2 threads in a core"]
    );
    assert_eq!(
        changed(&|p| p.tsc_khz = 2_001_001),
        [
            "processors: hibernated with a time stamp counter of 2000000 kHz, \
             started with a time stamp counter of 2001001 kHz"
        ]
    );
    for khz in [2_001_000, 1_999_000, 0] {
        assert_eq!(changed(&|p| p.tsc_khz = khz), none, "{khz}");
    }
}

#[test]
fn another_kernel_reads_as_a_line() {
    let changed = |change: &dyn Fn(&mut Vec<BootFile>)| {
        let mut started = full_view();
        change(started.boot_files.as_mut().unwrap());
        let found = differences(&full_view(), &started);
        assert!(found.iter().all(|d| d.aspect() == Aspect::BootFiles));
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let other = changed(&|files| files[1].content = BlobDigest::of([("kernel", &b"ELF"[..])]));
    assert_eq!(other.len(), 1);
    assert!(
        other[0].starts_with("boot files: hibernated with a kernel of 2 bytes of SHA-256 "),
        "{other:?}"
    );
    assert_eq!(
        changed(&|files| files.truncate(1)),
        ["boot files: hibernated with a kernel, started without"]
    );
    assert_eq!(
        changed(&|files| files[0].name = "disk".into()),
        [
            "boot files: hibernated with a command line, started without",
            "boot files: hibernated without a disk, started with one",
        ]
    );
}

/// Bytes as the first version wrote them.
#[test]
fn what_an_older_view_does_not_hold_is_not_compared() {
    let old = PlatformView::decode(&view().encode().unwrap()).unwrap();
    assert_eq!(view().encode().unwrap()[8..12], 1_u32.to_le_bytes());
    assert_eq!(differences(&old, &full_view()), []);
    assert_eq!(differences(&full_view(), &old), []);
}

#[test]
fn the_fields_survive_storage() {
    let bytes = full_view().encode().unwrap();
    assert_eq!(bytes[8..12], 2_u32.to_le_bytes());
    // Its lists are in canonical order.
    let decoded = PlatformView::decode(&bytes).unwrap();
    assert_eq!(decoded.disks, full_view().disks);
    assert_eq!(decoded.processor, full_view().processor);
    assert_eq!(decoded.boot_files, full_view().boot_files);
    assert_eq!(decoded.encode().unwrap(), bytes);
    for len in view().encode().unwrap().len()..bytes.len() {
        PlatformView::decode(&bytes[..len]).unwrap_err();
    }
    let with_field = |number: u16, content: &[u8]| {
        let mut bytes = bytes.clone();
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(content);
        let len = (bytes.len() - 16) as u32;
        bytes[12..16].copy_from_slice(&len.to_le_bytes());
        PlatformView::decode(&bytes)
    };
    // A field of a later version.
    assert_eq!(with_field(4, b"new"), Ok(decoded));
    for number in [0, 1, 3] {
        assert_eq!(
            with_field(number, &[]),
            Err(ViewDecodeError::Order { what: "fields" })
        );
    }
    // What no machine has.
    for (field, length) in [(0, 5), (u16::MAX, 0)] {
        let mut one = view().encode().unwrap();
        one[8] = 2;
        one.extend_from_slice(&field.to_le_bytes());
        one.extend_from_slice(&u32::to_le_bytes(length));
        let len = (one.len() - 16) as u32;
        one[12..16].copy_from_slice(&len.to_le_bytes());
        assert_eq!(
            PlatformView::decode(&one).is_ok(),
            length == 0,
            "field {field}"
        );
    }
}

#[test]
fn each_difference_has_an_aspect() {
    let mut v = view();
    v.acpi.length += 1;
    v.devices.pop();
    let aspects: Vec<_> = differences(&view(), &v)
        .iter()
        .map(platform_digest::Difference::aspect)
        .collect();
    assert_eq!(aspects, [Aspect::Devices, Aspect::Acpi]);
}

/// The encoding is stored on disks: it may change only with the version.
#[test]
fn the_encoding_is_stable() {
    let tiny = PlatformView {
        ram: vec![AddressRange::new(0, 0x1000)],
        mmio: vec![MmioRange {
            name: "m".into(),
            range: AddressRange::new(0x2000, 0x1000),
        }],
        apic_ids: vec![7],
        devices: vec![device("d", pci(31), "i")],
        ..PlatformView::default()
    };
    let mut expected = b"PLATVIEW\x01\0\0\0".to_vec();
    let mut body = b"\x01\0\0\0".to_vec();
    body.extend(0_u64.to_le_bytes());
    body.extend(0x1000_u64.to_le_bytes());
    body.extend(b"\x01\0\0\0\x01m");
    body.extend(0x2000_u64.to_le_bytes());
    body.extend(0x1000_u64.to_le_bytes());
    body.extend(b"\x01\0\0\0\x07\0\0\0");
    body.extend([0; 80]);
    body.extend(b"\x01\0\0\0\x01d\x01i\x01\0\x1f\0");
    expected.extend((body.len() as u32).to_le_bytes());
    expected.extend(body);
    assert_eq!(tiny.encode().unwrap(), expected);
    assert_eq!(tiny.digest().unwrap(), Digest::of(&expected));
    assert_eq!(
        BlobDigest::of([("a", &b"bc"[..])]).sha256,
        Digest::of(b"\x01\0\0\0\0\0\0\0a\x02\0\0\0\0\0\0\0bc")
    );
}

#[test]
fn a_view_serializes_as_json() {
    let json = serde_json::to_value(view()).unwrap();
    assert_eq!(json["devices"][0]["pci"], "00:03.0");
    assert_eq!(json["mmio"][1]["start"], 0xb000_0000_u64);
    assert_eq!(json["acpi"]["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn views_that_cannot_be_stored_are_refused() {
    let refused = |change: fn(&mut PlatformView)| {
        let mut v = view();
        change(&mut v);
        v.encode().unwrap_err()
    };
    assert!(matches!(
        refused(|v| v.apic_ids = vec![0; 5000]),
        InvalidView::TooMany { count: 5000, .. }
    ));
    assert!(matches!(
        refused(|v| v.devices[0].name = "com1".into()),
        InvalidView::DuplicateName { .. }
    ));
    assert!(matches!(
        refused(|v| v.devices[0].identity = "x".repeat(256)),
        InvalidView::TextTooLong { length: 256, .. }
    ));
    assert!(matches!(
        refused(|v| v.mmio[0].name = "a\x1b[2J".into()),
        InvalidView::ControlCharacter { .. }
    ));
    assert!(matches!(
        refused(|v| v.ram.push(AddressRange::new(5, 5))),
        InvalidView::RamOverlap { .. }
    ));
    assert!(matches!(
        refused(|v| v.mmio[0].range.length = u64::MAX),
        InvalidView::Range { .. }
    ));
    assert!(matches!(
        refused(|v| v.ram[0].length = 0),
        InvalidView::Range { .. }
    ));
    assert!(matches!(
        refused(|v| v.devices[0].pci = pci(32)),
        InvalidView::PciAddress { .. }
    ));
}

#[test]
fn the_largest_view_fits() {
    let text = |i: usize| format!("{i:0>255}");
    let largest = PlatformView {
        ram: (0..4096).map(|i| AddressRange::new(i, 1)).collect(),
        mmio: (0..4096)
            .map(|i| MmioRange {
                name: text(i),
                range: AddressRange::new(0, 1),
            })
            .collect(),
        apic_ids: vec![0; 4096],
        devices: (0..4096)
            .map(|i| device(&text(i), pci(0), &text(i)))
            .collect(),
        disks: Some(
            (0..256)
                .map(|i| PlatformDisk {
                    name: text(i),
                    size: 0,
                    sector: 0,
                    read_only: true,
                    serial: text(i),
                    content: DiskContent::Known(text(i)),
                })
                .collect(),
        ),
        processor: Some(PlatformProcessor {
            cpuid: vec![cpuid(1, Some(2), [3; 4]); 1024],
            ..PlatformProcessor::default()
        }),
        boot_files: Some(
            (0..16)
                .map(|i| BootFile {
                    name: text(i),
                    content: BlobDigest::default(),
                })
                .collect(),
        ),
        ..view()
    };
    let bytes = largest.encode().unwrap();
    assert_eq!(bytes.len(), MAX_ENCODED_LEN);
    assert_eq!(PlatformView::decode(&bytes), Ok(largest));
}

#[test]
fn damaged_bytes_are_refused() {
    let bytes = view().encode().unwrap();
    for len in 0..bytes.len() {
        PlatformView::decode(&bytes[..len]).unwrap_err();
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(
        PlatformView::decode(&longer),
        Err(ViewDecodeError::Length { .. })
    ));
    for version in [0, 3] {
        let mut newer = bytes.clone();
        newer[8] = version;
        let version = version.into();
        assert_eq!(
            PlatformView::decode(&newer),
            Err(ViewDecodeError::Version { version })
        );
    }
    // A claim of four billion RAM ranges.
    let mut many = bytes.clone();
    many[16..20].fill(0xff);
    assert!(matches!(
        PlatformView::decode(&many),
        Err(ViewDecodeError::Invalid(InvalidView::TooMany { .. }))
    ));
    // The name of the first MMIO range sorts after the second.
    let mut unordered = bytes;
    let at = unordered.windows(4).position(|w| w == b"ecam").unwrap();
    unordered[at] = b'z';
    assert_eq!(
        PlatformView::decode(&unordered),
        Err(ViewDecodeError::Order {
            what: "MMIO ranges"
        })
    );
}

fn any_view() -> impl Strategy<Value = PlatformView> {
    let name = "[a-z]{1,3}";
    let range = (0..1_u64 << 40, 1..1_u64 << 40);
    let ranges = prop::collection::btree_map(name, range, 0..4);
    let place = prop::option::of((any::<u8>(), 0..32_u8, 0..8_u8));
    let devices = prop::collection::btree_map(name, (place, "[a-zé ]{0,9}"), 0..4);
    let ram = prop::collection::vec((1..9_u64, 0..9_u64), 0..4);
    let blob = (any::<u64>(), any::<[u8; 32]>());
    let apic_ids = prop::collection::vec(any::<u32>(), 0..4);
    (ram, ranges, apic_ids, blob, blob, devices).prop_map(
        |(ram, ranges, apic_ids, acpi, smbios, devices)| {
            let mut end = 0;
            let blob = |(length, sha256)| BlobDigest {
                length,
                sha256: Digest(sha256),
            };
            PlatformView {
                ram: ram
                    .into_iter()
                    .map(|(length, gap)| {
                        let start = end + gap;
                        end = start + length;
                        AddressRange { start, length }
                    })
                    .collect(),
                mmio: ranges
                    .into_iter()
                    .map(|(name, (start, length))| MmioRange {
                        name,
                        range: AddressRange { start, length },
                    })
                    .collect(),
                apic_ids,
                acpi: blob(acpi),
                smbios: blob(smbios),
                devices: devices
                    .into_iter()
                    .map(|(name, (place, identity))| PlatformDevice {
                        name,
                        pci: place.map(|(bus, device, function)| PciAddress {
                            bus,
                            device,
                            function,
                        }),
                        identity,
                    })
                    .collect(),
                ..PlatformView::default()
            }
        },
    )
}

proptest! {
    #[test]
    fn flipped_bits_in_fields_are_survived(at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = full_view().encode().unwrap();
        let before = PlatformView::decode(&bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        if let Ok(other) = PlatformView::decode(&bytes) {
            prop_assert_eq!(PlatformView::decode(&other.encode().unwrap()), Ok(other.clone()));
            prop_assert_ne!(other, before);
        }
    }

    #[test]
    fn views_survive_storage(view in any_view()) {
        let bytes = view.encode().unwrap();
        prop_assert_eq!(PlatformView::decode(&bytes), Ok(view));
    }

    #[test]
    fn the_order_of_lists_does_not_matter(view in any_view()) {
        let mut reversed = view.clone();
        reversed.ram.reverse();
        reversed.mmio.reverse();
        reversed.devices.reverse();
        prop_assert_eq!(reversed.digest(), view.digest());
        prop_assert_eq!(differences(&view, &reversed), []);
    }

    #[test]
    fn views_differ_exactly_if_their_digests_do(a in any_view(), b in any_view()) {
        prop_assert_eq!(differences(&a, &b).is_empty(), a.digest() == b.digest());
    }

    #[test]
    fn flipped_bits_are_refused_or_canonical(view in any_view(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = view.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        if let Ok(other) = PlatformView::decode(&bytes) {
            prop_assert_eq!(other.encode().unwrap(), bytes);
            prop_assert_ne!(other, view);
        }
    }
}
