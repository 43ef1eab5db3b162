//! Standard output.

use std::io;
use std::io::Write;

/// Standard output. After the reader of a pipe has closed it, what is written is dropped, and the command goes on as
/// if it had been read: its exit code does not depend on how much the reader wanted.
pub(crate) struct StandardOutput<W> {
    out: W,
    closed: bool,
}

impl<W: Write> StandardOutput<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, closed: false }
    }

    fn unless_closed<T>(
        &mut self,
        dropped: T,
        act: impl FnOnce(&mut W) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.closed {
            return Ok(dropped);
        }
        act(&mut self.out).or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(dropped)
            }
            io::ErrorKind::Interrupted => Err(error),
            kind => Err(io::Error::new(
                kind,
                format!("writing standard output: {error}"),
            )),
        })
    }
}

impl<W: Write> Write for StandardOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_closed(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_closed((), W::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with this error.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn only_a_closed_pipe_is_quiet() {
        let mut closed = StandardOutput::new(Failing(io::ErrorKind::BrokenPipe));
        closed.write_all(b"text").unwrap();
        closed.flush().unwrap();
        let mut full = StandardOutput::new(Failing(io::ErrorKind::StorageFull));
        let error = full.write_all(b"text").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(full.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
