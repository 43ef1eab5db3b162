//! What cannot be loaded is refused, and the error says why.

use crate::GuestImage;
use crate::ImageFile;
use crate::ImageFileError;
use crate::ImportError;
use crate::linux::EntryProtocol;
use crate::linux::KernelError;
use crate::linux::LinuxImage;
use crate::linux::LinuxPlan;
use crate::linux::LoadError;
use crate::linux::constructed;
use crate::linux::constructed::Elf;
use crate::linux::constructed::bzimage;
use crate::linux::constructed::put;
use crate::linux::layout;
use crate::test_support::*;
use std::io::Write;
use std::path::Path;
use vm_memory::GuestAddress;

#[test]
fn a_missing_or_invalid_pvh_entry_is_refused() {
    let error = |kernel: Vec<u8>| {
        Boot {
            protocol: EntryProtocol::Pvh,
            ..Boot::of(kernel)
        }
        .kernel_error()
    };
    assert!(matches!(
        error(bzimage(0x2000)),
        KernelError::NoPvhEntry { .. }
    ));
    let mut elf = Elf::vmlinux();
    elf.notes = None;
    assert!(matches!(error(elf.bytes()), KernelError::NoPvhEntry { .. }));
    elf.notes = Some((constructed::pvh_note(0x300_0000), 4));
    assert!(matches!(
        error(elf.bytes()),
        KernelError::Entry {
            entry: 0x300_0000,
            ..
        }
    ));
    // An address above 4 GiB.
    elf.notes = Some((constructed::pvh_note(0x1_0100_0200), 4));
    assert!(matches!(error(elf.bytes()), KernelError::Notes { .. }));
    elf.notes = Some((vec![1; 20], 4));
    assert!(matches!(error(elf.bytes()), KernelError::Notes { .. }));
}

#[test]
fn every_unusable_bzimage_has_its_own_error() {
    let error = |offset: usize, bytes: &[u8]| {
        let mut kernel = bzimage(0x2000);
        put(&mut kernel, offset, bytes);
        Boot::of(kernel).kernel_error()
    };
    assert!(matches!(
        error(0x206, &0x020bu16.to_le_bytes()),
        KernelError::OldProtocol {
            version: 0x020b,
            ..
        }
    ));
    assert!(matches!(error(0x211, &[0]), KernelError::NotLoadedHigh));
    assert!(matches!(
        error(0x236, &[2, 0]),
        KernelError::No64BitEntry { xloadflags: 2, .. }
    ));
    assert!(matches!(
        error(0x201, &[0xff]),
        KernelError::SetupHeader { end: 0x301, .. }
    ));
    assert!(matches!(
        error(0x201, &[0x10]),
        KernelError::SetupHeader { end: 0x212, .. }
    ));
    // setup_sects and syssize past the end of the file.
    assert!(matches!(
        error(0x1f1, &[200]),
        KernelError::Truncated {
            part: "the setup code",
            end: 0x1_9200,
            ..
        }
    ));
    assert!(matches!(
        error(0x1f4, &0x201u32.to_le_bytes()),
        KernelError::Truncated {
            part: "the kernel's code",
            end: 0x2410,
            len: 0x2400,
            ..
        }
    ));
    assert!(matches!(
        error(0x1f4, &0x20u32.to_le_bytes()),
        KernelError::Truncated { .. }
    ));
    assert!(matches!(
        error(0x24c, &u32::MAX.to_le_bytes()),
        KernelError::Payload { .. }
    ));
    assert!(matches!(
        error(0x260, &0x300_0000u32.to_le_bytes()),
        KernelError::TooLarge {
            start: 0x100_0000,
            size: 0x300_0000,
            ram_end: 0x300_0000,
            ..
        }
    ));
    assert!(matches!(
        error(0x258, &(u64::MAX - 5).to_le_bytes()),
        KernelError::TooLarge { .. }
    ));
}

#[test]
fn a_truncated_bzimage_is_refused_wherever_it_ends() {
    let whole = bzimage(0x2000);
    for len in [
        1,
        0x1ff,
        0x205,
        0x26b,
        0x300,
        0x400,
        0x1000,
        whole.len() - 1,
    ] {
        let error = Boot::of(whole[..len].to_vec()).kernel_error();
        assert!(
            matches!(
                error,
                KernelError::Truncated { .. } | KernelError::NotAKernel { .. }
            ),
            "{len:#x}: {error}"
        );
    }
}

