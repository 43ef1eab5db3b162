//! The drivers of the fuzz targets: load a file that may be a kernel, and check what must hold for any file.

use crate::GuestImage;
use crate::ImageFile;
use crate::PAGE;
use crate::VpRegister;
use crate::igvm::IgvmImage;
use crate::igvm::IgvmLoadError;
use crate::igvm::IgvmMachine;
use crate::igvm::IgvmPlan;
use crate::linux::EntryProtocol;
use crate::linux::LinuxHost;
use crate::linux::LinuxImage;
use crate::linux::LinuxPlan;
use crate::linux::LoadError;
use crate::linux::constructed;
use crate::msvm;
use crate::msvm::MsvmImage;
use acpi_spec::TableSet;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use igvm_format::IgvmFile;
use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend;
use vm_memory::GuestMemoryRegion;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::bitmap::Bitmap;

/// The guest's RAM, in bytes.
pub(crate) const RAM: u64 = 48 << 20;
/// The width of the processors' physical addresses.
pub(crate) const ADDRESS_BITS: u8 = 36;

/// Guest memory that knows which pages were written.
pub(crate) type TrackedMemory = vm_memory::GuestMemoryMmap<AtomicBitmap>;

static TABLES: LazyLock<TableSet> =
    LazyLock::new(|| TableSet::new(&constructed::machine()).expect("a fixed machine"));

/// Loads `data`, and then a bzImage whose setup header it overwrites.
pub fn bzimage(data: &[u8]) {
    let _ = load(data, EntryProtocol::Auto);
    let mut image = constructed::bzimage(0x1000);
    let header = &mut image[0x1f1..];
    let len = data.len().min(header.len());
    header[..len].copy_from_slice(&data[..len]);
    constructed::put(&mut image, 0x1fe, b"\x55\xaa");
    constructed::put(&mut image, 0x202, b"HdrS");
    let _ = load(&image, EntryProtocol::Auto);
}

/// Loads `data`, and then a vmlinux whose headers it overwrites.
pub fn elf(data: &[u8]) {
    let _ = load(data, EntryProtocol::Auto);
    let mut image = constructed::Elf::vmlinux().bytes();
    let headers = &mut image[24..64 + 3 * 56];
    let len = data.len().min(headers.len());
    headers[..len].copy_from_slice(&data[..len]);
    for protocol in [EntryProtocol::Auto, EntryProtocol::Linux64] {
        let _ = load(&image, protocol);
    }
}

/// Loads a vmlinux with these notes, by PVH.
pub fn pvh_notes(data: &[u8]) {
    for alignment in [4, 8] {
        let mut image = constructed::Elf::vmlinux();
        image.notes = Some((data.to_vec(), alignment));
        let _ = load(&image.bytes(), EntryProtocol::Pvh);
    }
}

/// Parses `data` as an IGVM file, with whatever checksum, and loads it if it is one.
pub fn igvm(data: &[u8]) {
    let _ = load_igvm(data);
    let _ = load_igvm(&igvm_format::with_valid_header(data));
}

/// Loads an IGVM file, and panics if that breaks a promise.
fn load_igvm(data: &[u8]) -> Result<(), IgvmLoadError> {
    let (memory, layout) = memory();
    let rom = MemoryRange {
        start: 0xffc0_0000,
        end: 1 << 32,
    };
    let image = IgvmImage::new(Path::new("fuzzed"), data.into());
    let machine = IgvmMachine {
        layout: &layout,
        rom: Some(rom),
        vp_count: 2,
        command_line: None,
        acpi: TABLES.tables(),
        low_mmio: layout.low_mmio(),
        high_mmio: None,
    };
    if let Ok(file) = image.parse() {
        let written = file.write().expect("what was read can be written");
        let again = IgvmFile::parse(&written).expect("what was written can be read");
        assert_eq!(again.directives.len(), file.directives.len());
    }
    let plan = match IgvmPlan::new(&image, &machine) {
        Ok(plan) => plan,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return Err(error);
        }
    };
    let mut image = GuestImage::new(&memory);
    plan.load(&mut image)
        .expect("what was planned can be loaded");
    Ok(())
}

