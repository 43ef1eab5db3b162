//! Reading files.

use crate::crypto::Gcm;
use crate::damage::Damage;
use crate::disk::byte_of;
use crate::error::Error;
use crate::state::FileRecord;
use crate::store::Vmgs;
use std::io;
use vmgs_format::BLOCK_SIZE;
use vmgs_format::FIRST_DATA_BLOCK;
use vmgs_format::FileId;
use vmgs_format::FileIdRange;
use zeroize::Zeroizing;

/// Number of bytes that are read or written at a time. A multiple of the cipher's block size and of every
/// sector size.
pub(crate) const PIECE: usize = 128 << 10;

/// Maximum length in bytes of a file that [`Vmgs::read`] reads into memory.
pub const READ_LIMIT: u64 = 256 << 20;

/// The form in which a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The content as it was written.
    Content,
    /// The bytes on the disk: the ciphertext of an encrypted file. Needs no key.
    Stored,
}

impl Vmgs {
    /// Reads a file of at most [`READ_LIMIT`] bytes.
    pub fn read(&mut self, id: FileId) -> Result<Vec<u8>, Error> {
        self.read_at_most(id, READ_LIMIT)
    }

    /// Reads a file of at most `limit` bytes.
    pub fn read_at_most(&mut self, id: FileId, limit: u64) -> Result<Vec<u8>, Error> {
        let mut content = self.buffer_for(id, limit)?;
        self.read_into(id, 0, &mut content, Form::Content)?;
        Ok(content)
    }

    /// Reads a file of at most [`READ_LIMIT`] bytes as it is stored, without decrypting it.
    ///
    /// This also reads the part of a damaged file that is inside the store.
    pub fn read_stored(&mut self, id: FileId) -> Result<Vec<u8>, Error> {
        let mut content = self.buffer_for(id, READ_LIMIT)?;
        self.read_into(id, 0, &mut content, Form::Stored)?;
        Ok(content)
    }

    /// Fills `buf` with the file's content from byte `offset` on, and returns the number of bytes read,
    /// which is less than the length of `buf` only at the end of the file.
    ///
    /// An encrypted file is read completely, whatever the range, to authenticate it.
    pub fn read_range(&mut self, id: FileId, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let size = self.readable(id, Form::Content)?.size;
        let len = size
            .saturating_sub(offset)
            .min(u64::try_from(buf.len()).unwrap_or(u64::MAX)) as usize;
        self.read_into(id, offset, &mut buf[..len], Form::Content)?;
        Ok(len)
    }

    /// Writes the file's content to `sink`, piece by piece, and returns its length in bytes.
    ///
    /// An encrypted file is read twice, to authenticate it before the first byte is written to `sink`. The
    /// second pass authenticates it again: if the device changed it in between, this fails with
    /// [`Error::Authentication`], and the bytes written to `sink` must not be used.
    pub fn read_to(&mut self, id: FileId, sink: &mut dyn io::Write) -> Result<u64, Error> {
        self.copy_to(id, Form::Content, sink)
    }

    /// Like [`read_to`](Vmgs::read_to), for the file as it is [stored](Vmgs::read_stored).
    pub fn read_stored_to(&mut self, id: FileId, sink: &mut dyn io::Write) -> Result<u64, Error> {
        self.copy_to(id, Form::Stored, sink)
    }

    /// Checks that the file can be read and, if it is encrypted, that it is authentic.
    pub fn check_file(&mut self, id: FileId) -> Result<(), Error> {
        if self.readable(id, Form::Content)?.data_key.is_some() {
            self.read_into(id, 0, &mut [], Form::Content)
        } else {
            self.read_to(id, &mut io::sink()).map(drop)
        }
    }

    fn buffer_for(&self, id: FileId, limit: u64) -> Result<Vec<u8>, Error> {
        // The size is checked against the store before it is used.
        let size = self.readable(id, Form::Stored)?.size;
        if size > limit {
            return Err(Error::TooLargeToRead { id, size, limit });
        }
        let mut buffer = Vec::new();
        let len = usize::try_from(size).map_err(|_| Error::OutOfMemory { id, size })?;
        buffer
            .try_reserve_exact(len)
            .map_err(|_| Error::OutOfMemory { id, size })?;
        buffer.resize(len, 0);
        Ok(buffer)
    }

