//! Whole boots: what is in guest memory, and how the boot processor starts.

use crate::linux::EntryProtocol;
use crate::linux::KernelError;
use crate::linux::constructed;
use crate::linux::constructed::Elf;
use crate::linux::constructed::bzimage;
use crate::linux::constructed::put;
use crate::linux::layout;
use crate::test_support::*;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

#[test]
fn a_bzimage_starts_in_64_bit_mode_at_its_preferred_address() {
    let boot = Boot {
        initrd: Some(vec![0xab; 5000]),
        ..Boot::of(bzimage(0x2000))
    };
    let (memory, state) = boot.load();

    assert!(state.is_long_mode());
    assert_eq!((state.rip, state.rsi), (0x100_0200, layout::BOOT_PARAMS));
    assert_eq!((state.cr0, state.cr3), (0x8000_0001, layout::PAGE_TABLES));
    assert_eq!((state.cr4, state.efer, state.rflags), (0x20, 0x500, 2));
    assert_eq!((state.code.selector, state.data.selector), (0x10, 0x18));
    assert_eq!(state.code.attributes, 0xa09b);
    for segment in [state.code, state.data, state.task] {
        assert_eq!(
            word::<8>(&memory, state.gdt.base + u64::from(segment.selector)),
            segment.descriptor()
        );
    }
    assert_eq!(word::<8>(&memory, state.cr3), (state.cr3 + 0x1000) | 0x23);

    assert_eq!(bytes(&memory, 0x100_0000, 0x2000), boot.kernel[1024..]);
    let cmdline = bytes(&memory, word::<4>(&memory, header(0x228)), 14);
    assert_eq!(cmdline, b"console=ttyS0\0");

    // The header is the file's, with the loader's fields filled in.
    assert_eq!(
        word::<4>(&memory, header(0x202)),
        u64::from(u32::from_le_bytes(*b"HdrS"))
    );
    assert_eq!(word::<4>(&memory, header(0x260)), 0x100_0000);
    assert_eq!(word::<1>(&memory, header(0x210)), 0xff);
    assert_eq!(word::<8>(&memory, header(0x250)), 0, "setup_data is empty");
    assert_eq!(
        word::<1>(&memory, header(0x1ef)),
        0,
        "a sentinel other than 0 would mean an incomplete header"
    );

    // The initrd is at the top of RAM.
    let initrd = word::<4>(&memory, header(0x218));
    assert_eq!(initrd, 48 * MIB - 0x2000);
    assert_eq!(word::<4>(&memory, header(0x21c)), 5000);
    assert_eq!(bytes(&memory, initrd, 5000), vec![0xab; 5000]);
    assert_eq!(word::<8>(&memory, header(0xc0)), 0);

    // The memory map.
    let map = layout::memory_map(&memory_layout(boot.ram)).unwrap();
    assert_eq!(word::<1>(&memory, header(0x1e8)), map.len() as u64);
    for (i, entry) in map.iter().enumerate() {
        let at = header(0x2d0 + 20 * i as u64);
        assert_eq!(word::<8>(&memory, at), entry.range.start);
        assert_eq!(
            word::<8>(&memory, at + 8),
            entry.range.end - entry.range.start
        );
        assert_eq!(word::<4>(&memory, at + 16), entry.kind as u64);
    }

    // The RSDP is where kernels search for it, and the parameters have its address.
    assert_eq!(word::<8>(&memory, header(0x70)), layout::RSDP);
    assert_eq!(bytes(&memory, layout::RSDP, 8), b"RSD PTR ");
    assert_eq!(
        bytes(&memory, word::<8>(&memory, layout::RSDP + 24), 4),
        b"XSDT"
    );
}

#[test]
fn a_kernel_older_than_protocol_2_14_is_not_given_the_rsdp_address() {
    let mut kernel = bzimage(0x2000);
    put(&mut kernel, 0x206, &0x020du16.to_le_bytes());
    let (memory, _) = Boot::of(kernel).load();
    assert_eq!(word::<8>(&memory, header(0x70)), 0);
    assert_eq!(bytes(&memory, layout::RSDP, 8), b"RSD PTR ");
}

