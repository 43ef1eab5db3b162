use chipset_device::DeviceWaker;
use parking_lot::Condvar;
use parking_lot::Mutex;
use rustix::fd::AsFd;
use rustix::fd::BorrowedFd;
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

/// The line between a UART and the host. Cheap to clone; all clones are one line.
///
/// It holds two rings, one for each direction. The device puts the guest's output into one, from which a
/// thread hands it to the backend; the host's input waits in the other until the guest reads it.
#[derive(Clone)]
pub struct SerialPort(Arc<Shared>);

struct Shared {
    lines: Mutex<Lines>,
    /// Output went out, input was read, or the reader came or went.
    changed: Condvar,
    waker: Mutex<DeviceWaker>,
    /// Signalled to make the pump look at the rings. Made for the first connection.
    pump_signal: OnceLock<OwnedFd>,
}

#[derive(Default)]
struct Lines {
    output: VecDeque<u8>,
    reader: Reader,
    /// The device found no room and waits for some.
    output_wanted: bool,
    /// Somebody waits in `flush`.
    flushing: usize,
    input: VecDeque<Input>,
    /// The pump holds input for which there was no room.
    input_wanted: bool,
    pump: PumpState,
    stats: PortStats,
}

/// Who takes the output.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
enum Reader {
    /// Nobody.
    #[default]
    Absent,
    /// The pump, which sleeps until it is signalled.
    Asleep,
    /// The pump, which is going to look at the ring by itself.
    Awake,
}

#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
enum PumpState {
    #[default]
    None,
    Runs,
    /// Told to end.
    Ends,
}

#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    Byte(u8),
    Break,
}

/// What became of a byte the device sent.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The byte is in the ring.
    pub(crate) taken: bool,
    /// There is room for a transmitter FIFO's worth of further bytes.
    pub(crate) room: bool,
}

/// What went over a line, and what did not.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Bytes the guest sent.
    pub output: u64,
    /// Output that was overwritten by later output while nobody was connected.
    pub overwritten: u64,
    /// Output that the guest wrote although its transmitter was not ready, and lost.
    pub refused: u64,
    /// Output that the backend failed to write.
    pub failed: u64,
    /// Bytes the host sent.
    pub input: u64,
}

/// What the pump has to do.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Work {
    pub(crate) output: usize,
    pub(crate) flush: bool,
    pub(crate) end: bool,
}

/// The transmitter is ready while at least this much fits: a guest that sees it ready fills the
/// 16-byte FIFO without looking again.
const FIFO_ROOM: usize = 16;

impl SerialPort {
    /// How many bytes of output the line holds for its reader.
    pub const OUTPUT_CAPACITY: usize = 64 << 10;

    /// How many bytes of input the line holds for the guest.
    pub const INPUT_CAPACITY: usize = 16 << 10;

    /// From here on the pump stops waiting for more.
    pub(crate) const HALF: usize = Self::OUTPUT_CAPACITY / 2;

