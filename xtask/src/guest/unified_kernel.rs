//! Makes unified kernel images (UAPI group specification 5): systemd's EFI stub with sections for a kernel, its initramfs
//! and its command line. The firmware starts the image without arguments.
//!
//! Not with objcopy(1), as systemd-stub(7) suggests: it writes the time of day into the file.

use anyhow::Context;

/// The content of an image, besides the stub.
pub(super) struct KernelContents<'a> {
    pub(super) kernel: &'a [u8],
    pub(super) initrd: &'a [u8],
    pub(super) cmdline: &'a str,
}

/// Offsets of the PE header fields to change (Microsoft's PE format, "COFF File Header" and "Optional Header
/// Windows-Specific Fields", for PE32+).
mod header {
    /// In the MS-DOS stub: the offset of the signature that precedes the COFF file header.
    pub(super) const PE_OFFSET: usize = 0x3c;
    pub(super) const SIGNATURE: &[u8] = b"PE\0\0";
    /// Offsets from the signature.
    pub(super) const SECTION_COUNT: usize = 6;
    pub(super) const OPTIONAL_HEADER_SIZE: usize = 20;
    pub(super) const OPTIONAL_HEADER: usize = 24;
    /// Offsets from the optional header.
    pub(super) const PE32_PLUS: u16 = 0x20b;
    pub(super) const FILE_ALIGNMENT: usize = 36;
    pub(super) const SIZE_OF_IMAGE: usize = 56;
    pub(super) const SIZE_OF_HEADERS: usize = 60;
    /// The size of a section header, and offsets in it.
    pub(super) const SECTION: usize = 40;
    pub(super) const SECTION_ADDRESS: usize = 12;
    pub(super) const SECTION_SIZE: usize = 8;
}

/// Initialized data, readable.
const CHARACTERISTICS: u32 = 0x4000_0040;

/// Sections begin at page boundaries: the stub starts the kernel in place.
const PAGE: u32 = 4096;

/// Adds `contents` to `stub`.
pub(super) fn build(stub: &[u8], contents: &KernelContents<'_>) -> anyhow::Result<Vec<u8>> {
    let cmdline = format!("{}\0", contents.cmdline);
    let mut image = PeImage::new(stub)?;
    image.add(b".cmdline", cmdline.as_bytes())?;
    image.add(b".linux\0\0", contents.kernel)?;
    image.add(b".initrd\0", contents.initrd)?;
    Ok(image.bytes)
}

struct PeImage {
    bytes: Vec<u8>,
    /// Offsets of the signature, the optional header and the section headers.
    pe: usize,
    optional: usize,
    sections: usize,
}

impl PeImage {
    fn new(stub: &[u8]) -> anyhow::Result<Self> {
        let mut image = Self {
            bytes: stub.to_vec(),
            pe: 0,
            optional: 0,
            sections: 0,
        };
        image.pe = image.u32_at(header::PE_OFFSET)? as usize;
        image.optional = image.pe.saturating_add(header::OPTIONAL_HEADER);
        image.sections = image.optional.saturating_add(usize::from(
            image.u16_at(image.pe.saturating_add(header::OPTIONAL_HEADER_SIZE))?,
        ));
        let signature = image.bytes.get(image.pe..);
        anyhow::ensure!(
            signature.is_some_and(|bytes| bytes.starts_with(header::SIGNATURE))
                && image.u16_at(image.optional)? == header::PE32_PLUS,
            "the EFI stub is not a 64-bit PE file"
        );
        Ok(image)
    }

    /// Appends a section.
    fn add(&mut self, name: &[u8; 8], content: &[u8]) -> anyhow::Result<()> {
        let count = self.u16_at(self.pe + header::SECTION_COUNT)?;
        let entry = self.sections + usize::from(count) * header::SECTION;
        let headers = self.u32_at(self.optional + header::SIZE_OF_HEADERS)? as usize;
        anyhow::ensure!(
            entry + header::SECTION <= headers,
            "the EFI stub's headers have no room for another section"
        );
        let alignment = self.u32_at(self.optional + header::FILE_ALIGNMENT)?;
        anyhow::ensure!(
            alignment.is_power_of_two(),
            "the EFI stub's alignment is not a power of two"
        );
        let last = entry - header::SECTION;
        let end = self
            .u32_at(last + header::SECTION_ADDRESS)?
            .checked_add(self.u32_at(last + header::SECTION_SIZE)?);
        let address = end
            .and_then(|end| end.checked_next_multiple_of(PAGE))
            .context("the EFI program is too large")?;
        let size = u32::try_from(content.len()).context("a section is too large")?;
        let image_end = address
            .checked_add(size)
            .and_then(|end| end.checked_next_multiple_of(PAGE))
            .context("the EFI program is too large")?;

        self.bytes
            .resize(self.bytes.len().next_multiple_of(alignment as usize), 0);
        let offset = u32::try_from(self.bytes.len())?;
        self.bytes.extend(content);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(alignment as usize), 0);
        let stored = u32::try_from(self.bytes.len())? - offset;