#[test]
fn a_signature_after_the_code_is_not_loaded() {
    let mut kernel = bzimage(0x2000);
    kernel.extend_from_slice(&[0xcc; 100]);
    let (memory, _) = Boot::of(kernel).load();
    assert_eq!(bytes(&memory, 0x100_2000, 100), [0; 100]);
}

#[test]
fn a_relocatable_kernel_that_prefers_low_memory_is_loaded_at_its_alignment() {
    let mut kernel = bzimage(0x2000);
    put(&mut kernel, 0x258, &0u64.to_le_bytes());
    let (_, state) = Boot::of(kernel.clone()).load();
    assert_eq!(state.rip, 0x20_0200);

    put(&mut kernel, 0x230, &3u32.to_le_bytes());
    assert!(matches!(
        Boot::of(kernel.clone()).kernel_error(),
        KernelError::Alignment { alignment: 3, .. }
    ));
    put(&mut kernel, 0x234, &[0u8]);
    assert!(matches!(
        Boot::of(kernel).kernel_error(),
        KernelError::TooLow { start: 0, .. }
    ));
}

#[test]
fn a_vmlinux_starts_at_its_elf_entry_with_its_bss_zero() {
    let boot = Boot::of(Elf::vmlinux().bytes());
    let memory = boot.memory();
    // Left by an earlier boot.
    let dirt = vec![0x5a; 0x6_0000];
    memory.write_slice(&dirt, GuestAddress(0x120_0000)).unwrap();
    let state = boot.load_into(&memory);
    assert_eq!((state.is_long_mode(), state.rip), (true, 0x100_0000));
    assert_eq!(state.rsi, layout::BOOT_PARAMS);
    let elf = Elf::vmlinux();
    assert_eq!(bytes(&memory, 0x100_0000, 0x3000), elf.segments[0].1);
    assert_eq!(bytes(&memory, 0x120_0000, 0x1000), elf.segments[1].1);
    assert_eq!(bytes(&memory, 0x120_1000, 0x5_0000), vec![0; 0x5_0000]);
    // Not past the segment.
    assert_eq!(bytes(&memory, 0x125_1000, 16), [0x5a; 16]);
    assert_eq!(word::<2>(&memory, header(0x1fe)), 0xaa55);
    assert_eq!(word::<4>(&memory, header(0x230)), 0x10_0000);
    assert_eq!(word::<8>(&memory, header(0x70)), layout::RSDP);
}

#[test]
fn pvh_starts_in_32_bit_mode_with_the_start_info() {
    let boot = Boot {
        initrd: Some(vec![1; 100]),
        protocol: EntryProtocol::Pvh,
        ..Boot::of(Elf::vmlinux().bytes())
    };
    let (memory, state) = boot.load();
    assert_eq!((state.is_long_mode(), state.rip), (false, 0x100_0200));
    assert_eq!((state.cr0, state.cr3, state.cr4, state.efer), (1, 0, 0, 0));
    assert_eq!(state.code.attributes, 0xc09b);
    assert_eq!(
        (state.task.base, state.task.limit, state.task.attributes),
        (0, 0x67, 0x8b)
    );

    let info = state.rbx;
    assert_eq!(word::<4>(&memory, info), 0x336e_c578);
    assert_eq!(word::<4>(&memory, info + 4), 1);
    assert_eq!(word::<4>(&memory, info + 12), 1);
    let module = word::<8>(&memory, info + 16);
    assert_eq!(word::<8>(&memory, module), 48 * MIB - 0x1000);
    assert_eq!(word::<8>(&memory, module + 8), 100);
    assert_eq!(
        bytes(&memory, word::<8>(&memory, info + 24), 14),
        b"console=ttyS0\0"
    );
    assert_eq!(word::<8>(&memory, info + 32), layout::RSDP);
    let map = layout::memory_map(&memory_layout(boot.ram)).unwrap();
    let at = word::<8>(&memory, info + 40);
    assert_eq!(word::<4>(&memory, info + 48), map.len() as u64);
    for (i, entry) in map.iter().enumerate() {
        let at = at + 24 * i as u64;
        assert_eq!(word::<8>(&memory, at), entry.range.start);
        assert_eq!(
            word::<8>(&memory, at + 8),
            entry.range.end - entry.range.start
        );
        assert_eq!(word::<4>(&memory, at + 16), entry.kind as u64);
    }
}