    /// A line with nobody at the host's end.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            lines: Mutex::default(),
            changed: Condvar::new(),
            waker: Mutex::default(),
            pump_signal: OnceLock::new(),
        }))
    }

    /// Sends `bytes` to the guest: as many as there is room for. Returns how many that were.
    pub fn write_input(&self, bytes: &[u8]) -> usize {
        let mut lines = self.0.lines.lock();
        let count = bytes.len().min(Self::INPUT_CAPACITY - lines.input.len());
        let taken = bytes[..count].iter().map(|byte| Input::Byte(*byte));
        lines.input.extend(taken);
        lines.stats.input += count as u64;
        drop(lines);
        if count != 0 {
            self.wake_device();
        }
        count
    }

    /// Sends a break condition to the guest, after the input sent so far. False if there is no room.
    pub fn send_break(&self) -> bool {
        let mut lines = self.0.lines.lock();
        if lines.input.len() == Self::INPUT_CAPACITY {
            return false;
        }
        lines.input.push_back(Input::Break);
        drop(lines);
        self.wake_device();
        true
    }

    /// Waits until there is room for input, at most for `timeout`. Returns the room in bytes.
    pub fn wait_input_room(&self, timeout: Duration) -> usize {
        let deadline = Instant::now().checked_add(timeout);
        let mut lines = self.0.lines.lock();
        while lines.input.len() == Self::INPUT_CAPACITY {
            if self.wait(&mut lines, deadline) {
                break;
            }
        }
        Self::INPUT_CAPACITY - lines.input.len()
    }

    /// Sends a byte of output, on behalf of a device. False if there was no room, and the byte is lost.
    pub fn write_output(&self, byte: u8) -> bool {
        self.send(byte).taken
    }

    /// Waits until there is room for output, at most for `timeout`. Returns whether there is.
    pub fn wait_output_room(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut lines = self.0.lines.lock();
        while !lines.has_room() {
            if self.wait(&mut lines, deadline) {
                break;
            }
        }
        lines.has_room()
    }

    /// Waits until the backend has taken all output, at most for `timeout`, and returns how many bytes
    /// it has not. To be called when the VM has stopped, before the process ends.
    ///
    /// Where nobody is connected there is nothing to wait for.
    pub fn flush(&self, timeout: Duration) -> usize {
        let deadline = Instant::now().checked_add(timeout);
        let mut lines = self.0.lines.lock();
        lines.flushing += 1;
        self.signal_pump();
        while !lines.output.is_empty() && lines.reader != Reader::Absent {
            if self.wait(&mut lines, deadline) {
                break;
            }
        }
        lines.flushing -= 1;
        lines.output.len()
    }

    /// What went over the line so far.
    pub fn stats(&self) -> PortStats {
        self.0.lines.lock().stats
    }

    /// Waits for a change; true if the deadline passed first.
    fn wait(
        &self,
        lines: &mut parking_lot::MutexGuard<'_, Lines>,
        deadline: Option<Instant>,
    ) -> bool {
        match deadline {
            Some(deadline) => self.0.changed.wait_until(lines, deadline).timed_out(),
            None => {
                self.0.changed.wait(lines);
                false
            }
        }
    }

    fn wake_device(&self) {
        let waker = self.0.waker.lock().clone();
        waker.wake();
    }

    fn signal_pump(&self) {
        if let Some(signal) = self.0.pump_signal.get() {
            // A full counter is as good as a signal.
            let _ = rustix::io::write(signal, &1_u64.to_ne_bytes());
        }
    }
}

/// The device's side.
impl SerialPort {
    pub(crate) fn set_waker(&self, waker: DeviceWaker) {
        *self.0.waker.lock() = waker;
    }

    pub(crate) fn send(&self, byte: u8) -> Sent {
        let mut lines = self.0.lines.lock();
        if lines.output.len() == Self::OUTPUT_CAPACITY {
            if lines.reader == Reader::Absent {
                lines.output.pop_front();
                lines.stats.overwritten += 1;
            } else {
                lines.stats.refused += 1;
                lines.output_wanted = true;
                return Sent {
                    taken: false,
                    room: false,
                };
            }
        }
        lines.output.push_back(byte);
        lines.stats.output += 1;
        let signal = match lines.reader {
            Reader::Absent => false,
            Reader::Asleep => {
                lines.reader = Reader::Awake;
                true
            }
            Reader::Awake => lines.output.len() == Self::HALF,
        };
        let room = lines.has_room();
        lines.output_wanted |= !room;
        drop(lines);
        if signal {
            self.signal_pump();
        }
        Sent { taken: true, room }
    }

    /// Whether the transmitter is ready. If not, the device is woken when it is.
    pub(crate) fn output_room(&self) -> bool {
        let mut lines = self.0.lines.lock();
        let room = lines.has_room();
        lines.output_wanted |= !room;
        room
    }

    pub(crate) fn receive(&self) -> Option<Input> {
        let mut lines = self.0.lines.lock();
        let input = lines.input.pop_front()?;
        let room = Self::INPUT_CAPACITY - lines.input.len();
        let signal = room >= Self::INPUT_CAPACITY / 2 && std::mem::take(&mut lines.input_wanted);
        drop(lines);
        self.0.changed.notify_all();
        if signal {
            self.signal_pump();
        }
        Some(input)
    }
}