    /// The entry of a file that can be read in this form. All bytes of the returned size are inside the
    /// store.
    fn readable(&self, id: FileId, form: Form) -> Result<FileRecord, Error> {
        if id.range() != FileIdRange::File {
            return Err(Error::InvalidFileId(id));
        }
        let mut file = self.state.file(id).ok_or(Error::NotAllocated(id))?.clone();
        match (form, file.damage) {
            (_, None) => {}
            // An overlapped encrypted file can be authenticated.
            (Form::Content, Some(Damage::Overlaps(_))) if file.data_key.is_some() => {}
            (Form::Content, Some(damage)) => return Err(Error::DamagedFile { id, damage }),
            // Stored bytes are not authenticated, so the part inside the store is read.
            (Form::Stored, Some(damage)) => {
                let end = file.extent.end().min(self.disk.geometry.blocks.into());
                let blocks = end.saturating_sub(file.extent.start.into());
                if blocks == 0 || file.extent.start < FIRST_DATA_BLOCK {
                    return Err(Error::DamagedFile { id, damage });
                }
                file.size = file.size.min(blocks * u64::from(BLOCK_SIZE));
            }
        }
        let encrypted = self.is_file_encrypted(&file);
        if form == Form::Content && encrypted && file.data_key.is_none() {
            return Err(Error::Locked);
        }
        Ok(file)
    }

    /// Fills `buf` with the bytes from `offset` on. The range must be inside the file.
    fn read_into(
        &mut self,
        id: FileId,
        offset: u64,
        buf: &mut [u8],
        form: Form,
    ) -> Result<(), Error> {
        let file = self.readable(id, form)?;
        match &file.data_key {
            Some(key) if form == Form::Content => {
                let mut gcm = Gcm::new(key, &file.nonce);
                self.read_authentic(id, &file, &mut gcm, offset, buf)
            }
            _ => self.disk.read(byte_of(file.extent.start) + offset, buf),
        }
    }

    /// Reads an encrypted file completely, authenticates it, and then decrypts the range at `offset`.
    pub(crate) fn read_authentic(
        &mut self,
        id: FileId,
        file: &FileRecord,
        gcm: &mut Gcm,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), Error> {
        let start = byte_of(file.extent.start);
        if offset == 0 && buf.len() as u64 == file.size {
            let mut position = start;
            for piece in buf.chunks_mut(PIECE) {
                self.disk.read(position, piece)?;
                gcm.authenticate(piece);
                position += piece.len() as u64;
            }
        } else {
            let mut piece = vec![0; file.size.min(PIECE as u64) as usize];
            let mut position = 0;
            while position < file.size {
                let len = (file.size - position).min(PIECE as u64) as usize;
                let piece = &mut piece[..len];
                self.disk.read(start + position, piece)?;
                gcm.authenticate(piece);
                // Copy the part of the piece that is in the range.
                let from = offset.max(position);
                let to = (offset + buf.len() as u64).min(position + len as u64);
                if from < to {
                    buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(
                        &piece[(from - position) as usize..(to - position) as usize],
                    );
                }
                position += len as u64;
            }
        }
        if !gcm.verify(&file.tag) {
            buf.fill(0);
            return Err(Error::Authentication(id));
        }
        for (i, piece) in buf.chunks_mut(PIECE).enumerate() {
            gcm.decrypt_at(offset + (i * PIECE) as u64, piece);
        }
        Ok(())
    }

    fn copy_to(&mut self, id: FileId, form: Form, sink: &mut dyn io::Write) -> Result<u64, Error> {
        let file = self.readable(id, form)?;
        let mut gcm = match &file.data_key {
            Some(key) if form == Form::Content => {
                let mut first = Gcm::new(key, &file.nonce);
                self.read_authentic(id, &file, &mut first, 0, &mut [])?;
                Some(Gcm::new(key, &file.nonce))
            }
            _ => None,
        };
        let mut piece = Zeroizing::new(vec![0; file.size.min(PIECE as u64) as usize]);
        let mut position = 0;
        while position < file.size {
            let len = (file.size - position).min(PIECE as u64) as usize;
            let piece = &mut piece[..len];
            self.disk
                .read(byte_of(file.extent.start) + position, piece)?;
            if let Some(gcm) = &mut gcm {
                gcm.authenticate(piece);
                gcm.decrypt_at(position, piece);
            }
            sink.write_all(piece)
                .map_err(|source| Error::Sink { id, source })?;
            position += len as u64;
        }
        if let Some(gcm) = gcm
            && !gcm.verify(&file.tag)
        {
            return Err(Error::Authentication(id));
        }
        Ok(file.size)
    }
}
