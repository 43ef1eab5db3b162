//! Direct I/O, past the host's page cache. It asks for aligned memory, which guests do not always use.

use crate::open;
use disk_backend::Buffers;
use rustix::fs::AtFlags;
use rustix::fs::OFlags;
use rustix::fs::StatxFlags;
use std::fs::File;
use std::io;
use std::sync::Arc;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

/// The most bytes that go through aligned memory at once.
const MAX_BOUNCE: u64 = 1 << 20;

/// The alignment of memory pages, which is that of [`Bounce`].
const PAGE: u32 = 4096;

/// What direct I/O asks for on a file system or device that does not say it.
const USUAL: u32 = 4096;

/// Whether I/O goes through the host's page cache.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Caching {
    /// It does.
    #[default]
    #[n(0)]
    PageCache,
    /// It does not (`O_DIRECT`).
    #[n(1)]
    Direct,
}

/// What direct I/O on a file asks for, in bytes: powers of two.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// Of addresses of memory.
    memory: u32,
    /// Of offsets and lengths.
    pub(crate) block: u32,
}

/// Makes all I/O on `file` direct from now on.
pub(crate) fn turn_on(file: &File) -> io::Result<Alignment> {
    let alignment = alignment(file)?;
    if alignment.memory > PAGE {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT)?;
    Ok(alignment)
}

fn alignment(file: &File) -> io::Result<Alignment> {
    // Since Linux 6.1, and not on all file systems.
    let told = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .ok()
        .filter(|told| told.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
    if let Some(told) = told {
        let alignment = Alignment {
            memory: told.stx_dio_mem_align,
            block: told.stx_dio_offset_align,
        };
        let possible = alignment.memory.is_power_of_two() && alignment.block.is_power_of_two();
        // Both are 0 if there is no direct I/O on the file.
        return match possible {
            true => Ok(alignment),
            false => Err(io::ErrorKind::Unsupported.into()),
        };
    }
    let block = match file.metadata()?.is_file() {
        true => USUAL,
        false => open::logical_block(file)?,
    };
    Ok(Alignment {
        memory: block,
        block,
    })
}

impl Alignment {
    fn takes(self, buffers: &Buffers) -> bool {
        let aligned = |value: usize, to: u32| value & (to as usize - 1) == 0;
        buffers.iovecs().iter().all(|piece| {
            aligned(piece.iov_base.addr(), self.memory) && aligned(piece.iov_len, self.block)
        })
    }
}

/// Aligned memory in place of a guest's that is not.
#[derive(Debug)]
pub(crate) struct Bounce {
    memory: Arc<GuestMemoryMmap>,
    /// What of it the present call uses.
    current: Buffers,
}

impl Bounce {
    /// Aligned memory for `buffers`, if they need it.
    pub(crate) fn for_buffers(buffers: &Buffers, alignment: Alignment) -> io::Result<Option<Self>> {
        if alignment.takes(buffers) {
            return Ok(None);
        }
        let len = buffers.len().min(MAX_BOUNCE);
        let range = (GuestAddress(0), len as usize);
        let memory = GuestMemoryMmap::from_ranges(&[range]).map_err(io::Error::other)?;
        let mut bounce = Self {
            memory: Arc::new(memory),
            current: Buffers::zeroes(0),
        };
        bounce.prepare(buffers)?;
        Ok(Some(bounce))
    }

    /// The memory for the next call, whose bytes are for the start of the guest's.
    pub(crate) fn current(&self) -> &Buffers {
        &self.current
    }

    /// Turns to the part of the memory that the start of `buffers` needs.
    pub(crate) fn prepare(&mut self, buffers: &Buffers) -> io::Result<()> {
        let range = (GuestAddress(0), buffers.len().min(MAX_BOUNCE));
        self.current = Buffers::guest(&self.memory, [range]).map_err(io::Error::other)?;
        Ok(())
    }

    /// Copies what is to be written to the aligned memory.
    pub(crate) fn fill(&self, buffers: &Buffers) {
        copy(buffers, &self.current, self.current.len());
    }

    /// Copies `count` bytes that were read to the guest's memory.
    pub(crate) fn deliver(&self, buffers: &Buffers, count: u64) {
        copy(&self.current, buffers, count.min(self.current.len()));
    }
}

fn copy(from: &Buffers, to: &Buffers, len: u64) {
    let mut chunk = vec![0; 64 << 10];
    let mut at = 0;
    while at < len {
        let count = (len - at).min(chunk.len() as u64);
        let chunk = &mut chunk[..count as usize];
        from.copy_to(at, chunk);
        to.copy_from(at, chunk);
        at += count;
    }
}
