use crate::ImageFile;
use crate::linux::EntryProtocol;
use crate::linux::LinuxImage;
use crate::linux::LinuxPlan;
use crate::linux::LoadError;
use crate::linux::boot_params::boot_params;
use crate::linux::bzimage::parse;
use crate::linux::constructed::bzimage;
use crate::linux::constructed::put;
use crate::test_support::*;
use std::fs::File;

/// The address of an initrd of `len` bytes in a machine with `ram` bytes of RAM, which is not allocated.
fn initrd_place(kernel: &[u8], len: u64, ram: u64) -> Result<u64, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let (kernel_path, initrd_path) = (dir.path().join("vmlinuz"), dir.path().join("initrd"));
    std::fs::write(&kernel_path, kernel).unwrap();
    File::create(&initrd_path).unwrap().set_len(len).unwrap();
    let image = LinuxImage {
        kernel: ImageFile::open(&kernel_path).unwrap(),
        initrd: Some(ImageFile::open(&initrd_path).unwrap()),
        cmdline: "",
        host: Some(host(ram)),
        protocol: EntryProtocol::Auto,
    };
    let plan = LinuxPlan::new(&memory_layout(ram), image)?;
    let mut placements = plan.placements();
    let (_, range) = placements.find(|(what, _)| *what == "the initrd").unwrap();
    assert_eq!(range.len(), len.next_multiple_of(4096));
    Ok(range.start)
}

#[test]
fn an_initrd_is_placed_as_high_as_the_kernel_can_read_it() {
    const GIB: u64 = 1 << 30;
    let mut kernel = bzimage(0x2000);
    // The kernel's own limit.
    assert_eq!(initrd_place(&kernel, MIB, 3 * GIB).unwrap(), 2 * GIB - MIB);
    assert_eq!(initrd_place(&kernel, MIB, 48 * MIB).unwrap(), 47 * MIB);
    // Under a kernel that fills the rest.
    put(&mut kernel, 0x260, &(32 * MIB as u32 - 4096).to_le_bytes());
    assert_eq!(
        initrd_place(&kernel, 4096, 48 * MIB).unwrap(),
        48 * MIB - 4096
    );
    assert_eq!(
        initrd_place(&kernel, 4097, 48 * MIB).unwrap(),
        16 * MIB - 8192
    );
    assert!(matches!(
        initrd_place(&kernel, 16 * MIB, 48 * MIB),
        Err(LoadError::InitrdTooLarge { size, .. }) if size == 16 * MIB
    ));
    assert!(matches!(
        initrd_place(&kernel, 5 * GIB, 8 * GIB),
        Err(LoadError::InitrdTooLarge { .. })
    ));
    // Above 4 GiB only for a kernel that can read it there, and only if it does not fit below.
    put(&mut kernel, 0x236, &[3, 0]);
    assert_eq!(initrd_place(&kernel, MIB, 8 * GIB).unwrap(), 3 * GIB - MIB);
    assert_eq!(initrd_place(&kernel, 4 * GIB, 9 * GIB).unwrap(), 6 * GIB);
    assert!(matches!(
        initrd_place(&kernel, 0, 48 * MIB),
        Err(LoadError::InitrdEmpty { .. })
    ));
}

#[test]
fn the_address_of_an_initrd_above_4_gib_is_split_into_two_fields() {
    let kernel = bzimage(0x2000);
    let parsed = parse(kernel.len() as u64, &kernel[..1024], &(0..48 * MIB));
    let initrd = 0x1_8000_0000..0x2_9000_1234;
    let page = boot_params(&parsed.unwrap(), &[], Some(&initrd));
    let at = |offset: usize| u32::from_le_bytes(page[offset..offset + 4].try_into().unwrap());
    assert_eq!((at(0x218), at(0xc0)), (0x8000_0000, 1));
    assert_eq!((at(0x21c), at(0xc4)), (0x1000_1234, 1));
}
