//! The encoding of standard input for the lab: chunks that start with their length (four bytes, little-endian). An empty
//! chunk ends the input. Closing the port could not: QEMU drops data in flight when a port closes.

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;

const CHUNK: usize = 32 << 10;

/// Sends all of `from`, and the end of input.
pub fn send(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut chunk = vec![0; 4 + CHUNK];
    loop {
        let n = match from.read(&mut chunk[4..]) {
            Ok(n) => n,
            Err(err) if err.kind() == ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        let len = u32::try_from(n).map_err(io::Error::other)?;
        chunk[..4].copy_from_slice(&len.to_le_bytes());
        to.write_all(&chunk[..4 + n])?;
        if n == 0 {
            return Ok(());
        }
    }
}

/// Receives what [`send`] sends, up to the end of input, and writes it to `to`.
pub fn receive(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    loop {
        let mut len = [0; 4];
        from.read_exact(&mut len)?;
        let len = u64::from(u32::from_le_bytes(len));
        if len == 0 {
            return Ok(());
        }
        if io::copy(&mut from.by_ref().take(len), &mut to)? != len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_input_arrives() {
        for len in [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5] {
            let input: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let mut sent = Vec::new();
            send(&input[..], &mut sent).unwrap();
            let mut received = Vec::new();
            receive(&sent[..], &mut received).unwrap();
            assert!(received == input, "{len} bytes");
            sent.pop();
            assert!(receive(&sent[..], io::sink()).is_err());
        }
    }
}