/// The pump's side.
impl SerialPort {
    /// Makes the caller the pump of this line. False if there is one.
    pub(crate) fn attach_pump(&self) -> rustix::io::Result<bool> {
        if self.0.pump_signal.get().is_none() {
            let flags =
                rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
            // Lost against another thread: that one's is as good.
            let _ = self.0.pump_signal.set(rustix::event::eventfd(0, flags)?);
        }
        let mut lines = self.0.lines.lock();
        if lines.pump != PumpState::None {
            return Ok(false);
        }
        lines.pump = PumpState::Runs;
        Ok(true)
    }

    pub(crate) fn pump_signal(&self) -> Option<BorrowedFd<'_>> {
        self.0.pump_signal.get().map(AsFd::as_fd)
    }

    pub(crate) fn clear_pump_signal(&self) {
        if let Some(signal) = self.0.pump_signal.get() {
            let _ = rustix::io::read(signal, &mut [0; 8]);
        }
    }

    /// The pump has ended.
    pub(crate) fn detach_pump(&self) {
        self.set_reader(false);
        self.0.lines.lock().pump = PumpState::None;
        self.0.changed.notify_all();
    }

    /// Tells the pump to end, and waits until it has, at most for `timeout`. Returns whether it has.
    pub(crate) fn end_pump(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut lines = self.0.lines.lock();
        if lines.pump == PumpState::Runs {
            lines.pump = PumpState::Ends;
            self.signal_pump();
        }
        while lines.pump == PumpState::Ends {
            if self.wait(&mut lines, deadline) {
                return false;
            }
        }
        true
    }

    /// Says whether somebody takes the output.
    pub(crate) fn set_reader(&self, present: bool) {
        let mut lines = self.0.lines.lock();
        lines.reader = if present {
            Reader::Awake
        } else {
            Reader::Absent
        };
        let wake = !present && std::mem::take(&mut lines.output_wanted);
        drop(lines);
        self.0.changed.notify_all();
        if wake {
            self.wake_device();
        }
    }

    #[cfg(test)]
    pub(crate) fn has_absent_reader(&self) -> bool {
        self.0.lines.lock().reader == Reader::Absent
    }

    pub(crate) fn work(&self) -> Work {
        let lines = self.0.lines.lock();
        Work {
            output: lines.output.len(),
            flush: lines.flushing != 0,
            end: lines.pump == PumpState::Ends,
        }
    }

    /// Lets the pump sleep until it is signalled. False if there is output.
    pub(crate) fn fall_asleep(&self) -> bool {
        let mut lines = self.0.lines.lock();
        if !lines.output.is_empty() {
            return false;
        }
        if lines.reader == Reader::Awake {
            lines.reader = Reader::Asleep;
        }
        true
    }

    /// Copies the output to `buffer`. It stays in the ring until it is consumed.
    pub(crate) fn peek_output(&self, buffer: &mut Vec<u8>) {
        let lines = self.0.lines.lock();
        let (front, back) = lines.output.as_slices();
        buffer.clear();
        buffer.extend_from_slice(front);
        buffer.extend_from_slice(back);
    }

    /// Removes the first `count` bytes of the output: the backend has them or, if they `failed`, nobody.
    pub(crate) fn consume_output(&self, count: usize, failed: bool) {
        let mut lines = self.0.lines.lock();
        let count = count.min(lines.output.len());
        lines.output.drain(..count);
        if failed {
            lines.stats.failed += count as u64;
        }
        // Not for each byte of room: the device is to be woken now and then, not all the time.
        let wake = lines.output.len() <= Self::HALF && std::mem::take(&mut lines.output_wanted);
        drop(lines);
        self.0.changed.notify_all();
        if wake {
            self.wake_device();
        }
    }

    /// The room for input. If there is none, the pump is signalled when there is.
    pub(crate) fn input_room(&self) -> usize {
        let mut lines = self.0.lines.lock();
        let room = Self::INPUT_CAPACITY - lines.input.len();
        lines.input_wanted |= room == 0;
        room
    }
}

impl Lines {
    fn has_room(&self) -> bool {
        self.reader == Reader::Absent
            || self.output.len() + FIFO_ROOM <= SerialPort::OUTPUT_CAPACITY
    }
}

impl Default for SerialPort {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = self.0.lines.lock();
        f.debug_struct("SerialPort")
            .field("reader", &lines.reader)
            .field("output", &lines.output.len())
            .field("input", &lines.input.len())
            .field("stats", &lines.stats)
            .finish()
    }
}
