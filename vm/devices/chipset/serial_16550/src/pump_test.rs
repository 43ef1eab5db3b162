use crate::SerialBackend;
use crate::SerialError;
use crate::SerialPort;
use parking_lot::Mutex;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

/// Long enough for the slowest machine; a passing test never waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends like a guest that checks its transmitter.
fn send(port: &SerialPort, bytes: &[u8]) {
    for byte in bytes {
        assert!(port.wait_output_room(PATIENCE));
        assert!(port.write_output(*byte));
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Waits for an action of another thread.
fn wait_until(mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Clone, Default)]
struct Log {
    bytes: Arc<Mutex<Vec<u8>>>,
    writes: Arc<Mutex<usize>>,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.lock().extend_from_slice(bytes);
        *self.writes.lock() += 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_receives_all_output() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serial.log");
    std::fs::write(&path, "old").unwrap();
    let port = SerialPort::new();
    send(&port, b"before ");
    let connection = port
        .connect("com1", SerialBackend::file(&path).unwrap())
        .unwrap();
    send(&port, b"and after");
    assert_eq!(port.flush(PATIENCE), 0);
    assert_eq!(std::fs::read(&path).unwrap(), b"before and after");
    send(&port, b", to the end");
    assert!(connection.close(PATIENCE));
    assert_eq!(
        std::fs::read(&path).unwrap(),
        b"before and after, to the end"
    );
}

#[test]
fn a_flood_is_collected_into_few_writes_without_loss() {
    let log = Log::default();
    let port = SerialPort::new();
    let connection = port
        .connect("com1", SerialBackend::sink(log.clone()))
        .unwrap();
    let sent = pattern(1 << 20);
    send(&port, &sent);
    assert_eq!(port.flush(PATIENCE), 0);
    assert!(*log.bytes.lock() == sent);
    let writes = *log.writes.lock();
    assert!(writes < sent.len() / 100, "{writes} writes");
    assert_eq!(port.stats().output, 1 << 20);
    drop(connection);
}

#[test]
fn a_line_has_one_backend_at_a_time() {
    let port = SerialPort::new();
    let connection = port
        .connect("com1", SerialBackend::sink(io::sink()))
        .unwrap();
    let error = port.connect("com1", SerialBackend::sink(io::sink())).err();
    assert!(matches!(error, Some(SerialError::Connected)));
    drop(connection);
    let log = Log::default();
    let connection = port
        .connect("com1", SerialBackend::sink(log.clone()))
        .unwrap();
    send(&port, b"again");
    drop(connection);
    assert_eq!(*log.bytes.lock(), b"again");
}

#[test]
fn a_broken_sink_does_not_stop_the_guest() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let port = SerialPort::new();
    let _connection = port.connect("com1", SerialBackend::sink(Broken)).unwrap();
    send(&port, &pattern(3 * SerialPort::OUTPUT_CAPACITY));
    assert_eq!(port.flush(PATIENCE), 0);
    assert_eq!(
        port.stats().failed as usize,
        3 * SerialPort::OUTPUT_CAPACITY
    );
}

#[test]
fn a_stalled_sink_makes_the_guest_wait() {
    struct Gate(mpsc::Receiver<()>, Log);
    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (open, gate) = mpsc::channel();
    let log = Log::default();
    let port = SerialPort::new();
    let connection = port
        .connect("com1", SerialBackend::sink(Gate(gate, log.clone())))
        .unwrap();
    let mut sent = Vec::new();
    while port.wait_output_room(Duration::ZERO) {
        let byte = sent.len() as u8;
        assert!(port.write_output(byte));
        sent.push(byte);
    }
    assert!(port.flush(Duration::from_millis(1)) > SerialPort::OUTPUT_CAPACITY - 16);
    assert!(!connection.close(Duration::ZERO), "stuck in the write");
    drop(open);
    wait_until(|| port.work().output == 0);
    assert!(*log.bytes.lock() == sent);
}

#[test]
fn a_socket_serves_one_client_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serial.sock");
    let port = SerialPort::new();
    let backend = SerialBackend::unix_listener(&path).unwrap();
    let connection = port.connect("com1", backend).unwrap();
    send(&port, b"no client yet\n");

    let mut first = UnixStream::connect(&path).unwrap();
    let mut buffer = [0; 14];
    first.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"no client yet\n");
    first.write_all(b"ls\n").unwrap();
    wait_until(|| port.stats().input == 3);
    drop(first);

    let mut second = UnixStream::connect(&path).unwrap();
    // The second client is served once the first has disconnected. Output in between is not lost.
    send(&port, b"hello again");
    let mut buffer = [0; 11];
    second.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello again");
    // A client that sends and then disconnects.
    second.write_all(b"cat\n").unwrap();
    second.shutdown(std::net::Shutdown::Write).unwrap();
    wait_until(|| port.stats().input == 7);
    send(&port, b"still read");
    let mut buffer = [0; 10];
    second.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still read");

    assert!(connection.close(PATIENCE));
    assert!(!path.exists());
}

