use super::*;
use crate::GuestImage;
use crate::test_support::Memory;
use crate::test_support::bytes;
use crate::test_support::word;
use ovmf_image::constructed;
use vm_memory::GuestAddress;

const MIB: usize = 1 << 20;

fn msvm() -> MsvmImage {
    MsvmImage::new(constructed::msvm().into()).unwrap()
}

/// Memory in which nothing is zero.
fn used_memory(len: usize) -> Memory {
    let memory = Memory::from_ranges(&[(GuestAddress(0), len)]).unwrap();
    vm_memory::Bytes::write_slice(&memory, &vec![0xa5; len], GuestAddress(0)).unwrap();
    memory
}

#[test]
fn memory_is_as_the_firmware_expects() {
    let memory = used_memory(16 * MIB);
    let config: Arc<[u8]> = (0..0x1800_u32).map(|n| n as u8).collect();
    let mut image = GuestImage::new(&memory);
    msvm().load(&mut image, Some(&config)).unwrap();
    assert!(bytes(&memory, 0x10_0000, 6 * MIB) == constructed::msvm());
    // PML4, PDPT and four directories.
    assert_eq!(word::<8>(&memory, 0x70_0000), 0x70_1023);
    assert_eq!(word::<8>(&memory, 0x70_1018), 0x70_5023);
    assert_eq!(word::<8>(&memory, 0x70_1020), 0);
    assert_eq!(word::<8>(&memory, 0x70_5ff8), 0xffe0_00e3);
    let gdt = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0];
    for (n, entry) in gdt.into_iter().enumerate() {
        assert_eq!(word::<8>(&memory, 0x70_6000 + 8 * n as u64), entry);
    }
    assert!(
        bytes(&memory, 0x70_6020, 0x2fe0)
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(bytes(&memory, 0x70_9000, 0x1800), config[..]);
    assert!(
        bytes(&memory, 0x70_a800, 0x800)
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(bytes(&memory, 0x70_b000, 4), [0xa5; 4]);
    assert_eq!(bytes(&memory, 0xf_fffc, 4), [0xa5; 4]);
}

#[test]
fn the_boot_processor_is_as_the_firmware_expects() {
    let memory = used_memory(16 * MIB);
    let mut image = GuestImage::new(&memory);
    let config: Arc<[u8]> = [1; 16].into();
    msvm().load(&mut image, Some(&config)).unwrap();
    let registers = image.into_registers();
    assert!(registers.keys().eq(&[0]));
    let segment = |selector, attributes| BootSegment {
        selector,
        base: 0,
        limit: u32::MAX,
        attributes,
    };
    let (code, data) = (segment(8, 0xa09b), segment(0x10, 0xc093));
    let gdtr = DescriptorTable {
        base: 0x70_6000,
        limit: 31,
    };
    let entry = 0x6e_0000 + 0x48 + 24 + 24 + 4 + 0x100;
    let expected = [
        VpRegister::Rip(entry),
        VpRegister::Rflags(2),
        VpRegister::Rbp(0x6e_0000),
        VpRegister::R8(0),
        VpRegister::R9(0),
        VpRegister::R10(0),
        VpRegister::R11(0),
        VpRegister::Cr0(0x8000_0023),
        VpRegister::Cr3(0x70_0000),
        VpRegister::Cr4(0x660),
        VpRegister::Efer(0xd00),
        VpRegister::Gdtr(gdtr),
        VpRegister::Cs(code),
        VpRegister::Ds(data),
        VpRegister::Es(data),
        VpRegister::Fs(data),
        VpRegister::Gs(data),
        VpRegister::Ss(data),
        VpRegister::Msr(0x277, 0x0007_0406_0007_0406),
        VpRegister::Msr(0x250, 0x0606_0606_0606_0606),
        VpRegister::Msr(0x258, 0x0606_0606_0606_0606),
        VpRegister::Msr(0x2ff, 0xc00),
        VpRegister::R12(0x70_9000),
    ];
    assert_eq!(registers[&0], expected);
    assert_eq!(msvm().entry_gpa(), entry);
    assert_eq!(msvm().pages(), 0x600);
}

#[test]
fn the_places_follow_from_the_size_of_the_image() {
    let mut bytes = constructed::msvm();
    bytes.extend(vec![0xff; 2 * MIB]);
    let msvm = MsvmImage::new(bytes.into()).unwrap();
    assert_eq!(msvm.config_gpa(), 0x90_9000);
    assert_eq!(msvm.pages(), 0x800);
    let memory = used_memory(16 * MIB);
    let mut image = GuestImage::new(&memory);
    msvm.load(&mut image, None).unwrap();
    let registers = &image.into_registers()[&0];
    assert!(registers.contains(&VpRegister::Cr3(0x90_0000)));
    assert!(registers.contains(&VpRegister::Rbp(0x6e_0000)));
    assert!(
        !registers
            .iter()
            .any(|register| matches!(register, VpRegister::R12(_)))
    );
    // No blob: memory there is as it was.
    assert_eq!(bytes_at(&memory, 0x90_9000), [0xa5; 4]);
}

fn bytes_at(memory: &Memory, gpa: u64) -> [u8; 4] {
    bytes(memory, gpa, 4).try_into().unwrap()
}

#[test]
fn nothing_is_written_into_too_little_memory() {
    let memory = used_memory(0x70_a000);
    let mut image = GuestImage::new(&memory);
    let config: Arc<[u8]> = vec![1; 0x1001].into();
    let error = msvm().load(&mut image, Some(&config)).unwrap_err();
    assert!(matches!(error, ImportError::NoRam { .. }), "{error}");
    assert_eq!(bytes_at(&memory, 0x10_0000), [0xa5; 4]);
    let config: Arc<[u8]> = vec![1; 0x1000].into();
    let mut image = GuestImage::new(&memory);
    msvm().load(&mut image, Some(&config)).unwrap();
}

#[test]
fn other_images_are_refused() {
    let refused = |bytes: Vec<u8>| MsvmImage::new(bytes.into()).unwrap_err();
    let ovmf = constructed::code(1 << 20, constructed::Smm::WithoutPei);
    assert!(matches!(refused(ovmf), MsvmError::Ovmf));
    assert!(matches!(refused(vec![0; 4096]), MsvmError::Image(_)));
    let no_entry = constructed::msvm_with(0x10, b"MZ");
    assert!(matches!(refused(no_entry), MsvmError::Sec(_)));
}
