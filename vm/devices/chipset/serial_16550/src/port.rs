use chipset_device::DeviceWaker;
use minicbor::Decode;
use minicbor::Encode;
use parking_lot::Condvar;
use parking_lot::Mutex;
use rustix::fd::AsFd;
use rustix::fd::BorrowedFd;
use rustix::fd::OwnedFd;
use serde_json::Value;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

/// The serial line between a UART and the host. Cheap to clone; all clones are the same line.
///
/// It has a buffer for each direction. The device adds the guest's output to one, and a thread (the pump) writes it
/// to the backend. The other one keeps the host's input until the guest reads it.
#[derive(Clone)]
pub struct SerialPort(Arc<Shared>);

struct Shared {
    lines: Mutex<Lines>,
    /// Output was written, input was read, or the reader connected or disconnected.
    changed: Condvar,
    waker: Mutex<DeviceWaker>,
    /// An eventfd that wakes the pump. Created for the first connection.
    pump_signal: OnceLock<OwnedFd>,
}

#[derive(Default)]
struct Lines {
    output: VecDeque<u8>,
    reader: Reader,
    /// The device waits for room for output.
    output_wanted: bool,
    /// The number of threads that wait in `flush`.
    flushing: usize,
    input: VecDeque<Input>,
    /// The pump waits for room for input.
    input_wanted: bool,
    pump: PumpState,
    /// Input is dropped.
    transmit_only: bool,
    stats: PortStats,
}

/// The state of the reader of the output.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
enum Reader {
    /// There is no reader.
    #[default]
    Absent,
    /// The pump waits for a signal.
    Asleep,
    /// The pump will check the output by itself.
    Awake,
}

#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
enum PumpState {
    #[default]
    None,
    Running,
    /// It was told to end.
    Stopping,
}

/// What a receiver gets from its line.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Input {
    #[n(0)]
    Byte(#[n(0)] u8),
    /// A break; it reads as a zero byte.
    #[n(1)]
    Break,
}

/// What a line holds on its way in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct SavedLine {
    /// Output that the backend has not taken.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) output: Vec<u8>,
    /// Input that the guest has not read.
    #[n(2)]
    pub(crate) input: Vec<Input>,
}

/// The result of sending a byte.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The byte was accepted.
    pub(crate) accepted: bool,
    /// There is room for as many bytes as the transmitter FIFO has.
    pub(crate) room: bool,
}

/// Counters of a serial line.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Bytes the guest sent.
    pub output: u64,
    /// Bytes of output that were overwritten by later ones while there was no reader.
    pub overwritten: u64,
    /// Bytes of output that were lost because the guest sent them while its transmitter was not ready.
    pub refused: u64,
    /// Bytes of output that the backend failed to write.
    pub failed: u64,
    /// Bytes the host sent.
    pub input: u64,
}

impl PortStats {
    /// The counters by name, for people.
    pub(crate) fn inspect(&self) -> Value {
        json!({
            "output": self.output,
            "overwritten": self.overwritten,
            "refused": self.refused,
            "failed": self.failed,
            "input": self.input,
        })
    }
}

/// The work of the pump.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Work {
    pub(crate) output: usize,
    pub(crate) flush: bool,
    pub(crate) end: bool,
}

/// The transmitter is ready while there is room for this many bytes. A guest that sees it ready fills the
/// 16-byte FIFO without checking again.
const FIFO_ROOM: usize = 16;

impl SerialPort {
    /// The size of the output buffer in bytes.
    pub const OUTPUT_CAPACITY: usize = 64 << 10;

    /// The size of the input buffer in bytes.
    pub const INPUT_CAPACITY: usize = 16 << 10;

    /// The pump writes at once if there are this many bytes of output.
    pub(crate) const HALF: usize = Self::OUTPUT_CAPACITY / 2;

