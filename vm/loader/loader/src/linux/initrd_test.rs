//! Where initrds go.

use super::BootProtocol;
use super::LinuxImage;
use super::LinuxPlan;
use super::LoadError;
use super::boot_params::boot_params;
use super::bzimage::parse;
use super::constructed::bzimage;
use super::constructed::put;
use super::test_boot::*;
use crate::ImageFile;
use std::fs::File;

/// Where the initrd of `len` bytes goes in `ram` bytes of memory, which need not be there.
fn initrd_place(kernel: &[u8], len: u64, ram: u64) -> Result<u64, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let (kernel_path, initrd_path) = (dir.path().join("vmlinuz"), dir.path().join("initrd"));
    std::fs::write(&kernel_path, kernel).unwrap();
    File::create(&initrd_path).unwrap().set_len(len).unwrap();
    let tables = tables();
    let image = LinuxImage {
        kernel: ImageFile::open(&kernel_path).unwrap(),
        initrd: Some(ImageFile::open(&initrd_path).unwrap()),
        cmdline: "",
        acpi: &tables,
        protocol: BootProtocol::Auto,
    };
    let plan = LinuxPlan::new(&layout(ram), image)?;
    let placement = plan.placements().find(|p| p.what == "the initrd").unwrap();
    assert_eq!(placement.range.end - placement.range.start, len);
    Ok(placement.range.start)
}

#[test]
fn an_initrd_goes_as_high_as_the_kernel_reads_it() {
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
    // Above 4 GiB only for a kernel that reaches it, and only when there is no place below.
    put(&mut kernel, 0x236, &[3, 0]);
    assert_eq!(initrd_place(&kernel, MIB, 8 * GIB).unwrap(), 3 * GIB - MIB);
    assert_eq!(initrd_place(&kernel, 4 * GIB, 9 * GIB).unwrap(), 6 * GIB);
    assert!(matches!(
        initrd_place(&kernel, 0, 48 * MIB),
        Err(LoadError::InitrdEmpty { .. })
    ));
}

#[test]
fn an_initrd_above_4_gib_is_told_in_two_halves() {
    let kernel = bzimage(0x2000);
    let parsed = parse(
        "k".as_ref(),
        kernel.len() as u64,
        &kernel[..1024],
        &(0..48 * MIB),
    );
    let initrd = 0x1_8000_0000..0x2_9000_1234;
    let page = boot_params(&parsed.unwrap(), &[], Some(&initrd));
    let at = |offset: usize| u32::from_le_bytes(page[offset..offset + 4].try_into().unwrap());
    assert_eq!((at(0x218), at(0xc0)), (0x8000_0000, 1));
    assert_eq!((at(0x21c), at(0xc4)), (0x1000_1234, 1));
}