/// Loads `data` as MSVM firmware, and then an image in whose volume with the SEC phase it is.
pub fn msvm(data: &[u8]) {
    load_msvm(data);
    let mut image = ovmf_image::constructed::small_msvm(0x2_2000);
    // After the volume's header: its files.
    let files = &mut image[0x2048..];
    let len = data.len().min(files.len());
    files[..len].copy_from_slice(&data[..len]);
    load_msvm(&image);
}

fn load_msvm(bytes: &[u8]) {
    let Ok(msvm) = MsvmImage::new(bytes.into()) else {
        return;
    };
    let loaded = msvm::BASE..msvm::BASE + bytes.len() as u64;
    assert!(
        loaded.contains(&msvm.entry_gpa()),
        "the entry is in the image"
    );
    let (memory, _) = memory();
    let mut image = GuestImage::new(&memory);
    msvm.load(&mut image, Some(&vec![1; 0x123].into()))
        .expect("an image of at most 16 MiB fits");
    let end = msvm.config_gpa() + PAGE;
    for region in memory.iter() {
        for page in (0..RAM).step_by(PAGE as usize) {
            assert!(
                !region.bitmap().dirty_at(page as usize) || (msvm::BASE..end).contains(&page),
                "{page:#x} is not the firmware's"
            );
        }
    }
}

/// RAM of [`RAM`] bytes and its layout.
pub(crate) fn memory() -> (TrackedMemory, MemoryLayout) {
    let layout = MemoryLayout::new(RAM, MemoryLayout::DEFAULT_LOW_MMIO_START, ADDRESS_BITS)
        .expect("a possible size of RAM");
    let memory = TrackedMemory::from_ranges(&[(GuestAddress(0), RAM as usize)])
        .expect("memory of a fixed size");
    (memory, layout)
}

/// A file with this content.
pub(crate) fn file(name: &str, bytes: &[u8]) -> ImageFile {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("space in a temporary file");
    ImageFile::new(name.into(), file).expect("the length of a temporary file")
}