#[test]
fn every_unusable_elf_file_has_its_own_error() {
    let patched = |offset: usize, bytes: &[u8]| {
        let mut kernel = Elf::vmlinux().bytes();
        put(&mut kernel, offset, bytes);
        Boot::of(kernel).kernel_error()
    };
    assert!(matches!(
        patched(4, &[1]),
        KernelError::WrongArchitecture { found, .. } if found == "a 32-bit ELF file"
    ));
    assert!(matches!(
        patched(5, &[2]),
        KernelError::WrongArchitecture { .. }
    ));
    assert!(matches!(
        patched(18, &183u16.to_le_bytes()),
        KernelError::WrongArchitecture { found, .. } if found == "an aarch64 ELF file"
    ));
    for (offset, value, name) in [
        (16, 1u16, "e_type"),
        (54, 32, "e_phentsize"),
        (56, 0, "e_phnum"),
        (56, 129, "e_phnum"),
    ] {
        assert!(matches!(
            patched(offset, &value.to_le_bytes()),
            KernelError::ElfHeader { field, value: found, .. } if field == name && found == u64::from(value)
        ));
    }
    assert!(matches!(
        patched(32, &u64::MAX.to_le_bytes()),
        KernelError::Truncated { end: u64::MAX, .. }
    ));
    assert!(matches!(
        patched(64 + 8, &0x10_0000u64.to_le_bytes()),
        KernelError::Truncated {
            part: "an ELF segment",
            ..
        }
    ));

    let changed = |change: &dyn Fn(&mut Elf)| {
        let mut elf = Elf::vmlinux();
        change(&mut elf);
        Boot::of(elf.bytes()).kernel_error()
    };
    assert!(matches!(
        changed(&|e| e.segments[0].0 = layout::BOOT_PARAMS),
        KernelError::TooLow {
            start: layout::BOOT_PARAMS,
            ..
        }
    ));
    assert!(matches!(
        changed(&|e| e.segments[1].0 = 0x100_2fff),
        KernelError::SegmentsOverlap {
            first: 0x100_0000,
            second: 0x100_2fff,
            ..
        }
    ));
    assert!(matches!(
        changed(&|e| e.segments[1].2 = 46 * MIB),
        KernelError::TooLarge {
            start: 0x120_0000,
            ..
        }
    ));
    assert!(matches!(
        changed(&|e| e.segments[1].2 = u64::MAX),
        KernelError::TooLarge { .. }
    ));
    assert!(matches!(
        changed(&|e| e.segments[0].2 = 0x2fff),
        KernelError::ElfHeader {
            field: "p_filesz",
            ..
        }
    ));
    assert!(matches!(
        changed(&|e| e.segments.clear()),
        KernelError::ElfHeader {
            field: "p_type",
            ..
        }
    ));
    assert!(matches!(
        changed(&|e| {
            e.entry = 0x300_0000;
            e.notes = None;
        }),
        KernelError::Entry {
            entry: 0x300_0000,
            ..
        }
    ));
}

#[test]
fn command_lines_that_the_kernel_would_cut_are_refused() {
    let error = |kernel: Vec<u8>, cmdline: String| {
        Boot {
            cmdline,
            ..Boot::of(kernel)
        }
        .error()
    };
    assert!(matches!(
        error(bzimage(0x2000), "x".repeat(2048)),
        LoadError::CommandLineTooLong {
            len: 2048,
            limit: 2047
        }
    ));
    assert!(matches!(
        error(Elf::vmlinux().bytes(), "x".repeat(2048)),
        LoadError::CommandLineTooLong {
            len: 2048,
            limit: 2047
        }
    ));
    assert!(matches!(
        error(bzimage(0x2000), "a\0b".into()),
        LoadError::CommandLineNul { position: 1 }
    ));
    // A header that takes more than there is room for, and one that takes the old 255.
    for (size, limit) in [(u32::MAX, 4095), (0, 255)] {
        let mut kernel = bzimage(0x2000);
        put(&mut kernel, 0x238, &size.to_le_bytes());
        let boot = Boot {
            cmdline: "x".repeat(limit),
            ..Boot::of(kernel.clone())
        };
        let (memory, _) = boot.load();
        assert_eq!(word::<1>(&memory, layout::COMMAND_LINE + limit as u64), 0);
        assert!(matches!(
            error(kernel, "x".repeat(limit + 1)),
            LoadError::CommandLineTooLong { limit: l, .. } if l == limit
        ));
    }
}

#[test]
fn nothing_is_written_where_memory_lacks_ram_of_the_layout() {
    let boot = Boot {
        initrd: Some(vec![7; 100]),
        ..Boot::of(bzimage(0x2000))
    };
    let small = Memory::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap();
    let plan = boot.plan().unwrap();
    let error = plan.load(&mut GuestImage::new(&small)).unwrap_err();
    assert!(
        matches!(
            error,
            ImportError::NoRam {
                what: "the initrd",
                ..
            }
        ),
        "{error}"
    );
    assert!(bytes(&small, 0, 32 << 20).iter().all(|byte| *byte == 0));
}

#[test]
fn a_file_that_shrinks_after_the_check_is_an_error() {
    let mut named = tempfile::NamedTempFile::new().unwrap();
    named.write_all(&bzimage(0x2000)).unwrap();
    let image = LinuxImage {
        kernel: ImageFile::open(named.path()).unwrap(),
        initrd: None,
        cmdline: "",
        host: Some(host(48 * MIB)),
        protocol: EntryProtocol::Auto,
    };
    let memory = Boot::of(Vec::new()).memory();
    let plan = LinuxPlan::new(&memory_layout(48 * MIB), image).unwrap();
    named.as_file().set_len(0x1000).unwrap();
    assert!(matches!(
        plan.load(&mut GuestImage::new(&memory)),
        Err(ImportError::File(ImageFileError::ReadInto {
            offset: 1024,
            gpa: 0x100_0000,
            ..
        }))
    ));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nothing");
    let error = ImageFile::open(&missing).unwrap_err();
    assert!(matches!(&error, ImageFileError::Open { path, .. } if *path == missing));
    for (path, kind) in [
        (dir.path(), "a directory"),
        (Path::new("/dev/zero"), "a character device"),
    ] {
        let error = ImageFile::open(path).unwrap_err();
        assert!(matches!(&error, ImageFileError::NotAFile { found, .. } if *found == kind));
    }
    assert!(matches!(
        Boot::of(Vec::new()).kernel_error(),
        KernelError::Empty
    ));
}

#[test]
fn an_error_names_the_file_once() {
    let mut kernel = bzimage(0x2000);
    put(&mut kernel, 0x206, &0x0203u16.to_le_bytes());
    assert_eq!(
        Boot::of(kernel).error().to_string(),
        "kernel vmlinuz has boot protocol 2.03; 2.12 or newer is needed"
    );
}
