//! Small well-formed kernel files for tests and fuzzing, with patterns as code, and a machine to boot them on.

use acpi_spec::AcpiPlatform;
use acpi_spec::Processor;

/// A machine with one processor and little else.
pub(crate) fn machine() -> AcpiPlatform {
    AcpiPlatform::bare(vec![Processor { uid: 1, apic_id: 0 }])
}

/// A bzImage with `code_len` bytes of code, a multiple of 16, that prefers 16 MiB and needs 16 MiB.
pub(crate) fn bzimage(code_len: usize) -> Vec<u8> {
    let setup_len = 1024;
    let mut image = vec![0; setup_len];
    image.extend((0..code_len).map(|i| (i * 7 + i / 256) as u8));
    put(&mut image, 0x1f1, &[1u8]); // setup_sects
    put(&mut image, 0x1f4, &(code_len as u32 / 16).to_le_bytes());
    put(&mut image, 0x1fe, &[0x55, 0xaa]);
    put(&mut image, 0x200, &[0xeb, 0x6a]); // The jump over the header, which states its length.
    put(&mut image, 0x202, b"HdrS");
    put(&mut image, 0x206, &0x020fu16.to_le_bytes()); // version
    put(&mut image, 0x211, &[1u8]); // loadflags
    put(&mut image, 0x22c, &0x7fff_ffffu32.to_le_bytes()); // initrd_addr_max
    put(&mut image, 0x230, &0x20_0000u32.to_le_bytes()); // kernel_alignment
    put(&mut image, 0x234, &[1u8]); // relocatable_kernel
    put(&mut image, 0x236, &1u16.to_le_bytes()); // xloadflags
    put(&mut image, 0x238, &2047u32.to_le_bytes()); // cmdline_size
    put(&mut image, 0x248, &0x210u32.to_le_bytes()); // payload_offset
    put(&mut image, 0x24c, &16u32.to_le_bytes()); // payload_length
    put(&mut image, 0x250, &0xdead_0000u64.to_le_bytes()); // setup_data: to be cleared by the loader
    put(&mut image, 0x258, &0x100_0000u64.to_le_bytes()); // pref_address
    put(&mut image, 0x260, &0x100_0000u32.to_le_bytes()); // init_size
    image
}

/// Overwrites the bytes at `offset`.
pub(crate) fn put(image: &mut [u8], offset: usize, bytes: &[u8]) {
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// The contents of an ELF file.
#[derive(Clone)]
pub(crate) struct Elf {
    pub entry: u64,
    /// For each loadable segment its address, its bytes in the file, and its size in memory.
    pub segments: Vec<(u64, Vec<u8>, u64)>,
    /// The content of a note segment, and its alignment.
    pub notes: Option<(Vec<u8>, u64)>,
}

impl Elf {
    /// Like a vmlinux: code at 16 MiB with the entry, data with a BSS at 18 MiB, and a PVH entry.
    pub(crate) fn vmlinux() -> Self {
        let code = (0..0x3000).map(|i| (i * 5) as u8).collect();
        let data = (0..0x1000).map(|i| (i * 3) as u8).collect();
        Self {
            entry: 0x100_0000,
            segments: vec![(0x100_0000, code, 0x3000), (0x120_0000, data, 0x5_1000)],
            notes: Some((pvh_note(0x100_0200), 4)),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let headers = self.segments.len() + usize::from(self.notes.is_some());
        let mut image = vec![0; 64 + headers * 56];
        put(&mut image, 0, b"\x7fELF\x02\x01\x01");
        put(&mut image, 16, &2u16.to_le_bytes()); // e_type
        put(&mut image, 18, &62u16.to_le_bytes()); // e_machine
        put(&mut image, 20, &1u32.to_le_bytes()); // e_version
        put(&mut image, 24, &self.entry.to_le_bytes());
        put(&mut image, 32, &64u64.to_le_bytes()); // e_phoff
        put(&mut image, 52, &64u16.to_le_bytes()); // e_ehsize
        put(&mut image, 54, &56u16.to_le_bytes()); // e_phentsize
        put(&mut image, 56, &(headers as u16).to_le_bytes()); // e_phnum
        let loads = self
            .segments
            .iter()
            .map(|(address, bytes, memory)| (1u32, *address, bytes, *memory, 0x1000));
        let notes = self
            .notes
            .iter()
            .map(|(bytes, alignment)| (4u32, 0, bytes, bytes.len() as u64, *alignment));
        for (i, (kind, address, bytes, memory, alignment)) in loads.chain(notes).enumerate() {
            let at = 64 + i * 56;
            let offset = image.len() as u64;
            put(&mut image, at, &kind.to_le_bytes());
            put(&mut image, at + 8, &offset.to_le_bytes());
            put(&mut image, at + 24, &address.to_le_bytes());
            put(&mut image, at + 32, &(bytes.len() as u64).to_le_bytes());
            put(&mut image, at + 40, &memory.to_le_bytes());
            put(&mut image, at + 48, &u64::to_le_bytes(alignment));
            image.extend_from_slice(bytes);
        }
        image
    }
}

/// A note in the format of the ELF specification.
pub(crate) fn note(name: &[u8], kind: u32, description: &[u8], alignment: usize) -> Vec<u8> {
    let mut note = Vec::new();
    note.extend_from_slice(&(name.len() as u32).to_le_bytes());
    note.extend_from_slice(&(description.len() as u32).to_le_bytes());
    note.extend_from_slice(&kind.to_le_bytes());
    note.extend_from_slice(name);
    note.resize(note.len().next_multiple_of(alignment), 0);
    note.extend_from_slice(description);
    note.resize(note.len().next_multiple_of(alignment), 0);
    note
}

/// Some notes as kernels have them, the PVH entry last.
pub(crate) fn pvh_note(entry: u64) -> Vec<u8> {
    let mut notes = note(b"Xen\0", 6, b"linux\0", 4);
    notes.extend(note(b"Linux\0", 18, b"\x01\x02\x03\x04", 4));
    notes.extend(note(b"Xen\0", 18, &entry.to_le_bytes(), 4));
    notes
}