    /// A line without a backend.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            lines: Mutex::default(),
            changed: Condvar::new(),
            waker: Mutex::default(),
            pump_signal: OnceLock::new(),
        }))
    }

    /// Drops all input from now on.
    pub fn drop_input(&self) {
        self.0.lines.lock().transmit_only = true;
    }

    /// Sends as many of `bytes` to the guest as there is room for. Returns their number.
    pub fn write_input(&self, bytes: &[u8]) -> usize {
        let mut lines = self.0.lines.lock();
        if lines.transmit_only {
            return bytes.len();
        }
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

    /// Sends a break condition to the guest, after the input sent so far. Returns false if there is no room.
    pub fn send_break(&self) -> bool {
        let mut lines = self.0.lines.lock();
        if lines.transmit_only {
            return true;
        }
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

    /// Sends a byte of output for a device. Returns false if the byte was lost because there was no room.
    pub fn write_output(&self, byte: u8) -> bool {
        self.send(byte).accepted
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

    /// Waits until the backend has written all output, at most for `timeout`. Returns the number of bytes that are
    /// left. Call it when the VM has stopped, before the process ends.
    ///
    /// Without a reader it returns at once.
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

    /// The counters of the line.
    pub fn stats(&self) -> PortStats {
        self.0.lines.lock().stats
    }

    /// Waits for a change. Returns true if the deadline passed first.
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
            // If the counter is full, the eventfd is already readable.
            let _ = rustix::io::write(signal, &1_u64.to_ne_bytes());
        }
    }
}

/// Saved state. The guest is stopped; the backend may be at work.
impl SerialPort {
    pub(crate) fn save(&self) -> SavedLine {
        let lines = self.0.lines.lock();
        SavedLine {
            output: lines.output.iter().copied().collect(),
            input: lines.input.iter().copied().collect(),
        }
    }

    /// Whether `saved` fits into a line.
    pub(crate) fn holds(saved: &SavedLine) -> bool {
        saved.output.len() <= Self::OUTPUT_CAPACITY && saved.input.len() <= Self::INPUT_CAPACITY
    }

    /// Replaces what the line holds.
    pub(crate) fn restore(&self, saved: SavedLine) {
        let mut lines = self.0.lines.lock();
        lines.output = saved.output.into();
        lines.input = saved.input.into();
        drop(lines);
        self.signal_pump();
        self.wake_device();
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
                    accepted: false,
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
        Sent {
            accepted: true,
            room,
        }
    }

    /// Whether the transmitter is ready. If not, the device is woken when it becomes ready.
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
    /// Makes the caller the pump of this line. Returns false if there is one already.
    pub(crate) fn attach_pump(&self) -> rustix::io::Result<bool> {
        if self.0.pump_signal.get().is_none() {
            let flags =
                rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
            // If another thread was faster, its eventfd is used.
            let _ = self.0.pump_signal.set(rustix::event::eventfd(0, flags)?);
        }
        let mut lines = self.0.lines.lock();
        if lines.pump != PumpState::None {
            return Ok(false);
        }
        lines.pump = PumpState::Running;
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

    /// Called by the pump when it ends.
    pub(crate) fn detach_pump(&self) {
        self.set_reader(false);
        self.0.lines.lock().pump = PumpState::None;
        self.0.changed.notify_all();
    }

    /// Tells the pump to end and waits for that, at most for `timeout`. Returns whether it has ended.
    pub(crate) fn end_pump(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut lines = self.0.lines.lock();
        if lines.pump == PumpState::Running {
            lines.pump = PumpState::Stopping;
            self.signal_pump();
        }
        while lines.pump == PumpState::Stopping {
            if self.wait(&mut lines, deadline) {
                return false;
            }
        }
        true
    }

    /// Sets whether there is a reader for the output.
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
            end: lines.pump == PumpState::Stopping,
        }
    }

    /// Lets the pump wait for a signal. Returns false if there is output.
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

    /// Copies the output to `buffer`. It stays in the line until it is consumed.
    pub(crate) fn peek_output(&self, buffer: &mut Vec<u8>) {
        let lines = self.0.lines.lock();
        let (front, back) = lines.output.as_slices();
        buffer.clear();
        buffer.extend_from_slice(front);
        buffer.extend_from_slice(back);
    }

    /// Removes the first `count` bytes of the output, which the backend has written or, if `failed`, has not.
    pub(crate) fn consume_output(&self, count: usize, failed: bool) {
        let mut lines = self.0.lines.lock();
        let count = count.min(lines.output.len());
        lines.output.drain(..count);
        if failed {
            lines.stats.failed += count as u64;
        }
        // The device is not woken for every byte of room, but when half of the buffer is free.
        let wake = lines.output.len() <= Self::HALF && std::mem::take(&mut lines.output_wanted);
        drop(lines);
        self.0.changed.notify_all();
        if wake {
            self.wake_device();
        }
    }

    /// The room for input in bytes. If there is none, the pump is signalled when there is.
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
