//! Which pages of guest RAM may have content.

use crate::MemoryRange;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use vm_memory::GuestMemoryRegion as _;
use vm_memory::GuestRegionMmap;

const PAGE: u64 = 4096;

/// The bits of an entry of `/proc/self/pagemap` (Linux, Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// Entries of the page map that are read at once: those of 256 MiB.
const ENTRIES: usize = 1 << 16;

/// The pages of `region` that may have content. All of them if the host does not tell.
pub(crate) fn ranges(region: &GuestRegionMmap) -> Vec<MemoryRange> {
    let mut pages = Pages::new(region.len().div_ceil(PAGE));
    let mut known = || -> io::Result<()> {
        if let Some(file) = region.file_offset() {
            of_file(&mut pages, file.file(), file.start(), region.len())?;
        }
        if region.flags() & libc::MAP_PRIVATE != 0 {
            of_process(&mut pages, region.as_ptr().addr() as u64)?;
        }
        Ok(())
    };
    if let Err(error) = known() {
        tracing::debug!(%error, "the host does not tell which pages of guest memory have content");
        pages.add(0, pages.count);
    }
    pages.ranges(region.start_addr().0)
}

/// Adds what is not a hole of the file.
fn of_file(pages: &mut Pages, file: &File, start: u64, len: u64) -> io::Result<()> {
    let end = start + len;
    let mut at = start;
    while at < end {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) if data < end => data,
            // No more data.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(file, SeekFrom::Hole(data))?.min(end);
        pages.add((data - start) / PAGE, (hole - start).div_ceil(PAGE));
        at = hole;
    }
    Ok(())
}

/// Adds the pages that are the process's own.
fn of_process(pages: &mut Pages, address: u64) -> io::Result<()> {
    let map = File::open("/proc/self/pagemap")?;
    let mut bytes = vec![0; ENTRIES * 8];
    let mut first = 0;
    while first < pages.count {
        let count = (pages.count - first).min(ENTRIES as u64);
        let bytes = &mut bytes[..count as usize * 8];
        map.read_exact_at(bytes, (address / PAGE + first) * 8)?;
        for (page, entry) in (first..).zip(bytes.as_chunks().0) {
            let entry = u64::from_le_bytes(*entry);
            if entry & SWAPPED != 0 || entry & (PRESENT | OF_FILE) == PRESENT {
                pages.add(page, page + 1);
            }
        }
        first += count;
    }
    Ok(())
}

/// A set of pages.
struct Pages {
    count: u64,
    bits: Vec<u64>,
}

impl Pages {
    fn new(count: u64) -> Self {
        Self {
            count,
            bits: vec![0; count.div_ceil(64) as usize],
        }
    }

    fn add(&mut self, from: u64, to: u64) {
        let mut page = from;
        while page < to.min(self.count) {
            let word = &mut self.bits[(page / 64) as usize];
            if page.is_multiple_of(64) && to.min(self.count) - page >= 64 {
                *word = u64::MAX;
                page += 64;
            } else {
                *word |= 1 << (page % 64);
                page += 1;
            }
        }
    }

    fn has(&self, page: u64) -> bool {
        self.bits[(page / 64) as usize] >> (page % 64) & 1 != 0
    }

    fn ranges(&self, gpa: u64) -> Vec<MemoryRange> {
        let mut ranges = Vec::new();
        let mut page = 0;
        while page < self.count {
            if page.is_multiple_of(64) && self.bits[(page / 64) as usize] == 0 {
                page += 64;
                continue;
            }
            let start = page;
            while page < self.count && self.has(page) {
                page += 1;
            }
            if start == page {
                page += 1;
                continue;
            }
            ranges.push(MemoryRange {
                start: gpa + start * PAGE,
                end: gpa + page * PAGE,
            });
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GuestMemory;
    use crate::MIN_RAM;
    use crate::MemoryBacking;
    use crate::MemoryLayout;
    use crate::MemorySource;
    use vm_memory::Bytes as _;
    use vm_memory::GuestAddress;

    fn memory(source: MemorySource) -> GuestMemory {
        let gap = MemoryLayout::DEFAULT_LOW_MMIO_START;
        let layout = MemoryLayout::new(MIN_RAM, gap, 46).unwrap();
        let backing = MemoryBacking {
            source,
            pages: crate::PageKind::Small,
            prealloc: false,
        };
        GuestMemory::new(layout, &backing).unwrap()
    }

    fn contains(memory: &GuestMemory, gpa: u64) -> bool {
        memory.content().iter().any(|range| range.contains(gpa))
    }

    #[test]
    fn what_was_written_has_content_and_what_was_not_has_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        for source in [
            MemorySource::Anonymous,
            MemorySource::Shared,
            MemorySource::File(path),
        ] {
            let memory = memory(source.clone());
            let gpas = [0, 0x3000, 0x10_0000, MIN_RAM - 0x1000];
            for gpa in gpas {
                memory.map().write_obj(7_u8, GuestAddress(gpa)).unwrap();
            }
            for gpa in gpas {
                assert!(contains(&memory, gpa), "{source:?}: {gpa:#x}");
            }
            assert!(!contains(&memory, 0x80_0000), "{source:?}");
        }
    }

    #[test]
    fn saved_memory_has_the_file_s_content_and_its_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MIN_RAM + 0x1000).unwrap();
        file.as_file().write_all_at(&[1; 4096], 0x20_0000).unwrap();
        let first = memory(MemorySource::Saved(file.path().to_owned()));
        let second = memory(MemorySource::Saved(file.path().to_owned()));
        let byte =
            |memory: &GuestMemory, gpa| -> u8 { memory.map().read_obj(GuestAddress(gpa)).unwrap() };
        first.map().write_obj(2_u8, GuestAddress(0x5000)).unwrap();
        first
            .map()
            .write_obj(3_u8, GuestAddress(0x20_0000))
            .unwrap();
        assert!(contains(&first, 0x5000) && contains(&first, 0x20_0000));
        assert!(!contains(&first, 0x100_0000));
        assert_eq!(byte(&first, 0x20_0000), 3);
        assert_eq!((byte(&second, 0x20_0000), byte(&second, 0x5000)), (1, 0));
        let mut content = vec![0; 4096];
        file.as_file()
            .read_exact_at(&mut content, 0x20_0000)
            .unwrap();
        assert!(content.iter().all(|byte| *byte == 1));
        assert!(!contains(&second, 0x5000));
    }

    #[test]
    fn a_short_file_of_saved_memory_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MIN_RAM - 1).unwrap();
        let gap = MemoryLayout::DEFAULT_LOW_MMIO_START;
        let layout = MemoryLayout::new(MIN_RAM, gap, 46).unwrap();
        let backing = MemoryBacking {
            source: MemorySource::Saved(file.path().to_owned()),
            ..MemoryBacking::default()
        };
        assert!(matches!(
            GuestMemory::new(layout, &backing),
            Err(crate::MemoryError::FileSize { .. })
        ));
    }

    #[test]
    fn sets_of_pages_are_ranges() {
        let mut pages = Pages::new(200);
        for (from, to) in [(0, 1), (63, 65), (128, 300)] {
            pages.add(from, to);
        }
        let ranges: Vec<_> = pages.ranges(0x10_0000).into_iter().collect();
        let page = |n: u64| 0x10_0000 + n * PAGE;
        let expected = [(0, 1), (63, 65), (128, 200)].map(|(start, end)| MemoryRange {
            start: page(start),
            end: page(end),
        });
        assert_eq!(ranges, expected);
    }
}