        let mut section = name.to_vec();
        for field in [size, address, stored, offset, 0, 0, 0, CHARACTERISTICS] {
            section.extend(field.to_le_bytes());
        }
        self.put(entry, &section);
        self.put(self.pe + header::SECTION_COUNT, &(count + 1).to_le_bytes());
        self.put(
            self.optional + header::SIZE_OF_IMAGE,
            &image_end.to_le_bytes(),
        );
        Ok(())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u16_at(&self, at: usize) -> anyhow::Result<u16> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        Ok(u16::from_le_bytes(
            *bytes.context("the EFI stub is truncated")?,
        ))
    }

    fn u32_at(&self, at: usize) -> anyhow::Result<u32> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        Ok(u32::from_le_bytes(
            *bytes.context("the EFI stub is truncated")?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers of 0x400 bytes with one section of 0x123 bytes at 0x1000.
    fn stub() -> Vec<u8> {
        let mut stub = vec![0; 0x600];
        let mut put = |at: usize, bytes: &[u8]| stub[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x3c, &0x80_u32.to_le_bytes());
        put(0x80, b"PE\0\0");
        put(0x86, &1_u16.to_le_bytes());
        put(0x94, &240_u16.to_le_bytes());
        put(0x98, &0x20b_u16.to_le_bytes());
        put(0x98 + 36, &0x200_u32.to_le_bytes());
        put(0x98 + 60, &0x400_u32.to_le_bytes());
        let section = 0x98 + 240;
        put(section, b".text\0\0\0");
        put(section + 8, &0x123_u32.to_le_bytes());
        put(section + 12, &0x1000_u32.to_le_bytes());
        stub
    }

    #[test]
    fn sections_follow_each_other_in_the_file_and_in_memory() {
        let contents = KernelContents {
            kernel: &[1; 0x1001],
            initrd: &[2; 3],
            cmdline: "x=y",
        };
        let image = build(&stub(), &contents).unwrap();
        assert_eq!(image[0x86], 4);
        let section = |index: usize| {
            let at = 0x98 + 240 + index * 40;
            let field =
                |n: usize| u32::from_le_bytes(image[at + 8 + 4 * n..][..4].try_into().unwrap());
            let content = &image[field(3) as usize..][..field(0) as usize];
            (&image[at..at + 8], field(1), field(2), content)
        };
        assert_eq!(section(1), (&b".cmdline"[..], 0x2000, 0x200, &b"x=y\0"[..]));
        assert_eq!(
            section(2),
            (&b".linux\0\0"[..], 0x3000, 0x1200, &[1; 0x1001][..])
        );
        assert_eq!(section(3), (&b".initrd\0"[..], 0x5000, 0x200, &[2; 3][..]));
        let size_of_image = &image[0x98 + 56..][..4];
        assert_eq!(size_of_image, 0x6000_u32.to_le_bytes());
        assert_eq!(image.len(), 0x600 + 0x200 + 0x1200 + 0x200);
        assert_eq!(image, build(&stub(), &contents).unwrap());
    }

    #[test]
    fn invalid_stubs_are_rejected() {
        let contents = KernelContents {
            kernel: &[],
            initrd: &[],
            cmdline: "",
        };
        assert!(build(&[], &contents).is_err());
        assert!(build(&[0xff; 0x80], &contents).is_err());
        let mut crowded = stub();
        crowded[0x98 + 60..][..4].copy_from_slice(&0x1d0_u32.to_le_bytes());
        assert!(build(&crowded, &contents).is_err());
    }
}