/// Loads `kernel` with an initrd, and panics if that breaks a promise.
pub(crate) fn load(kernel: &[u8], protocol: EntryProtocol) -> Result<(), LoadError> {
    let (memory, layout) = memory();
    let host = LinuxHost::new(&layout, ADDRESS_BITS, &TABLES).expect("tables that fit");
    let image = LinuxImage {
        kernel: file("fuzzed", kernel),
        initrd: Some(file("initrd", b"initrd")),
        cmdline: "console=ttyS0",
        host: Some(host),
        protocol,
    };
    let plan = match LinuxPlan::new(&layout, image) {
        Ok(plan) => plan,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return Err(error);
        }
    };

    let mut ranges: Vec<_> = plan.placements().map(|(_, range)| range).collect();
    ranges.sort();
    assert!(ranges.iter().all(|r| r.start < r.end && r.end <= RAM));
    assert!(
        ranges.windows(2).all(|w| w[0].end <= w[1].start),
        "placements overlap: {ranges:x?}"
    );

    let mut image = GuestImage::new(&memory);
    plan.load(&mut image)
        .expect("what was planned can be loaded");
    let registers = image.into_registers();
    let registers = &registers[&0];
    let rip = registers.iter().find_map(|register| match register {
        VpRegister::Rip(rip) => Some(*rip),
        _ => None,
    });
    assert!(
        plan.placements().any(|(what, range)| what == "the kernel"
            && rip.is_some_and(|rip| range.contains(rip))),
        "the entry is outside the kernel"
    );
    let paging = registers.contains(&VpRegister::Cr0(0x8000_0001));
    assert_eq!(paging, !registers.contains(&VpRegister::Rsi(0)));
    for region in memory.iter() {
        for page in (0..RAM).step_by(PAGE as usize) {
            assert!(
                !region.bitmap().dirty_at(page as usize)
                    || ranges.iter().any(|range| range.contains(page)),
                "{page:#x} was written and not planned"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Overwrites some words of `image` and cuts it off.
    fn mutated(mut image: Vec<u8>, words: &[(usize, u64, usize)], len: usize) -> Vec<u8> {
        for (offset, value, size) in words {
            let end = (offset + size).min(image.len());
            if *offset < end {
                let bytes = value.to_le_bytes();
                image[*offset..end].copy_from_slice(&bytes[..end - offset]);
            }
        }
        image.truncate(len);
        image
    }

    /// Values at which a parser is likely to fail: around zero, the sizes of RAM and of words, and any.
    fn value() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            0u64..0x1000,
            (0u32..64).prop_map(|bit| 1 << bit),
            (0u64..0x1000).prop_map(u64::wrapping_neg),
            (0x10_0000u64..RAM + 0x1000).prop_map(|n| n & !0xff),
        ]
    }

    fn words(span: usize) -> impl Strategy<Value = Vec<(usize, u64, usize)>> {
        let size = prop_oneof![Just(1usize), Just(2), Just(4), Just(8)];
        proptest::collection::vec((0..span, value(), size), 0..4)
    }

    #[test]
    fn the_unmodified_images_load() {
        load(&constructed::bzimage(0x1000), EntryProtocol::Auto).unwrap();
        let vmlinux = constructed::Elf::vmlinux().bytes();
        load(&vmlinux, EntryProtocol::Auto).unwrap();
        load(&vmlinux, EntryProtocol::Pvh).unwrap();
    }

    #[test]
    fn the_targets_hold_for_some_inputs() {
        let vmlinux = constructed::Elf::vmlinux().bytes();
        let seeds = [
            Vec::new(),
            vec![0xff; 0x400],
            vec![0; 0x400],
            constructed::bzimage(0x1000),
            constructed::bzimage(0x1000)[0x1f1..].to_vec(),
            vmlinux[24..232].to_vec(),
            vmlinux,
            constructed::pvh_note(0x100_0000),
            constructed::note(b"Xen\0", 18, &[1, 2], 4),
        ];
        for seed in seeds {
            bzimage(&seed);
            elf(&seed);
            pvh_notes(&seed);
        }
    }

    #[test]
    fn the_igvm_target_holds_for_some_inputs() {
        for seed in [&b""[..], b"IGVM", &[0xff; 200]] {
            igvm(seed);
        }
        let mut file = b"IGVM\x01\0\0\0\x18\0\0\0\x18\0\0\0".to_vec();
        file.extend([0; 8]);
        file.extend([1, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]);
        file.extend([0; 8]);
        igvm(&file);
        let problem = load_igvm(&igvm_format::with_valid_header(&file)).unwrap_err();
        assert!(problem.to_string().contains("nothing to run"), "{problem}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_mutated_msvm_breaks_no_promise(words in words(0x80), len in 0usize..0x80) {
            let image = ovmf_image::constructed::small_msvm(0x2_2000);
            msvm(&mutated(image[0x2048..0x20c8].to_vec(), &words, len));
        }
    }

    proptest! {
        #[test]
        fn a_mutated_bzimage_breaks_no_promise(
            words in words(0x98),
            len in prop_oneof![Just(usize::MAX), 0usize..0x1400],
        ) {
            let words: Vec<_> = words.into_iter().map(|(o, v, s)| (0x1f1 + o, v, s)).collect();
            let _ = load(&mutated(constructed::bzimage(0x1000), &words, len), EntryProtocol::Auto);
        }

        #[test]
        fn a_mutated_elf_file_breaks_no_promise(
            words in words(64 + 3 * 56),
            len in prop_oneof![Just(usize::MAX), 0usize..0x4000],
            pvh in any::<bool>(),
        ) {
            let protocol = if pvh { EntryProtocol::Pvh } else { EntryProtocol::Auto };
            let _ = load(&mutated(constructed::Elf::vmlinux().bytes(), &words, len), protocol);
        }

        #[test]
        fn mutated_notes_break_no_promise(words in words(80), len in 0usize..90) {
            pvh_notes(&mutated(constructed::pvh_note(0x100_0000), &words, len));
        }
    }
}