#[test]
fn a_stalled_client_makes_the_guest_wait_and_receives_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serial.sock");
    let port = SerialPort::new();
    let backend = SerialBackend::unix_listener(&path).unwrap();
    let _connection = port.connect("com1", backend).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    wait_until(|| !port.has_absent_reader());
    let mut sent = Vec::new();
    // More than the buffers of the socket and the line: the transmitter becomes busy.
    while port.wait_output_room(Duration::from_millis(200)) {
        for _ in 0..16 {
            assert!(port.write_output(sent.len() as u8));
            sent.push(sent.len() as u8);
        }
        assert!(sent.len() < 64 << 20, "the guest never waits");
    }
    let mut received = vec![0; sent.len()];
    client.read_exact(&mut received).unwrap();
    assert!(received == sent);
    assert_eq!(port.stats().refused, 0);
}

#[test]
fn input_waits_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serial.sock");
    let port = SerialPort::new();
    let backend = SerialBackend::unix_listener(&path).unwrap();
    let _connection = port.connect("com1", backend).unwrap();
    let sent = pattern(5 * SerialPort::INPUT_CAPACITY);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(&sent).unwrap();
    // Input of a client that has disconnected arrives too.
    drop(client);
    let mut received = Vec::new();
    wait_until(|| {
        while let Some(input) = port.receive() {
            match input {
                crate::port::Input::Byte(byte) => received.push(byte),
                crate::port::Input::Break => panic!("nobody sent a break"),
            }
        }
        received.len() >= sent.len()
    });
    assert!(received == sent);
}

#[test]
fn the_host_waits_for_room() {
    let port = SerialPort::new();
    let full = vec![0; SerialPort::INPUT_CAPACITY];
    assert_eq!(port.write_input(&full), full.len());
    assert_eq!(port.write_input(b"x"), 0);
    assert!(!port.send_break());
    assert_eq!(port.wait_input_room(Duration::ZERO), 0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| port.wait_input_room(PATIENCE));
        port.receive().unwrap();
        assert_eq!(waiter.join().unwrap(), 1);
    });
    assert_eq!(port.write_input(b"xy"), 1);
}

#[test]
fn socket_files_are_replaced_only_if_no_process_listens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serial.sock");
    let live = SerialBackend::unix_listener(&path).unwrap();
    let error = SerialBackend::unix_listener(&path).err().unwrap();
    assert!(error.to_string().contains("serial.sock"), "{error}");
    drop(live);
    // The file of a listener that was only closed remains.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(SerialBackend::unix_listener(&path).unwrap());
    std::fs::write(&path, "precious").unwrap();
    assert!(SerialBackend::unix_listener(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn the_error_of_a_file_names_it() {
    let error = SerialBackend::file("/nonexistent/serial.log".as_ref())
        .err()
        .unwrap();
    assert!(error.to_string().contains("/nonexistent/serial.log"));
}

#[test]
fn a_terminal_can_be_opened_closed_and_opened_again() {
    let (backend, path) = SerialBackend::pty().unwrap();
    let port = SerialPort::new();
    let connection = port.connect("com1", backend).unwrap();
    for round in 0..2 {
        send(&port, b"login: \r\n");
        let mut options = std::fs::File::options();
        let mut terminal = options.read(true).write(true).open(&path).unwrap();
        let mut buffer = [0; 9];
        terminal.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"login: \r\n");
        terminal.write_all(b"root\r").unwrap();
        wait_until(|| port.stats().input == 5 * (round + 1));
        drop(terminal);
        wait_until(|| port.has_absent_reader());
    }
    // Without a reader the guest continues.
    send(&port, &pattern(3 * SerialPort::OUTPUT_CAPACITY));
    assert!(connection.close(PATIENCE));
}

#[test]
fn a_tcp_socket_serves_one_client_at_a_time() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (backend, address) = SerialBackend::tcp_listener(any).unwrap();
    assert_ne!(address.port(), 0);
    let port = SerialPort::new();
    let connection = port.connect("com1", backend).unwrap();
    send(&port, b"login: ");
    for round in 1..=2 {
        let mut client = TcpStream::connect(address).unwrap();
        let mut buffer = [0; 7];
        client.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"login: ");
        client.write_all(b"root\r").unwrap();
        wait_until(|| port.stats().input == 5 * round);
        drop(client);
        // Before that, TCP would take the output without delivering it.
        wait_until(|| port.has_absent_reader());
        send(&port, b"login: ");
    }
    // The address is in use.
    let error = SerialBackend::tcp_listener(address).err().unwrap();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(connection.close(PATIENCE));
}

#[test]
fn input_can_be_dropped() {
    let port = SerialPort::new();
    port.drop_input();
    let sent = [0; 2 * SerialPort::INPUT_CAPACITY];
    assert_eq!(port.write_input(&sent), sent.len());
    assert!(port.send_break());
    assert!(port.receive().is_none());
    assert_eq!(port.stats().input, 0);
}

#[test]
fn a_named_pipe_without_a_reader_is_refused_at_once() {
    use rustix::fs::Mode;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
    let error = SerialBackend::file(&path).err().unwrap();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "no process reads the named pipe");
}
