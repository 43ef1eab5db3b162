//! Reading files.

use crate::crypto::Gcm;
use crate::disk::byte_of;
use crate::error::Error;
use crate::event::Event;
use crate::finding::Damage;
use crate::state::FileRecord;
use crate::store::Vmgs;
use std::io;
use vmgs_format::BLOCK_SIZE;
use vmgs_format::FIRST_DATA_BLOCK;
use vmgs_format::FileId;
use vmgs_format::FileIdRange;
use zeroize::Zeroizing;

/// Bytes that pass through memory at a time. A multiple of the cipher's block and of every sector size.
pub(crate) const PIECE: usize = 128 << 10;

/// The most bytes that [`Vmgs::read`] reads into memory.
pub const READ_LIMIT: u64 = 256 << 20;

/// In which form content is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it was written.
    Content,
    /// As it is stored: the ciphertext, for an encrypted file. Never needs a key.
    Stored,
}

impl Vmgs {
    /// The content of a file of at most [`READ_LIMIT`] bytes.
    pub fn read(&mut self, id: FileId) -> Result<Vec<u8>, Error> {
        self.read_at_most(id, READ_LIMIT)
    }

    /// The content of a file of at most `limit` bytes.
    pub fn read_at_most(&mut self, id: FileId, limit: u64) -> Result<Vec<u8>, Error> {
        let mut content = self.buffer_for(id, limit)?;
        self.read_into(id, 0, &mut content, Form::Content)?;
        Ok(content)
    }

    /// What is stored for a file of at most [`READ_LIMIT`] bytes, without decrypting it.
    ///
    /// Also reads files that are damaged, as far as they are in the store.
    pub fn read_stored(&mut self, id: FileId) -> Result<Vec<u8>, Error> {
        let mut content = self.buffer_for(id, READ_LIMIT)?;
        self.read_into(id, 0, &mut content, Form::Stored)?;
        Ok(content)
    }

    /// Fills `buf` with the file's content from byte `offset`, as far as that goes, and returns how
    /// many bytes there were.
    ///
    /// Of an encrypted file all is read, whatever the range, to find out that it is authentic.
    pub fn read_range(&mut self, id: FileId, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let size = self.readable(id, Form::Content)?.size;
        let len = size
            .saturating_sub(offset)
            .min(u64::try_from(buf.len()).unwrap_or(u64::MAX)) as usize;
        self.read_into(id, offset, &mut buf[..len], Form::Content)?;
        Ok(len)
    }

    /// Passes the file's content on to `sink`, piece by piece.
    ///
    /// An encrypted file is read twice: it is found authentic before the first byte is passed on. What
    /// the second reading delivers is authenticated again; if the device changed it in between, this
    /// fails with [`Error::Authentication`] after `sink` has been given bytes that must not be used.
    pub fn read_to(&mut self, id: FileId, sink: &mut dyn io::Write) -> Result<u64, Error> {
        self.pass_on(id, Form::Content, sink)
    }

    /// [`read_to`](Vmgs::read_to) of what is [stored](Vmgs::read_stored).
    pub fn read_stored_to(&mut self, id: FileId, sink: &mut dyn io::Write) -> Result<u64, Error> {
        self.pass_on(id, Form::Stored, sink)
    }

    /// Reads an encrypted file to see whether it is authentic, and any file to see whether it can be
    /// read.
    pub fn check_file(&mut self, id: FileId) -> Result<(), Error> {
        if self.readable(id, Form::Content)?.data_key.is_some() {
            self.read_into(id, 0, &mut [], Form::Content)
        } else {
            self.read_to(id, &mut io::sink()).map(drop)
        }
    }

    fn buffer_for(&self, id: FileId, limit: u64) -> Result<Vec<u8>, Error> {
        // Its entry is validated before its size is believed.
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

    /// The file, if it can be read in this form. All of the size it then has is in the store.
    fn readable(&self, id: FileId, form: Form) -> Result<FileRecord, Error> {
        if id.range() != FileIdRange::File {
            return Err(Error::InvalidFileId(id));
        }
        let mut file = self.state.file(id).ok_or(Error::NotAllocated(id))?.clone();
        match (form, file.damage) {
            (_, None) => {}
            // The content of an encrypted file speaks for itself.
            (Form::Content, Some(Damage::Overlaps(_))) if file.data_key.is_some() => {}
            (Form::Content, Some(damage)) => return Err(Error::DamagedFile { id, damage }),
            // Stored bytes speak for nothing.
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

    /// Notes failures that the owner of the store should hear of.
    fn noting<T>(&self, id: FileId, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Read { .. } | Error::Authentication(_)) = &result {
            self.events.send(Event::AccessFailed(id));
        }
        result
    }

    /// Fills `buf` from byte `offset` of the file; the range is inside it.
    fn read_into(
        &mut self,
        id: FileId,
        offset: u64,
        buf: &mut [u8],
        form: Form,
    ) -> Result<(), Error> {
        let file = self.readable(id, form)?;
        let result = match &file.data_key {
            Some(key) if form == Form::Content => {
                let mut gcm = Gcm::new(key, &file.nonce);
                self.read_authentic(id, &file, &mut gcm, offset, buf)
            }
            _ => self.disk.read(byte_of(file.extent.start) + offset, buf),
        };
        self.noting(id, result)
    }

    /// Reads all of an encrypted file, keeps the range at `offset`, and decrypts that once the whole is
    /// found authentic.
    fn read_authentic(
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
                // The part of the piece that is wanted.
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

    fn pass_on(&mut self, id: FileId, form: Form, sink: &mut dyn io::Write) -> Result<u64, Error> {
        let file = self.readable(id, form)?;
        let mut gcm = match &file.data_key {
            Some(key) if form == Form::Content => {
                let mut first = Gcm::new(key, &file.nonce);
                let found = self.read_authentic(id, &file, &mut first, 0, &mut []);
                self.noting(id, found)?;
                Some(Gcm::new(key, &file.nonce))
            }
            _ => None,
        };
        let mut piece = Zeroizing::new(vec![0; file.size.min(PIECE as u64) as usize]);
        let mut position = 0;
        while position < file.size {
            let len = (file.size - position).min(PIECE as u64) as usize;
            let piece = &mut piece[..len];
            let read = self.disk.read(byte_of(file.extent.start) + position, piece);
            self.noting(id, read)?;
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
            return self.noting(id, Err(Error::Authentication(id)));
        }
        Ok(file.size)
    }
}