#[test]
fn without_an_initrd_pvh_has_no_module() {
    let boot = Boot {
        protocol: EntryProtocol::Pvh,
        ..Boot::of(Elf::vmlinux().bytes())
    };
    let (memory, state) = boot.load();
    assert_eq!(word::<4>(&memory, state.rbx + 12), 0);
    assert_eq!(word::<8>(&memory, state.rbx + 16), 0);
}

#[test]
fn auto_chooses_pvh_only_if_the_elf_entry_is_unusable() {
    let is_long = |elf: Elf| Boot::of(elf.bytes()).load().1.is_long_mode();
    assert!(is_long(Elf::vmlinux()));
    // Firmware for PVH: the ELF entry is the PVH entry, or none.
    let mut same = Elf::vmlinux();
    same.entry = 0x100_0200;
    assert!(!is_long(same));
    let mut none = Elf::vmlinux();
    none.entry = 0;
    assert!(!is_long(none));
    let mut no_notes = Elf::vmlinux();
    no_notes.notes = None;
    assert!(is_long(no_notes));
}

#[test]
fn the_pvh_entry_is_found_in_notes_of_either_alignment() {
    let mut elf = Elf::vmlinux();
    let mut notes = constructed::note(b"GNU\0", 5, &[1; 12], 8);
    notes.extend(constructed::note(
        b"Xen\0",
        18,
        &0x100_0300u32.to_le_bytes(),
        8,
    ));
    elf.notes = Some((notes, 8));
    let boot = Boot {
        protocol: EntryProtocol::Pvh,
        ..Boot::of(elf.bytes())
    };
    assert_eq!(boot.load().1.rip, 0x100_0300);
}

#[test]
fn loading_again_undoes_what_the_guest_did() {
    let boot = Boot {
        initrd: Some(vec![7; 0x1800]),
        ..Boot::of(Elf::vmlinux().bytes())
    };
    let (fresh, first) = boot.load();
    let used = boot.memory();
    boot.load_into(&used);
    let dirty = vec![0xd1; 0x20_0000];
    for gpa in [0x1000, 0x100_0000, 0x120_0000] {
        used.write_slice(&dirty[..0x6_0000], GuestAddress(gpa))
            .unwrap();
    }
    assert_eq!(boot.load_into(&used), first);
    for (gpa, len) in [
        (layout::BOOT_PARAMS, 0x1000),
        (layout::PAGE_TABLES, 0x6000),
        (layout::ACPI_TABLES, 0x4_0000),
        (0x100_0000, 0x3000),
        (0x120_0000, 0x5_1000),
    ] {
        assert!(
            bytes(&used, gpa, len) == bytes(&fresh, gpa, len),
            "{gpa:#x} differs"
        );
    }
}

#[test]
fn elf_segments_may_share_a_page() {
    let mut elf = Elf::vmlinux();
    elf.segments[0].1.truncate(0x2f80);
    elf.segments[0].2 = 0x2f90;
    elf.segments[1].0 = 0x100_2fa0;
    let boot = Boot::of(elf.bytes());
    let memory = boot.memory();
    memory
        .write_slice(&[0x5a; 0x7000], GuestAddress(0x100_0000))
        .unwrap();
    boot.load_into(&memory);
    assert_eq!(bytes(&memory, 0x100_0000, 0x2f80), elf.segments[0].1);
    assert_eq!(bytes(&memory, 0x100_2f80, 0x20), [0; 0x20]);
    assert_eq!(bytes(&memory, 0x100_2fa0, 0x1000), elf.segments[1].1);
    assert!(bytes(&memory, 0x100_3fa0, 0x3060).iter().all(|b| *b == 0));
}
